package tdx

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Status is Intel's word for the state of a TCB (PCS API v4, tcbStatus).
type Status string

// The statuses of a platform. Modules and quoting enclaves have only the first,
// [OutOfDate] and [Revoked].
const (
	UpToDate                          Status = "UpToDate"
	SWHardeningNeeded                 Status = "SWHardeningNeeded"
	ConfigurationNeeded               Status = "ConfigurationNeeded"
	ConfigurationAndSWHardeningNeeded Status = "ConfigurationAndSWHardeningNeeded"
	OutOfDate                         Status = "OutOfDate"
	OutOfDateConfigurationNeeded      Status = "OutOfDateConfigurationNeeded"
	Revoked                           Status = "Revoked"
)

var statuses = []Status{UpToDate, SWHardeningNeeded, ConfigurationNeeded, ConfigurationAndSWHardeningNeeded,
	OutOfDate, OutOfDateConfigurationNeeded, Revoked}

// Limits of a signed document beyond its size.
const (
	maxLevels     = 256
	maxIdentities = 64
	maxAdvisories = 256
)

// The names and versions of the two signed documents.
const (
	TCBInfoID         = "TDX"
	TCBInfoVersion    = 3
	QEIdentityID      = "TD_QE"
	QEIdentityVersion = 2
)

// Hex is a byte string that Intel's JSON spells in hex, of either case.
type Hex []byte

// MarshalText returns upper-case hex, as Intel writes it.
func (h Hex) MarshalText() ([]byte, error) {
	return []byte(strings.ToUpper(hex.EncodeToString(h))), nil
}

// UnmarshalText decodes hex of either case.
func (h *Hex) UnmarshalText(b []byte) (err error) {
	*h, err = hex.AppendDecode(nil, b)
	return err
}

// TCBInfo says which TCB levels of a platform family are good: PCS API v4, TCB
// info V3 for TDX. Levels are sorted, best first; the first that matches counts.
type TCBInfo struct {
	ID         string        `json:"id"`      // [TCBInfoID]
	Version    int           `json:"version"` // [TCBInfoVersion]
	IssueDate  time.Time     `json:"issueDate"`
	NextUpdate time.Time     `json:"nextUpdate"`
	FMSPC      Hex           `json:"fmspc"` // 6 bytes
	PCEID      Hex           `json:"pceId"` // 2 bytes
	Type       int           `json:"tcbType"`
	Evaluation uint64        `json:"tcbEvaluationDataNumber"` // rises with every TCB recovery event
	Module     ModuleSigner  `json:"tdxModule"`               // of modules of major version 0
	Modules    []Module      `json:"tdxModuleIdentities,omitempty"`
	Levels     []PlatformTCB `json:"tcbLevels"`
}

// ModuleSigner is who must have signed a TDX module.
type ModuleSigner struct {
	MRSigner       Hex `json:"mrsigner"`       // 48 bytes
	Attributes     Hex `json:"attributes"`     // 8 bytes
	AttributesMask Hex `json:"attributesMask"` // 8 bytes
}

// Module is one major version of the TDX module. ID is "TDX_" and the version in
// two hex digits, whose case Intel does not promise.
type Module struct {
	ID string `json:"id"`
	ModuleSigner
	Levels []EnclaveTCB `json:"tcbLevels"`
}

// PlatformTCB is a level of the platform: every component and PCESVN of the
// platform must be at least that of the level.
type PlatformTCB struct {
	TCB struct {
		SGX    []Component `json:"sgxtcbcomponents"` // 16, as [SGXExtension.Components]
		PCESVN uint16      `json:"pcesvn"`
		TDX    []Component `json:"tdxtcbcomponents"` // 16, as [Body.TEETCBSVN]
	} `json:"tcb"`
	Level
}

// EnclaveTCB is a level of a TDX module or a quoting enclave.
type EnclaveTCB struct {
	TCB struct {
		ISVSVN uint16 `json:"isvsvn"`
	} `json:"tcb"`
	Level
}

// Level is what Intel says of a TCB level.
type Level struct {
	Date       time.Time `json:"tcbDate"` // newest security update that it holds
	Status     Status    `json:"tcbStatus"`
	Advisories []string  `json:"advisoryIDs,omitempty"` // "INTEL-SA-…"
}

// Component is one security version number. Intel's words for what it counts ("BIOS",
// "Early Microcode Update") are not read.
type Component struct {
	SVN uint8 `json:"svn"`
}

// QEIdentity says which quoting enclaves are good: PCS API v4, enclave identity
// V2 of TD_QE.
type QEIdentity struct {
	ID             string       `json:"id"`      // [QEIdentityID]
	Version        int          `json:"version"` // [QEIdentityVersion]
	IssueDate      time.Time    `json:"issueDate"`
	NextUpdate     time.Time    `json:"nextUpdate"`
	Evaluation     uint64       `json:"tcbEvaluationDataNumber"`
	MiscSelect     Hex          `json:"miscselect"` // 4 bytes, as in the report
	MiscSelectMask Hex          `json:"miscselectMask"`
	Attributes     Hex          `json:"attributes"` // 16 bytes
	AttributesMask Hex          `json:"attributesMask"`
	MRSigner       Hex          `json:"mrsigner"` // 32 bytes
	ISVProdID      uint16       `json:"isvprodid"`
	Levels         []EnclaveTCB `json:"tcbLevels"`
}

