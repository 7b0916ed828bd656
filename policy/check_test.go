package policy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/concordat/concordat/internal/cose"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	if err := example().Check(); err != nil {
		t.Fatal(err)
	}
	sim := example()
	sim.Simulated, sim.SimulatedRoots = true, []Digest{{1}, {2}}
	if err := sim.Check(); err != nil {
		t.Error("simulated:", err)
	}
	wide := example()
	wide.Platforms.SNP.Chips, wide.Platforms.SNP.AnyChip = nil, true
	wide.Platforms.TDX.PIIDs, wide.Platforms.TDX.AnyPlatform, wide.Platforms.TDX.RTMRs = nil, true, nil
	wide.Platforms.GPU.Devices, wide.Platforms.GPU.AnyDevice = nil, true
	wide.Apps, wide.Nodes.MetricKeys, wide.Log.MaxUnpublishedSteps = nil, nil, 0
	if err := wide.Check(); err != nil {
		t.Error("wide:", err)
	}
}

// refusals is one way, or more, to break each rule; the field is where the
// problem is reported.
var refusals = []struct {
	field string
	edit  func(*Policy)
}{
	{"schema", func(p *Policy) { p.Schema = 2 }},
	{"version", func(p *Policy) { p.Version = 0 }},
	{"federation", func(p *Policy) { p.Federation = Digest{1} }},
	{"previous", func(p *Policy) { p.Previous = Digest{1} }},
	{"federation", func(p *Policy) { p.Version, p.Previous = 2, Digest{1} }},
	{"previous", func(p *Policy) { p.Version, p.Federation = 2, Digest{1} }},
	{"name", func(p *Policy) { p.Name = "" }},
	{"name", func(p *Policy) { p.Name = strings.Repeat("x", 129) }},
	{"name", func(p *Policy) { p.Name = "red\x1b[31m" }},
	{"name", func(p *Policy) { p.Name = "right\u202eleft" }},
	{"simulated_roots", func(p *Policy) { p.Simulated = true }},
	{"simulated_roots", func(p *Policy) { p.SimulatedRoots = []Digest{{1}} }},
	{"simulated_roots[0]", func(p *Policy) { p.Simulated, p.SimulatedRoots = true, []Digest{{}} }},
	{"simulated_roots[1]", func(p *Policy) { p.Simulated, p.SimulatedRoots = true, []Digest{{2}, {1}} }},

	{"members", func(p *Policy) { p.Members = p.Members[:1] }},
	{"members[1]", func(p *Policy) { p.Members[0], p.Members[1] = p.Members[1], p.Members[0] }},
	{"members[1]", func(p *Policy) { p.Members[1].ID = p.Members[0].ID }},
	{"members[0].id", func(p *Policy) { p.Members[0].ID = "" }},
	{"members[0].id", func(p *Policy) { p.Members[0].ID = "Bank" }},
	{"members[0].id", func(p *Policy) { p.Members[0].ID = "bank c" }},
	{"members[0].id", func(p *Policy) { p.Members[0].ID = MemberID(strings.Repeat("a", 64)) }},
	{"members[0].policy_keys", func(p *Policy) { p.Members[0].PolicyKeys = nil }},
	{"members[1].policy_keys[0]", func(p *Policy) { p.Members[1].PolicyKeys = p.Members[0].PolicyKeys }},
	{"members[0].policy_keys[1]", func(p *Policy) {
		p.Members[0].PolicyKeys = append(p.Members[0].PolicyKeys, p.Members[0].PolicyKeys[0])
	}},
	{"members[0].policy_keys[1]", func(p *Policy) {
		p.Members[0].PolicyKeys = []cose.Key{signer("a").Public(), signer("b").Public()}
		if string(p.Members[0].PolicyKeys[0].Encode()) < string(p.Members[0].PolicyKeys[1].Encode()) {
			slices.Reverse(p.Members[0].PolicyKeys)
		}
	}},
	{"members[0].issuer_key", func(p *Policy) { p.Members[0].IssuerKey = cose.Key{} }},
	{"members[0].issuer_key", func(p *Policy) { p.Members[0].IssuerKey = p.Members[0].PolicyKeys[0] }},
	{"members[2].issuer_key", func(p *Policy) { p.Members[2].IssuerKey = p.Members[1].IssuerKey }},
	{"members[0].issuer_key", func(p *Policy) {
		k, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		p.Members[0].IssuerKey, _ = cose.NewKey(k.Public())
	}},
	{"members[0].witness_key", func(p *Policy) { p.Members[0].WitnessKey = "" }},
	{"members[0].witness_key", func(p *Policy) { p.Members[0].WitnessKey += "A" }},
	{"members[0].witness_key", func(p *Policy) { p.Members[0].WitnessKey = "x" + p.Members[0].WitnessKey }},
	{"members[0].witness_key", func(p *Policy) { p.Members[0].WitnessKey = verifierKey("bank-c/witness", vkeyLog, signer("x")) }},
	{"members[0].witness_key", func(p *Policy) { p.Members[0].WitnessKey = verifierKey("bank c", vkeyWitness, signer("x")) }},
	{"members[0].witness_key", func(p *Policy) { p.Members[0].WitnessKey = verifierKey("bank-c", vkeyWitness, policyKey("bank-c")) }},
	{"members[0].witness_key", func(p *Policy) { p.Members[0].WitnessKey += "\n" }},
	{"members[1].witness_key", func(p *Policy) { p.Members[1].WitnessKey = verifierKey("bank-c/witness", vkeyWitness, signer("x")) }},
	{"members[2].witness_key", func(p *Policy) { p.Members[2].WitnessKey = verifierKey("x", vkeyWitness, signer("bank-c", "witness")) }},
	{"approvals", func(p *Policy) { p.Approvals = 0 }},
	{"approvals", func(p *Policy) { p.Approvals = 1 }},
	{"approvals", func(p *Policy) { p.Approvals = 4 }},
	{"approvals", func(p *Policy) { p.Members, p.Approvals = p.Members[:2], 1 }}, // exactly half

	{"platforms", func(p *Policy) { p.Platforms.SNP, p.Platforms.TDX = nil, nil }},
	{"platforms.snp.products", func(p *Policy) { p.Platforms.SNP.Products = nil }},
	{"platforms.snp.products[1]", func(p *Policy) { p.Platforms.SNP.Products[1] = "Naples" }},
	{"platforms.snp.measurements", func(p *Policy) { p.Platforms.SNP.Measurements = nil }},
	{"platforms.snp.measurements[1]", func(p *Policy) { p.Platforms.SNP.Measurements[1] = fill(32, 2) }},
	{"platforms.snp.measurements[1]", func(p *Policy) { slices.Reverse(p.Platforms.SNP.Measurements) }},
	{"platforms.snp.min_tcb", func(p *Policy) { p.Platforms.SNP.MinTCB = p.Platforms.SNP.MinTCB[:1] }},
	{"platforms.snp.min_tcb[0].product", func(p *Policy) { p.Platforms.SNP.MinTCB[0].Product = "Milan" }},
	{"platforms.snp.min_tcb[0].fmc", func(p *Policy) { p.Platforms.SNP.MinTCB[0].FMC = 1 }},
	{"platforms.snp.chips", func(p *Policy) { p.Platforms.SNP.Chips = nil }},
	{"platforms.snp.chips", func(p *Policy) { p.Platforms.SNP.AnyChip = true }},
	{"platforms.snp.chips[0]", func(p *Policy) { p.Platforms.SNP.Chips[0] = fill(63, 3) }},
	{"platforms.snp.chips[1]", func(p *Policy) { // 8 bytes are Turin's alone
		p.Platforms.SNP.Products, p.Platforms.SNP.MinTCB = p.Platforms.SNP.Products[:1], p.Platforms.SNP.MinTCB[:1]
	}},
	{"platforms.snp.min_guest_svn", func(p *Policy) { p.Platforms.SNP.MinGuestSVN = 1 << 32 }},
	{"platforms.snp.min_version", func(p *Policy) { p.Platforms.SNP.MinVersion = 1 }},
	{"platforms.snp.providers[0]", func(p *Policy) { p.Platforms.SNP.Providers[0] = "" }},
	{"platforms.snp.providers[1]", func(p *Policy) { p.Platforms.SNP.Providers = []string{"b", "a"} }},
	{"platforms.snp.denied_chips[0]", func(p *Policy) { p.Platforms.SNP.Denied[0] = p.Platforms.SNP.Chips[0] }},
	{"platforms.snp.denied_chips[1]", func(p *Policy) { p.Platforms.SNP.Denied[1] = fill(9, 30) }},
	{"platforms.snp.denied_chips[1]", func(p *Policy) { slices.Reverse(p.Platforms.SNP.Denied) }},
	{"platforms.snp.guest_policy[0]", func(p *Policy) { p.Platforms.SNP.GuestPolicy[0] = "debug" }},
	{"platforms.snp.guest_policy[1]", func(p *Policy) { slices.Reverse(p.Platforms.SNP.GuestPolicy) }},
	{"platforms.snp.platform_required[0]", func(p *Policy) { p.Platforms.SNP.PlatformRequired[0] = "alias-check" }},
	{"platforms.snp.platform_forbidden[0]", func(p *Policy) { p.Platforms.SNP.PlatformForbidden[0] = "ecc" }},
	{"platforms.snp.min_version", func(p *Policy) { p.Platforms.SNP.MinVersion = 3 }},
	{"platforms.snp.id_keys[0]", func(p *Policy) { p.Platforms.SNP.IDKeys[0] = fill(32, 1) }},
	{"platforms.snp.author_keys[0]", func(p *Policy) { p.Platforms.SNP.AuthorKeys[0] = nil }},
	{"platforms.tdx.mrtd", func(p *Policy) { p.Platforms.TDX.MRTD = nil }},
	{"platforms.tdx.mrtd[0]", func(p *Policy) { p.Platforms.TDX.MRTD[0] = fill(47, 1) }},
	{"platforms.tdx.rtmrs[0].rtmr1", func(p *Policy) { p.Platforms.TDX.RTMRs[0].RTMR1 = nil }},
	{"platforms.tdx.rtmrs[1]", func(p *Policy) { p.Platforms.TDX.RTMRs = append(p.Platforms.TDX.RTMRs, p.Platforms.TDX.RTMRs[0]) }},
	{"platforms.tdx.statuses", func(p *Policy) { p.Platforms.TDX.Statuses = nil }},
	{"platforms.tdx.statuses[0]", func(p *Policy) { p.Platforms.TDX.Statuses[0] = "Revoked" }},
	{"platforms.tdx.min_evaluation", func(p *Policy) { p.Platforms.TDX.MinEvaluation = 0 }},
	{"platforms.tdx.platform_instances", func(p *Policy) { p.Platforms.TDX.PIIDs = nil }},
	{"platforms.tdx.platform_instances", func(p *Policy) { p.Platforms.TDX.AnyPlatform = true }},
	{"platforms.tdx.platform_instances[0]", func(p *Policy) { p.Platforms.TDX.PIIDs[0] = fill(15, 1) }},
	{"platforms.tdx.xfam_mask", func(p *Policy) { p.Platforms.TDX.XFAMMask = 0 }},
	{"platforms.tdx.mr_signer_seam", func(p *Policy) { p.Platforms.TDX.MRSignerSEAM = nil }},
	{"platforms.tdx.events[0].register", func(p *Policy) { p.Platforms.TDX.Events[0].Register = 4 }},
	{"platforms.tdx.events[0].digest", func(p *Policy) { p.Platforms.TDX.Events[0].Digest = fill(32, 1) }},
	{"platforms.tdx.events[0].name", func(p *Policy) { p.Platforms.TDX.Events[0].Name = "" }},
	{"platforms.tdx.events[1]", func(p *Policy) { p.Platforms.TDX.Events[1] = p.Platforms.TDX.Events[0] }},
	{"platforms.tdx.events[1]", func(p *Policy) { slices.Reverse(p.Platforms.TDX.Events) }},
	{"platforms.tpm", func(p *Policy) { p.Platforms.TPM = new(TPM) }},
	{"platforms.tpm.pcrs[1].index", func(p *Policy) { p.Platforms.TPM.PCRs[1].Index = 16 }},
	{"platforms.tpm.pcrs[1]", func(p *Policy) { p.Platforms.TPM.PCRs[1].Index = 3 }},
	{"platforms.tpm.pcrs[1]", func(p *Policy) { p.Platforms.TPM.PCRs[1].Index = 4 }},
	{"platforms.tpm.pcrs[0].values", func(p *Policy) { p.Platforms.TPM.PCRs[0].Values = nil }},
	{"platforms.tpm.pcrs[0].values[0]", func(p *Policy) { p.Platforms.TPM.PCRs[0].Values[0] = fill(48, 13) }},
	{"platforms.tpm.events[0].register", func(p *Policy) { p.Platforms.TPM.Events[0].Register = 23 }},
	{"platforms.tpm.events[0].digest", func(p *Policy) { p.Platforms.TPM.Events[0].Digest = fill(48, 1) }},
	{"platforms.tdx.allow_migration", func(p *Policy) { p.Platforms.TDX.AllowMigration = true }},
	{"platforms.gpu.architectures", func(p *Policy) { p.Platforms.GPU.Architectures = nil }},
	{"platforms.gpu.architectures[0]", func(p *Policy) { p.Platforms.GPU.Architectures[0] = "ampere" }},
	{"platforms.gpu.min_count", func(p *Policy) { p.Platforms.GPU.MinCount = 0 }},
	{"platforms.gpu.min_driver", func(p *Policy) { p.Platforms.GPU.MinDriver = "" }},
	{"platforms.gpu.min_driver", func(p *Policy) { p.Platforms.GPU.MinDriver = "570.x" }},
	{"platforms.gpu.min_driver", func(p *Policy) { p.Platforms.GPU.MinDriver = "570..1" }},
	{"platforms.gpu.min_driver", func(p *Policy) { p.Platforms.GPU.MinDriver = "+570.1" }},
	{"platforms.gpu.min_vbios", func(p *Policy) { p.Platforms.GPU.MinVBIOS = "96.0G" }},
	{"platforms.gpu.min_vbios", func(p *Policy) { p.Platforms.GPU.MinVBIOS = strings.Repeat("1.", 8) + "1" }},
	{"platforms.gpu.measurements", func(p *Policy) { p.Platforms.GPU.Measurements = nil }},
	{"platforms.gpu.measurements[0].name", func(p *Policy) { p.Platforms.GPU.Measurements[0].Name = "" }},
	{"platforms.gpu.measurements[0].digest", func(p *Policy) { p.Platforms.GPU.Measurements[0].Digest = Digest{} }},
	{"platforms.gpu.devices", func(p *Policy) { p.Platforms.GPU.Devices = nil }},
	{"platforms.gpu.devices", func(p *Policy) { p.Platforms.GPU.AnyDevice = true }},
	{"platforms.gpu.devices[0]", func(p *Policy) { p.Platforms.GPU.Devices[0] = fill(21, 1) }},

	{"evidence.max_age", func(p *Policy) { p.Evidence.MaxAge = 0 }},
	{"evidence.max_collateral_age", func(p *Policy) { p.Evidence.MaxCollateralAge = 0 }},
	{"evidence.max_epoch_age", func(p *Policy) { p.Evidence.MaxEpochAge = 0 }},
	{"evidence.max_rounds_per_epoch", func(p *Policy) { p.Evidence.MaxRoundsPerEpoch = 0 }},
	{"log.origin", func(p *Policy) { p.Log.Origin = "" }},
	{"log.origin", func(p *Policy) { p.Log.Origin = "another" }},
	{"log.key", func(p *Policy) { p.Log.Key = "" }},
	{"log.key", func(p *Policy) { p.Log.Key = verifierKey(p.Log.Origin, vkeyWitness, signer("log")) }},
	{"log.key", func(p *Policy) { p.Log.Key = verifierKey(p.Log.Origin, vkeyLog, issuerKey("lab-b")) }},
	{"log.witnesses", func(p *Policy) { p.Log.Witnesses = 0 }},
	{"log.witnesses", func(p *Policy) { p.Log.Witnesses = 4 }},
	{"log.denial_lag", func(p *Policy) { p.Log.DenialLag = 0 }},

	{"apps[0].digest", func(p *Policy) { p.Apps[0].Digest = Digest{} }},
	{"apps[1]", func(p *Policy) { slices.Reverse(p.Apps) }},
	{"apps[1]", func(p *Policy) { p.Apps[1].Digest = p.Apps[0].Digest }},
	{"apps[0].name", func(p *Policy) { p.Apps[0].Name = "" }},
	{"apps[0].exposure", func(p *Policy) { p.Apps[0].Exposure = "" }},
	{"apps[0].exposure", func(p *Policy) { p.Apps[0].Exposure = "all" }},
	{"apps[1].configs", func(p *Policy) { p.Apps[1].Configs = nil }},
	{"apps[1].configs[1]", func(p *Policy) { slices.Reverse(p.Apps[1].Configs) }},
	{"apps[0].strategies", func(p *Policy) { p.Apps[0].Strategies = nil }},
	{"apps[0].strategies[1]", func(p *Policy) { slices.Reverse(p.Apps[0].Strategies) }},
	{"apps[0].strategies[0]", func(p *Policy) { p.Apps[0].Strategies[0] = "fedsecret" }},
	{"apps[0].strategies[0]", func(p *Policy) { p.Apps[0].Strategies = []string{StrategyCustom} }},
	{"apps[0].max_rounds", func(p *Policy) { p.Apps[0].MaxRounds = 0 }},
	{"apps[0].addressed", func(p *Policy) { p.Apps[0].Addressed = true }}, // of a native strategy

	{"release.min_contributors", func(p *Policy) { p.Release.MinContributors = 0 }},
	{"release.min_contributors", func(p *Policy) { p.Release.MinContributors = 1 }},
	{"release.min_contributors", func(p *Policy) { p.Release.MinContributors = 4 }},
	{"release.collusion", func(p *Policy) { p.Release.Collusion = 2 }},
	{"release.collusion", func(p *Policy) { p.Release.Collusion = ^uint64(0) }},
	{"release.max_weight_share", func(p *Policy) { p.Release.MaxWeightShare = 0 }},
	{"release.max_weight_share", func(p *Policy) { p.Release.MaxWeightShare = 1001 }},
	{"release.max_weight_share", func(p *Policy) { p.Release.MaxWeightShare = 333 }},
	{"release.cohort", func(p *Policy) { p.Release.Cohort = "" }},
	{"release.cohort", func(p *Policy) { p.Release.Cohort = CohortSampled }}, // with dropouts: refuse
	{"release.dropouts", func(p *Policy) { p.Release.Dropouts = "" }},
	{"release.downlink", func(p *Policy) { p.Release.Downlink = "unicast" }},
	{"release.max_metric_bytes", func(p *Policy) { p.Release.MaxMetricBytes = 0 }},
	{"release.step_deadline", func(p *Policy) { p.Release.StepDeadline = 0 }},
	{"release.ack_deadline", func(p *Policy) { p.Release.AckDeadline = 0 }},
	{"nodes.message_types", func(p *Policy) { p.Nodes.MessageTypes = nil }},
	{"nodes.message_types[0]", func(p *Policy) { p.Nodes.MessageTypes[0] = "exec" }},
	{"nodes.metric_keys[1]", func(p *Policy) { slices.Reverse(p.Nodes.MetricKeys) }},
	{"nodes.metric_keys[0]", func(p *Policy) { p.Nodes.MetricKeys[0] = "a\nb" }},
	{"nodes.credential_age", func(p *Policy) { p.Nodes.CredentialAge = 0 }},
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for i, c := range refusals {
		p := example()
		c.edit(p)
		var ps Problems
		if !errors.As(p.Check(), &ps) {
			t.Errorf("case %d: accepted, want a problem at %s", i, c.field)
			continue
		}
		if !slices.ContainsFunc(ps, func(x Problem) bool { return x.Field == c.field }) {
			t.Errorf("case %d: %v, want a problem at %s", i, ps, c.field)
		}
		if _, err := Decode(p.Encode()); err == nil {
			t.Errorf("case %d (%s): decodes", i, c.field)
		}
	}
}

