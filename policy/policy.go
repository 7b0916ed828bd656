package policy

import (
	"time"

	"github.com/concordat/concordat/internal/cose"
)

// Digest is a SHA-256 value; the zero value is "none".
type Digest = cose.Digest

// Schema is the version of the canonical form. A later schema is another
// number; this one never changes.
const Schema = 1

// Policy is one version of a consortium's policy. All security is in its fixed,
// typed fields. Only [Decode] and a policy that passed [Policy.Check] are to be
// trusted to be complete: the zero value is refused everywhere.
//
// Integers stand for shares and times, so that no float is ever hashed: shares
// are parts per thousand, times are whole seconds.
type Policy struct {
	Schema     uint64 `cbor:"1,keyasint"` // always [Schema]
	Version    uint64 `cbor:"2,keyasint"` // 1 is the genesis version
	Federation Digest `cbor:"3,keyasint"` // none in the genesis version; see [Policy.FederationID]
	Previous   Digest `cbor:"4,keyasint"` // digest of the version before; none in the genesis version
	Name       string `cbor:"5,keyasint"` // for people; decides nothing

	// Simulated, and the roots that a simulated federation trusts, are fixed by
	// genesis: a federation is simulated or real for ever (protocol F24).
	// SimulatedRoots are SHA-256 of the DER SubjectPublicKeyInfo of the simulator's
	// vendor roots, sorted; empty in a real federation, whose roots are compiled in.
	Simulated      bool     `cbor:"6,keyasint"`
	SimulatedRoots []Digest `cbor:"7,keyasint"`

	Members   []Member `cbor:"8,keyasint"` // sorted by ID
	Approvals uint64   `cbor:"9,keyasint"` // N: members that adopt or change the policy; N > len(Members)/2

	Platforms Platforms `cbor:"10,keyasint"`
	Evidence  Evidence  `cbor:"11,keyasint"`
	Log       Log       `cbor:"12,keyasint"`
	Apps      []App     `cbor:"13,keyasint"` // sorted by Digest
	Release   Release   `cbor:"14,keyasint"`
	Nodes     NodeRules `cbor:"15,keyasint"`

	// SignedApps lets in bundles that Apps does not list, by their signers. It may be left
	// out: none are.
	SignedApps []SignedApp `cbor:"16,keyasint,omitempty"` // sorted by App
}

// MemberID names a member as the policy spells it: a role such as
// "hospital-a", 1 to 63 of a-z, 0-9 and '-'. It is printed in the log; it holds
// no name of a person.
type MemberID string

// Member is one company of the consortium.
type Member struct {
	ID         MemberID   `cbor:"1,keyasint"`
	PolicyKeys []cose.Key `cbor:"2,keyasint"` // offline Ed25519 keys; any one of them approves for the member
	IssuerKey  cose.Key   `cbor:"3,keyasint"` // online Ed25519 key that signs the member's node credentials
	WitnessKey string     `cbor:"4,keyasint"` // C2SP verifier key ("name+hash+base64") of the member's witness
}

// Platforms are the reference values of the hardware. At least one of SNP and
// TDX is set; a nil entry refuses the platform.
type Platforms struct {
	SNP *SNP `cbor:"1,keyasint,omitempty"`
	TDX *TDX `cbor:"2,keyasint,omitempty"`
	GPU *GPU `cbor:"3,keyasint,omitempty"` // nil: no GPU evidence is expected, and any is refused
	// TPM demands that every enclave runs under a paravisor that gives it a vTPM,
	// as on Azure: SNP and TDX then measure the paravisor, TPM what runs above it.
	// Nil: vTPM evidence is refused.
	TPM *TPM `cbor:"4,keyasint,omitempty"`
}

// Hex is a byte string that people see in hex.
type Hex []byte