// ParseTCBInfo reads the signed bytes of a TCB info. Check their signature
// first: what Intel signed is well-formed, what it did not sign is nobody's word.
// Fields that are unknown are skipped. The error wraps [ErrMalformed] or
// [ErrUnsupported].
func ParseTCBInfo(b []byte) (*TCBInfo, error) {
	t := new(TCBInfo)
	if err := decodeJSON("TCB info", b, t); err != nil {
		return nil, err
	}
	if t.ID != TCBInfoID || t.Version != TCBInfoVersion || t.Type != 0 {
		return nil, fmt.Errorf("%w: TCB info %.20q version %d type %d, want %q version %d type 0", ErrUnsupported, t.ID, t.Version, t.Type, TCBInfoID, TCBInfoVersion)
	}
	var c shape
	c.size("fmspc", t.FMSPC, 6)
	c.size("pceId", t.PCEID, 2)
	c.signer("tdxModule", &t.Module)
	c.count("tdxModuleIdentities", len(t.Modules), 0, maxIdentities)
	for i := range t.Modules {
		m := &t.Modules[i]
		c.signer(m.ID, &m.ModuleSigner)
		c.enclave(m.ID, m.Levels)
	}
	c.count("tcbLevels", len(t.Levels), 1, maxLevels)
	for _, l := range t.Levels {
		// Arrays of another length would be compared in part.
		c.count("sgxtcbcomponents", len(l.TCB.SGX), 16, 16)
		c.count("tdxtcbcomponents", len(l.TCB.TDX), 16, 16)
		c.level(l.Level)
	}
	if c.err != nil {
		return nil, fmt.Errorf("%w: TCB info: %w", ErrMalformed, c.err)
	}
	return t, nil
}

// ParseQEIdentity reads the signed bytes of a QE identity, as [ParseTCBInfo].
func ParseQEIdentity(b []byte) (*QEIdentity, error) {
	q := new(QEIdentity)
	if err := decodeJSON("QE identity", b, q); err != nil {
		return nil, err
	}
	if q.ID != QEIdentityID || q.Version != QEIdentityVersion {
		return nil, fmt.Errorf("%w: QE identity %.20q version %d, want %q version %d", ErrUnsupported, q.ID, q.Version, QEIdentityID, QEIdentityVersion)
	}
	var c shape
	c.size("miscselect", q.MiscSelect, 4)
	c.size("miscselectMask", q.MiscSelectMask, 4)
	c.size("attributes", q.Attributes, 16)
	c.size("attributesMask", q.AttributesMask, 16)
	c.size("mrsigner", q.MRSigner, 32)
	c.enclave("tcbLevels", q.Levels)
	if c.err != nil {
		return nil, fmt.Errorf("%w: QE identity: %w", ErrMalformed, c.err)
	}
	return q, nil
}

func decodeJSON(what string, b []byte, to any) error {
	if len(b) > MaxCollateral {
		return fmt.Errorf("%w: %s of %d bytes, limit %d", ErrMalformed, what, len(b), MaxCollateral)
	}
	if err := json.Unmarshal(b, to); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrMalformed, what, err)
	}
	return nil
}

// shape checks sizes and counts and keeps the first error.
type shape struct{ err error }

func (c *shape) fail(format string, a ...any) {
	if c.err == nil {
		c.err = fmt.Errorf(format, a...)
	}
}

func (c *shape) size(what string, b []byte, want int) {
	if len(b) != want {
		c.fail("%.40s of %d bytes, want %d", what, len(b), want)
	}
}

func (c *shape) count(what string, n, least, most int) {
	if n < least || n > most {
		c.fail("%.40s: %d entries, want %d to %d", what, n, least, most)
	}
}

func (c *shape) signer(what string, m *ModuleSigner) {
	c.size(what+" mrsigner", m.MRSigner, 48)
	c.size(what+" attributes", m.Attributes, 8)
	c.size(what+" attributesMask", m.AttributesMask, 8)
}

func (c *shape) enclave(what string, levels []EnclaveTCB) {
	c.count(what+" levels", len(levels), 1, maxLevels)
	for _, l := range levels {
		c.level(l.Level)
		switch l.Status {
		case UpToDate, OutOfDate, Revoked:
		default:
			c.fail("%.40s: status %q, which is none of a module or enclave", what, l.Status)
		}
	}
}

func (c *shape) level(l Level) {
	if !slices.Contains(statuses, l.Status) {
		c.fail("status %.40q is unknown", l.Status)
	}
	c.count("advisoryIDs", len(l.Advisories), 0, maxAdvisories)
}
