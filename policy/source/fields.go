package source

import (
	"reflect"
	"slices"

	"github.com/concordat/concordat/attestation/snp"
	"github.com/concordat/concordat/policy"
)

// field describes one field of a struct of package policy.
type field struct {
	goName string
	name   string // in YAML, in JSON and in a policy.Problem
	doc    string // one sentence without a full stop
	form   form
	words  []string // the only values, where there are few
	flag   string   // formAny: the Go name of the bool that stands for "any"; empty: an empty list does
}

// form is how a field is written where its Go type does not say it all.
type form uint8

const (
	formPlain        form = iota
	formOptional          // may be left out, which is its zero value
	formAny               // a list, or the word "any"
	formShare             // a fraction of 1 with up to three decimals, for parts per thousand
	formMask              // bits, as 0x…
	formOptionalMask      // both
)

func (f form) optional() bool { return f == formOptional || f == formOptionalMask }
func (f form) mask() bool     { return f == formMask || f == formOptionalMask }

// fields has every field of every struct, in the order of the YAML form.
var fields = map[reflect.Type][]field{
	reflect.TypeFor[policy.Policy](): {
		{goName: "Schema", name: "schema", doc: "version of this form, always 1"},
		{goName: "Version", name: "version", doc: "1 founds the federation; every later version is one more"},
		{goName: "Federation", name: "federation", doc: "digest of version 1, which names the federation for ever; left out in version 1", form: formOptional},
		{goName: "Previous", name: "previous", doc: "digest of the version before; left out in version 1", form: formOptional},
		{goName: "Name", name: "name", doc: "for people; decides nothing"},
		{goName: "Simulated", name: "simulated", doc: "whether the federation trusts simulated hardware, whose evidence proves nothing; fixed by version 1"},
		{goName: "SimulatedRoots", name: "simulated_roots", doc: "roots of the simulated vendors, as SHA-256 of their public keys (SubjectPublicKeyInfo); left out in a real federation, whose roots are compiled in", form: formOptional},
		{goName: "Members", name: "members", doc: "the companies, two or more"},
		{goName: "Approvals", name: "approvals", doc: "members that must sign a new version; more than half"},
		{goName: "Platforms", name: "platforms", doc: "the hardware that is accepted: snp, tdx or both, and gpu where GPUs are expected; what is left out is refused"},
		{goName: "Evidence", name: "evidence", doc: "how old may be what a node relies on"},
		{goName: "Log", name: "log", doc: "the transparency log and its witnesses"},
		{goName: "Apps", name: "apps", doc: "the applications that may run; an empty list lets none run"},
		{goName: "Release", name: "release", doc: "what may leave the enclave"},
		{goName: "Nodes", name: "nodes", doc: "what nodes may be asked to do"},
		{goName: "SignedApps", name: "signed_apps", doc: "applications whose bundles may run, without standing under apps, once their signers have signed them", form: formOptional},
	},
	reflect.TypeFor[policy.Member](): {
		{goName: "ID", name: "id", doc: "a role such as hospital-a: 1 to 63 of a-z, 0-9 and '-'; it stands in the log, so no name of a person"},
		{goName: "PolicyKeys", name: "policy_keys", doc: "offline keys; any one of them signs policies for the member"},
		{goName: "IssuerKey", name: "issuer_key", doc: "online key that signs credentials of the member's nodes"},
		{goName: "WitnessKey", name: "witness_key", doc: "C2SP verifier key with which the member's node cosigns the log"},
	},
	reflect.TypeFor[policy.Platforms](): {
		{goName: "SNP", name: "snp", doc: "AMD SEV-SNP; guests with debugging or migration are always refused", form: formOptional},
		{goName: "TDX", name: "tdx", doc: "Intel TDX; guests with debugging or migration are always refused", form: formOptional},
		{goName: "GPU", name: "gpu", doc: "NVIDIA GPUs in confidential mode; left out, evidence of a GPU is refused", form: formOptional},
		{goName: "TPM", name: "tpm", doc: "vTPM of a paravisor, as on Azure: given, every enclave must have one, and snp and tdx describe the paravisor; left out, evidence of a vTPM is refused", form: formOptional},
	},
	reflect.TypeFor[policy.SNP](): {
		{goName: "Products", name: "products", doc: "product lines", words: []string{"Genoa", "Milan", "Turin"}},
		{goName: "Measurements", name: "measurements", doc: "launch measurements of the accepted enclave images, 48 bytes each"},
		{goName: "MinTCB", name: "min_tcb", doc: "smallest TCB, reported, committed and at launch, compared component by component; one entry for each product"},
		{goName: "Chips", name: "chips", doc: "accepted CHIP_IDs (64 bytes; of Turin 8), or any: then whoever extracts the key of one chip anywhere can forge an enclave", form: formAny, flag: "AnyChip"},
		{goName: "AllowSMT", name: "allow_smt", doc: "whether the host may run two threads on a core"},
		{goName: "MinGuestSVN", name: "min_guest_svn", doc: "smallest security version of the guest"},
		{goName: "MinVersion", name: "min_version", doc: "smallest version of the report's format, at least 2"},
		{goName: "HostData", name: "host_data", doc: "true demands that the guest was bound to this federation at launch (HOST_DATA)"},
		{goName: "Providers", name: "providers", doc: "cloud providers whose keys (VLEK) are accepted beside those of chips (VCEK), by the CSP id of their certificates, such as CN=cc-us-east-2.amazonaws.com", form: formOptional},
		{goName: "Denied", name: "denied_chips", doc: "CHIP_IDs that are refused; with an entry, a host that masks its CHIP_ID is refused too", form: formOptional},
		{goName: "AllowProvisional", name: "allow_provisional", doc: "accept hosts that have not committed their firmware and may go back; what they may go back to must reach min_tcb", form: formOptional},
		{goName: "AllowCXL", name: "allow_cxl", doc: "whether memory of the guest may lie in CXL devices", form: formOptional},
		{goName: "AllowUncheckedAlias", name: "allow_unchecked_alias", doc: "accept hosts that did not check their memory for aliases (ALIAS_CHECK_COMPLETE, against BadRAM)", form: formOptional},
		{goName: "GuestPolicy", name: "guest_policy", doc: "restrictions that the guest must have been launched with", words: snp.PolicyWords(), form: formOptional},
		{goName: "PlatformRequired", name: "platform_required", doc: "properties that the host must have (PLATFORM_INFO)", words: snp.PlatformWords(), form: formOptional},
		{goName: "PlatformForbidden", name: "platform_forbidden", doc: "properties that the host must not have (PLATFORM_INFO)", words: snp.PlatformWords(), form: formOptional},
		{goName: "Mitigations", name: "mitigations", doc: "bits that the mitigation vectors of the launch and of now must have; reports before version 5 have none", form: formOptionalMask},
		{goName: "IDKeys", name: "id_keys", doc: "accepted ID_KEY_DIGESTs, 48 bytes each; left out, no ID block is demanded", form: formOptional},
		{goName: "AuthorKeys", name: "author_keys", doc: "accepted AUTHOR_KEY_DIGESTs, 48 bytes each; left out, none is demanded", form: formOptional},
	},
	reflect.TypeFor[policy.ProdTCB](): {
		{goName: "Product", name: "product", doc: "product line", words: []string{"Genoa", "Milan", "Turin"}},
		{goName: "FMC", name: "fmc", doc: "0 but on Turin"},
		{goName: "BootLoader", name: "boot_loader", doc: "security version of the boot loader"},
		{goName: "TEE", name: "tee", doc: "security version of the TEE"},
		{goName: "SNP", name: "snp", doc: "security version of the SNP firmware"},
		{goName: "Microcode", name: "microcode", doc: "microcode patch level"},
	},
	reflect.TypeFor[policy.TDX](): {
		{goName: "MRTD", name: "mrtd", doc: "launch measurements (MRTD) of the accepted enclave images, 48 bytes each"},
		{goName: "RTMRs", name: "rtmrs", doc: "accepted sets of run-time measurements 0 to 2, or any: then what was loaded after the firmware is not pinned", form: formAny},
		{goName: "Statuses", name: "statuses", doc: "accepted TCB statuses, in Intel's spelling", words: []string{"ConfigurationAndSWHardeningNeeded", "ConfigurationNeeded", "OutOfDate",
			"OutOfDateConfigurationNeeded", "SWHardeningNeeded", "TDRelaunchAdvised", "TDRelaunchAdvisedConfigurationNeeded", "UpToDate"}},
		{goName: "MinEvaluation", name: "min_evaluation", doc: "smallest tcbEvaluationDataNumber of the collateral"},
		{goName: "PIIDs", name: "platform_instances", doc: "accepted platform instance ids (16 bytes), or any: then whoever extracts the key of one platform anywhere can forge an enclave", form: formAny, flag: "AnyPlatform"},
		{goName: "XFAMMask", name: "xfam_mask", doc: "CPU features (XFAM bits) that may be on", form: formMask},
		{goName: "MRConfigID", name: "mr_config_id", doc: "true demands that the guest was bound to this federation at launch (MRCONFIGID)"},
		{goName: "MRSignerSEAM", name: "mr_signer_seam", doc: "signer of the TDX module, 48 bytes; zeros are Intel"},
		{goName: "AllowMigration", name: "allow_migration", doc: "always false: a guest that can migrate is refused"},
		{goName: "Events", name: "events", doc: "measured events of RTMR 0 to 3; a register with an entry may hold no other event, and the event log must travel with the evidence", form: formOptional},
	},
	reflect.TypeFor[policy.RTMRs](): {
		{goName: "RTMR0", name: "rtmr0", doc: "48 bytes"},
		{goName: "RTMR1", name: "rtmr1", doc: "48 bytes"},
		{goName: "RTMR2", name: "rtmr2", doc: "48 bytes"},
	},
	reflect.TypeFor[policy.TPM](): {
		{goName: "PCRs", name: "pcrs", doc: "pinned registers of the SHA-256 bank", form: formOptional},
		{goName: "Events", name: "events", doc: "measured events of PCR 0 to 15; a register with an entry may hold no other event, and the event log must travel with the evidence", form: formOptional},
	},
	reflect.TypeFor[policy.PCR](): {
		{goName: "Index", name: "index", doc: "0 to 15"},
		{goName: "Values", name: "values", doc: "accepted values, 32 bytes each"},
	},
	reflect.TypeFor[policy.Event](): {
		{goName: "Register", name: "register", doc: "number of the register"},
		{goName: "Digest", name: "digest", doc: "what was extended: 48 bytes in an RTMR, 32 in a PCR"},
		{goName: "Required", name: "required", doc: "true demands that the event happened"},
		{goName: "Name", name: "name", doc: "for people: what the event stands for"},
	},
	reflect.TypeFor[policy.GPU](): {
		{goName: "Architectures", name: "architectures", doc: "accepted architectures", words: []string{"blackwell", "hopper"}},
		{goName: "MinCount", name: "min_count", doc: "GPUs that an enclave must have, at least 1"},
		{goName: "MinDriver", name: "min_driver", doc: "smallest driver version, such as 570.124.06"},
		{goName: "MinVBIOS", name: "min_vbios", doc: "smallest VBIOS version, such as 96.00.9F.00.01"},
		{goName: "Measurements", name: "measurements", doc: "accepted sets of run-time measurements"},
		{goName: "Devices", name: "devices", doc: "accepted GPUs by the serial number of their device certificate, or any", form: formAny, flag: "AnyDevice"},
		{goName: "RIM", name: "rim", doc: "accept measurements by NVIDIA's signed reference manifests too, where no pinned set matches", form: formOptional},
		{goName: "Modes", name: "modes", doc: "accepted modes; left out, all but ppcie; unstated is a driver too old to say", words: []string{"mpt", "ppcie", "spt", "unstated"}, form: formOptional},
		{goName: "Denied", name: "denied", doc: "GPUs and switches that are refused, by the serial number of their device certificate", form: formOptional},
		{goName: "MaxOCSPAge", name: "max_ocsp_age", doc: "of responses about NVIDIA's certificates; 0 is evidence.max_collateral_age", form: formOptional},
		{goName: "AllowRIMHold", name: "allow_rim_hold", doc: "accept manifests whose signer's certificates are on hold", form: formOptional},
		{goName: "MinSwitches", name: "min_switches", doc: "NVLink switches that an enclave must have evidence of; 0 refuses any", form: formOptional},
		{goName: "MinSwitchVBIOS", name: "min_switch_vbios", doc: "smallest VBIOS version of a switch, such as 96.10.55.00.01", form: formOptional},
	},
	reflect.TypeFor[policy.GPUMeasured](): {
		{goName: "Name", name: "name", doc: "for people: the driver and VBIOS that the set stands for"},
		{goName: "Digest", name: "digest", doc: "digest of the set"},
	},
	reflect.TypeFor[policy.Evidence](): {
		{goName: "MaxAge", name: "max_age", doc: "of an attestation result when a run starts"},
		{goName: "MaxCollateralAge", name: "max_collateral_age", doc: "of the vendors' revocation lists, TCB info and identities"},
		{goName: "MaxEpochAge", name: "max_epoch_age", doc: "of an enclave's signing key"},
		{goName: "MaxRoundsPerEpoch", name: "max_rounds_per_epoch", doc: "steps that one signing key may sign"},
	},
	reflect.TypeFor[policy.Log](): {
		{goName: "Origin", name: "origin", doc: "name of the log: the first line of its checkpoints, and the name in its key"},
		{goName: "Key", name: "key", doc: "C2SP verifier key of the log"},
		{goName: "Witnesses", name: "witnesses", doc: "members that must cosign a checkpoint before it counts"},
		{goName: "MaxUnpublishedSteps", name: "max_unpublished_steps", doc: "steps that may run ahead of the last one in the log; 1 is usual"},
		{goName: "DenialLag", name: "denial_lag", doc: "after which a node stops while its member's denial is not in the log"},
	},
	reflect.TypeFor[policy.App](): {
		{goName: "Digest", name: "digest", doc: "SHA-256 of the app's bytes"},
		{goName: "Name", name: "name", doc: "for people"},
		{goName: "Exposure", name: "exposure", doc: "what the app's server side sees: aggregate, or individual members' updates", words: []string{"aggregate", "individual"}},
		{goName: "Configs", name: "configs", doc: "digests of the accepted effective configurations, or any where exposure is aggregate", form: formAny},
		{goName: "Strategies", name: "strategies", doc: "how it may aggregate; selecting strategies and custom (the app's own code) need exposure individual", words: policy.Strategies()},
		{goName: "MaxRounds", name: "max_rounds", doc: "rounds of one run"},
		{goName: "Addressed", name: "addressed", doc: "a ServerApp may tell each node something of its own, beside arrays that are one for all; every node is sent what each is told", form: formOptional},
	},
	reflect.TypeFor[policy.SignedApp](): {
		{goName: "App", name: "app", doc: "publisher/name of the bundles, as their pyproject.toml says"},
		{goName: "Signers", name: "signers", doc: "keys of concordat app key, for this app alone"},
		{goName: "Threshold", name: "threshold", doc: "signers that must have signed a bundle"},
		{goName: "Configs", name: "configs", doc: "digests of the accepted effective configurations, or any", form: formAny},
		{goName: "Strategies", name: "strategies", doc: "how it may aggregate; the exposure of signed bundles is aggregate", words: mixing()},
		{goName: "MaxRounds", name: "max_rounds", doc: "rounds of one run"},
	},
	reflect.TypeFor[policy.Release](): {
		{goName: "MinContributors", name: "min_contributors", doc: "members with weight in every result, at least 2; members are counted, not nodes"},
		{goName: "Collusion", name: "collusion", doc: "members that may work together against one; min_contributors is at least two more"},
		{goName: "MaxWeightShare", name: "max_weight_share", doc: "largest share of one member in a result; 0.6 is usual", form: formShare},
		{goName: "Cohort", name: "cohort", doc: "fixed: every step asks all members of the run; sampled: a ServerApp may ask some, and results over different sets can be compared (wants dropouts: allow)", words: []string{policy.CohortFixed, policy.CohortSampled}},
		{goName: "Dropouts", name: "dropouts", doc: "refuse: a step without one of the cohort fails; allow: results over different sets can be compared", words: []string{policy.DropoutsAllow, policy.DropoutsRefuse}},
		{goName: "Downlink", name: "downlink", doc: "broadcast: every node is sent the same; per_node is reserved: no enclave sends nodes different content", words: []string{policy.DownlinkShared, policy.DownlinkPerNode}},
		{goName: "MaxMetricBytes", name: "max_metric_bytes", doc: "of the metrics in one message"},
		{goName: "StepDeadline", name: "step_deadline", doc: "for contributions to a step"},
		{goName: "AckDeadline", name: "ack_deadline", doc: "for acknowledgements of a step"},
	},
	reflect.TypeFor[policy.NodeRules](): {
		{goName: "MessageTypes", name: "message_types", doc: "query lets remote questions reach the data", words: []string{"evaluate", "query", "train"}},
		{goName: "MetricKeys", name: "metric_keys", doc: "names of metrics that may leave a node, or any", form: formAny},
		{goName: "CredentialAge", name: "credential_age", doc: "longest validity of a node's credential"},
	},
}

// of returns the field's value in the struct v.
func (f *field) of(v reflect.Value) reflect.Value { return v.FieldByName(f.goName) }

// isZero reports whether the field may be left out of what is rendered.
func (f *field) omits(v reflect.Value) bool {
	return f.form.optional() && (v.IsZero() || v.Kind() == reflect.Slice && v.Len() == 0)
}

// mixing are the strategies that need no exposure of single updates.
func mixing() []string {
	return slices.DeleteFunc(policy.Strategies(), func(name string) bool {
		class, _ := policy.StrategyClass(name)
		return class != policy.ClassMixing
	})
}