// SNP says which AMD SEV-SNP guests are accepted. Debug and migration are always
// refused, VMPL 0 is always demanded.
type SNP struct {
	Products     []string  `cbor:"1,keyasint"` // product lines: "Milan", "Genoa", "Turin"; not empty, sorted; no other line is accepted, whatever its TCB
	Measurements []Hex     `cbor:"2,keyasint"` // accepted MEASUREMENT values, 48 bytes each; not empty, sorted
	MinTCB       []ProdTCB `cbor:"3,keyasint"` // minimum of REPORTED, LAUNCH and COMMITTED_TCB, one a product of Products, same order
	Chips        []Hex     `cbor:"4,keyasint"` // accepted CHIP_IDs (64 bytes; Turin 8); empty only with AnyChip
	AnyChip      bool      `cbor:"5,keyasint"` // any chip: legal, and a warning in every verdict (protocol F15)
	AllowSMT     bool      `cbor:"6,keyasint"`
	MinGuestSVN  uint64    `cbor:"7,keyasint"`
	MinVersion   uint64    `cbor:"8,keyasint"` // smallest report version, at least 2
	// HostData: true demands that HOST_DATA is the federation id; false accepts
	// zeros too, and the claims then say "none".
	HostData bool `cbor:"9,keyasint"`

	// What follows may be left out; each is then as strict as it can be, or demands
	// nothing more.

	// Providers are the providers whose VLEKs are accepted, as the certificates name
	// them (the CSP id, such as "CN=cc-us-east-2.amazonaws.com"), sorted. Empty
	// accepts keys of chips (VCEK) alone. Evidence under a VLEK names no chip where
	// the provider masks CHIP_ID: Chips and Denied then refuse it.
	Providers []string `cbor:"10,keyasint,omitempty"`
	// Denied are CHIP_IDs that are refused whatever else accepts them, sorted.
	Denied []Hex `cbor:"11,keyasint,omitempty"`
	// AllowProvisional accepts firmware that the host has not committed. What it can
	// go back to, COMMITTED_TCB, must reach MinTCB too.
	AllowProvisional bool `cbor:"12,keyasint,omitempty"`
	AllowCXL         bool `cbor:"13,keyasint,omitempty"` // memory of the guest may lie in CXL devices
	// AllowUncheckedAlias accepts hosts that did not check their memory for aliases
	// (PLATFORM_INFO.ALIAS_CHECK_COMPLETE, against BadRAM).
	AllowUncheckedAlias bool `cbor:"14,keyasint,omitempty"`
	// GuestPolicy are the restrictions that the guest must have been launched with,
	// and PlatformRequired and PlatformForbidden the properties that its host must
	// have and must not have: attestation/snp.PolicyWords and PlatformWords, sorted.
	GuestPolicy       []string `cbor:"15,keyasint,omitempty"`
	PlatformRequired  []string `cbor:"16,keyasint,omitempty"`
	PlatformForbidden []string `cbor:"17,keyasint,omitempty"`
	// Mitigations are bits that both mitigation vectors must have, of the launch and
	// of now. Reports before version 5 have none.
	Mitigations uint64 `cbor:"18,keyasint,omitempty"`
	// IDKeys and AuthorKeys are the accepted ID_KEY_DIGEST and AUTHOR_KEY_DIGEST
	// values, 48 bytes each, sorted. Empty demands no ID block. With both, both must
	// match.
	IDKeys     []Hex `cbor:"19,keyasint,omitempty"`
	AuthorKeys []Hex `cbor:"20,keyasint,omitempty"`
}

// ProdTCB is the component-wise minimum TCB of one AMD product line.
type ProdTCB struct {
	Product    string `cbor:"1,keyasint"`
	FMC        uint8  `cbor:"2,keyasint"` // Turin only
	BootLoader uint8  `cbor:"3,keyasint"`
	TEE        uint8  `cbor:"4,keyasint"`
	SNP        uint8  `cbor:"5,keyasint"`
	Microcode  uint8  `cbor:"6,keyasint"`
}

// TDX says which Intel TDX guests are accepted. DEBUG and MIGRATABLE are always
// refused, SEPT_VE_DISABLE is always demanded.
type TDX struct {
	MRTD           []Hex    `cbor:"1,keyasint"` // accepted MRTD values, 48 bytes each; not empty, sorted
	RTMRs          []RTMRs  `cbor:"2,keyasint"` // accepted RTMR0 to 2 sets; empty accepts any, and every verdict says so
	Statuses       []string `cbor:"3,keyasint"` // accepted TCB statuses, Intel's spelling; not empty, sorted
	MinEvaluation  uint64   `cbor:"4,keyasint"` // smallest tcbEvaluationDataNumber
	PIIDs          []Hex    `cbor:"5,keyasint"` // accepted platform instance ids (16 bytes); empty only with AnyPlatform
	AnyPlatform    bool     `cbor:"6,keyasint"` // as SNP.AnyChip
	XFAMMask       uint64   `cbor:"7,keyasint"` // XFAM bits that may be set
	MRConfigID     bool     `cbor:"8,keyasint"` // as SNP.HostData, for MRCONFIGID[:32]
	MRSignerSEAM   Hex      `cbor:"9,keyasint"` // 48 bytes; zeros are Intel's own module
	AllowMigration bool     `cbor:"10,keyasint"`
	Events         []Event  `cbor:"11,keyasint"` // of RTMR 0 to 3, digests of 48 bytes; sorted; see [Event]
}

