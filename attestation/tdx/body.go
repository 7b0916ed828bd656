package tdx

// Body is the TD report body of TDX 1.0, 584 bytes in this order; integers are
// little-endian. TDX 1.5 appends [Extra].
type Body struct {
	TEETCBSVN      [16]byte // SVNs of the TDX module that launched the TD: minor, major, SEAM loader
	MRSEAM         [48]byte // SHA-384 of the TDX module
	MRSignerSEAM   [48]byte // zeros: Intel's own module
	SEAMAttributes [8]byte
	TDAttributes   TDAttributes
	XFAM           uint64   // extended features that the TD may use, as XCR0
	MRTD           [48]byte // the TD's initial contents
	MRConfigID     [48]byte // chosen by the host at launch
	MROwner        [48]byte // chosen by the host at launch
	MROwnerConfig  [48]byte // chosen by the host at launch
	RTMR           [4][48]byte
	ReportData     [64]byte // chosen by the guest
}

// Extra is what the TDX 1.5 body adds, 64 bytes.
type Extra struct {
	TEETCBSVN2  [16]byte // SVNs of the TDX module that is loaded now; differs after an update below a running TD
	MRServiceTD [48]byte // hash over the TDs that may service (migrate) this one; zeros: none
}

// TDAttributes is the TDATTRIBUTES field. Intel TDX Module ABI, table "ATTRIBUTES
// definition".
type TDAttributes uint64

// Bits of [TDAttributes].
const (
	Debug         TDAttributes = 1 << 0  // the host may read and change the TD's memory and state
	SeptVEDisable TDAttributes = 1 << 28 // a page that the host takes away kills the TD instead of raising a #VE that it might handle wrongly
	Migratable    TDAttributes = 1 << 29 // another TD may move this one
	PKS           TDAttributes = 1 << 30 // supervisor protection keys
	KeyLocker     TDAttributes = 1 << 31
	PerfMon       TDAttributes = 1 << 63 // performance counters: a side channel
)

// QEReport is the SGX report body of the quoting enclave, 384 bytes in this
// order; integers are little-endian.
type QEReport struct {
	CPUSVN     [16]byte
	MiscSelect uint32
	Reserved1  [28]byte
	Attributes [16]byte
	MREnclave  [32]byte
	Reserved2  [32]byte
	MRSigner   [32]byte
	Reserved3  [96]byte
	ISVProdID  uint16
	ISVSVN     uint16
	Reserved4  [60]byte
	ReportData [64]byte // SHA-256(attestation key‖authentication data), then 32 zeros
}

// Marshal returns the 384 bytes that [Endorsed.QESignature] covers.
func (r *QEReport) Marshal() []byte { return appendFixed(make([]byte, 0, qeReportSize), *r) }