// TestKrumNeedsExposure: a strategy that outputs single members' values, or code
// that sees them, is refused where only aggregates may be seen (protocol F4).
func TestKrumNeedsExposure(t *testing.T) {
	t.Parallel()
	for _, name := range Strategies() {
		class, _ := StrategyClass(name)
		p := example()
		p.Apps[0].Strategies = []string{name}
		if err := p.Check(); (err == nil) != (class == ClassMixing) {
			t.Errorf("%s (%s) with exposure aggregate: %v", name, class, err)
		}
		p.Apps[0].Exposure, p.Apps[0].Configs = ExposureIndividual, []Digest{{9}}
		if err := p.Check(); err != nil {
			t.Errorf("%s with exposure individual: %v", name, err)
		}
	}
	if class, ok := StrategyClass("krum"); !ok || class != ClassSelecting {
		t.Errorf("krum is %q", class)
	}
}

// TestAllProblemsAtOnce: an editor sees every mistake, not the first.
func TestAllProblemsAtOnce(t *testing.T) {
	t.Parallel()
	var ps Problems
	if !errors.As((&Policy{}).Check(), &ps) || len(ps) < 20 {
		t.Errorf("%d problems with the zero policy: %v", len(ps), ps)
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	has := func(p *Policy, word string) bool {
		return slices.ContainsFunc(p.Warnings(), func(w string) bool { return strings.Contains(w, word) })
	}
	for word, edit := range map[string]func(*Policy){
		"any AMD chip":        func(p *Policy) { p.Platforms.SNP.AnyChip = true },
		"SMT":                 func(p *Policy) { p.Platforms.SNP.AllowSMT = true },
		"HOST_DATA":           func(p *Policy) { p.Platforms.SNP.HostData = false },
		"any Intel platform":  func(p *Policy) { p.Platforms.TDX.AnyPlatform = true },
		"RTMR":                func(p *Policy) { p.Platforms.TDX.RTMRs = nil },
		"MRCONFIGID":          func(p *Policy) { p.Platforms.TDX.MRConfigID = false },
		"any NVIDIA GPU":      func(p *Policy) { p.Platforms.GPU.AnyDevice = true },
		"simulated":           func(p *Policy) { p.Simulated = true },
		"collusion":           func(p *Policy) { p.Release.Collusion = 0 },
		"100.0 %":             func(p *Policy) { p.Release.MaxWeightShare = 1000 },
		"drop out":            func(p *Policy) { p.Release.Dropouts = DropoutsAllow },
		"some of the members": func(p *Policy) { p.Release.Cohort = CohortSampled },
		"different content":   func(p *Policy) { p.Release.Downlink = DownlinkPerNode },
		"of its own":          func(p *Policy) { p.Apps[1].Addressed = true },
		"queries":             func(p *Policy) { p.Nodes.MessageTypes = []string{"query"} },
		"metrics":             func(p *Policy) { p.Nodes.MetricKeys = nil },
		"no app":              func(p *Policy) { p.Apps = nil },
		"OutOfDate":           func(p *Policy) { p.Platforms.TDX.Statuses = []string{"OutOfDate"} },
	} {
		p := example()
		if has(p, word) {
			t.Errorf("%q in the example's warnings %q", word, p.Warnings())
		}
		if edit(p); !has(p, word) {
			t.Errorf("no warning of %q in %q", word, p.Warnings())
		}
	}
	p := example()
	if !has(p, "robust (02000000) sees single members' updates") || !has(p, "tumour (01000000) runs with any configuration") || !has(p, "SWHardeningNeeded") {
		t.Errorf("warnings %q", p.Warnings())
	}
}