// RTMRs is one accepted combination of run-time measurement registers 0 to 2,
// 48 bytes each.
type RTMRs struct {
	RTMR0 Hex `cbor:"1,keyasint"`
	RTMR1 Hex `cbor:"2,keyasint"`
	RTMR2 Hex `cbor:"3,keyasint"`
}

// TPM says what a vTPM must have measured. At least one of PCRs and Events is
// not empty; all values are of the SHA-256 bank.
type TPM struct {
	PCRs   []PCR   `cbor:"1,keyasint"` // pinned registers, sorted by index
	Events []Event `cbor:"2,keyasint"` // of PCR 0 to 15, digests of 32 bytes; sorted; see [Event]
}

// PCR pins one register of a TPM.
type PCR struct {
	Index  uint64 `cbor:"1,keyasint"` // 0 to 15: the others can be reset without a restart
	Values []Hex  `cbor:"2,keyasint"` // accepted values, 32 bytes each; not empty, sorted
}

// Event is one measured event that may stand in an event log. A register with at
// least one Event is closed: the log must replay to its value, every event of the
// log in it must be one of the policy's, and the required ones must be there. How
// often an event stands there, and in which order, does not matter. The other
// registers are not touched.
type Event struct {
	Register uint64 `cbor:"1,keyasint"` // number of the PCR or RTMR
	Digest   Hex    `cbor:"2,keyasint"` // what was extended, not the event's data
	Required bool   `cbor:"3,keyasint"`
	Name     string `cbor:"4,keyasint"` // for people
}

// GPU says which NVIDIA GPUs are accepted beside the CPU.
type GPU struct {
	Architectures []string      `cbor:"1,keyasint"` // "hopper", "blackwell"; not empty, sorted
	MinCount      uint64        `cbor:"2,keyasint"` // at least 1
	MinDriver     string        `cbor:"3,keyasint"` // dotted decimal, compared number by number
	MinVBIOS      string        `cbor:"4,keyasint"` // dotted hex, compared number by number
	Measurements  []GPUMeasured `cbor:"5,keyasint"` // accepted runtime measurement sets; empty only with RIM
	Devices       []Hex         `cbor:"6,keyasint"` // accepted ueids (serial numbers of the device certificate); empty only with AnyDevice
	AnyDevice     bool          `cbor:"7,keyasint"` // as SNP.AnyChip

	// RIM accepts measurements by NVIDIA's signed reference manifests of the
	// report's driver and VBIOS too. A pinned set goes first and needs no manifest.
	RIM bool `cbor:"8,keyasint,omitempty"`
	// Modes are the accepted feature modes, sorted: "mpt", "ppcie", "spt", and
	// "unstated" for a driver too old to say. Empty is all but "ppcie".
	Modes []string `cbor:"9,keyasint,omitempty"`
	// Denied are ueids that are refused whatever else accepts them, sorted.
	Denied []Hex `cbor:"10,keyasint,omitempty"`
	// MaxOCSPAge bounds the age of OCSP responses; 0 is Evidence.MaxCollateralAge.
	MaxOCSPAge Seconds `cbor:"11,keyasint,omitempty"`
	// AllowRIMHold accepts a manifest whose signer's certificates are on hold, as
	// NVIDIA does to them before it revokes or releases. A device on hold is never
	// accepted.
	AllowRIMHold bool `cbor:"12,keyasint,omitempty"`
	// MinSwitches is the number of NVLink switches that an enclave must have
	// evidence of; 0 refuses evidence of a switch. Devices, Denied, Measurements
	// and RIM are for switches too.
	MinSwitches    uint64 `cbor:"13,keyasint,omitempty"`
	MinSwitchVBIOS string `cbor:"14,keyasint,omitempty"` // as MinVBIOS; set exactly where MinSwitches is
}

// GPUMeasured pins one exact set of GPU measurements.
type GPUMeasured struct {
	Name   string `cbor:"1,keyasint"` // for people: driver and VBIOS that it stands for
	Digest Digest `cbor:"2,keyasint"` // attestation/nvgpu.MeasurementsDigest of the report
}

// Evidence bounds how old what a node relies on may be. All are required.
type Evidence struct {
	MaxAge            Seconds `cbor:"1,keyasint"` // of an attestation result when a run starts
	MaxCollateralAge  Seconds `cbor:"2,keyasint"` // since thisUpdate or issueDate of CRLs, TCB info and identities
	MaxEpochAge       Seconds `cbor:"3,keyasint"` // of an enclave's signing key
	MaxRoundsPerEpoch uint64  `cbor:"4,keyasint"` // steps that one epoch may sign
}

// Seconds is a duration in whole seconds.
type Seconds uint64

// Duration returns s as a time.Duration; it saturates.
func (s Seconds) Duration() time.Duration {
	const limit = uint64(1<<63-1) / uint64(time.Second)
	return time.Duration(min(uint64(s), limit)) * time.Second
}

// Log names the federation's transparency log and its witnesses.
type Log struct {
	Origin              string  `cbor:"1,keyasint"` // C2SP checkpoint origin
	Key                 string  `cbor:"2,keyasint"` // C2SP verifier key of the log
	Witnesses           uint64  `cbor:"3,keyasint"` // member cosignatures that make a checkpoint count; 1 to len(Members)
	MaxUnpublishedSteps uint64  `cbor:"4,keyasint"` // steps that may run ahead of the last published one; default 1
	DenialLag           Seconds `cbor:"5,keyasint"` // after which a node stops acking while its member's denial is not in the log
}

// Exposure says what an app's server side may see.
type Exposure string

// The two exposures (protocol F5).
const (
	ExposureAggregate  Exposure = "aggregate"  // never the arrays of fewer than Release.MinContributors members
	ExposureIndividual Exposure = "individual" // single updates; approved by digest and config, N-of-M
)

// App is one application that may run.
type App struct {
	Digest     Digest   `cbor:"1,keyasint"` // SHA-256 of the app's bytes: a Flower app bundle, or an executable
	Name       string   `cbor:"2,keyasint"` // for people
	Exposure   Exposure `cbor:"3,keyasint"`
	Configs    []Digest `cbor:"4,keyasint"` // accepted effective config digests, sorted; empty accepts any where Exposure is aggregate
	Strategies []string `cbor:"5,keyasint"` // native strategies by name ("fedavg"), sorted
	MaxRounds  uint64   `cbor:"6,keyasint"`
	// Addressed lets the app's own ServerApp tell each node something of its own, beside
	// arrays that are one for all, and hand out its first arrays when it has heard from nodes
	// already. Every node is sent what each is told (protocol F5: broadcast only). It may be
	// left out, and is then not allowed.
	Addressed bool `cbor:"7,keyasint,omitempty"`
}

// SignedApp is an application whose bundles may run once enough of its signers have signed
// them, without a new version of the policy. The exposure of such bundles is
// [ExposureAggregate], always (protocol F5); the signatures stand in the log.
type SignedApp struct {
	App        string     `cbor:"1,keyasint"` // publisher/name, as the bundle's pyproject.toml says
	Signers    []cose.Key `cbor:"2,keyasint"` // Ed25519 keys of this app alone; not empty, sorted
	Threshold  uint64     `cbor:"3,keyasint"` // signers that must have signed a bundle, at least 1
	Configs    []Digest   `cbor:"4,keyasint"` // accepted effective config digests, sorted; empty accepts any
	Strategies []string   `cbor:"5,keyasint"` // mixing strategies by name, sorted
	MaxRounds  uint64     `cbor:"6,keyasint"`
}

// Cohort rules (protocol F17).
const (
	CohortFixed     = "fixed"   // the run statement fixes the members, and every step asks all of them
	CohortSampled   = "sampled" // a ServerApp may ask some of them in a step
	DropoutsRefuse  = "refuse"  // a step whose admitted set differs from the cohort fails
	DropoutsAllow   = "allow"
	DownlinkShared  = "broadcast" // one outputs root for the whole cohort (protocol F1)
	DownlinkPerNode = "per_node"
)

// Release says what may leave the enclave.
type Release struct {
	MinContributors uint64  `cbor:"1,keyasint"` // distinct members with weight > 0, at least 2
	Collusion       uint64  `cbor:"2,keyasint"` // t: members that may collude; at least t+2 contributors are demanded
	MaxWeightShare  uint64  `cbor:"3,keyasint"` // of one member, parts per thousand; required
	Cohort          string  `cbor:"4,keyasint"` // [CohortFixed] or [CohortSampled]
	Dropouts        string  `cbor:"5,keyasint"` // [DropoutsRefuse] or [DropoutsAllow]
	Downlink        string  `cbor:"6,keyasint"` // [DownlinkShared] or [DownlinkPerNode]
	MaxMetricBytes  uint64  `cbor:"7,keyasint"`
	StepDeadline    Seconds `cbor:"8,keyasint"` // for contributions, from the step statement on
	AckDeadline     Seconds `cbor:"9,keyasint"` // for acks
}

// NodeRules bound what a node may be asked to do.
type NodeRules struct {
	MessageTypes  []string `cbor:"1,keyasint"` // "train", "evaluate", "query"; sorted
	MetricKeys    []string `cbor:"2,keyasint"` // keys of MetricRecords that may leave a node, sorted; empty accepts any
	CredentialAge Seconds  `cbor:"3,keyasint"` // longest validity of a node credential
}
