package tdx

import (
	"encoding/asn1"
	"fmt"
)

// OIDSGX is the extension of a PCK certificate that names its platform (Intel,
// PCK Certificate Profile 1.3.5).
var OIDSGX = asn1.ObjectIdentifier{1, 2, 840, 113741, 1, 13, 1}

// The arcs below [OIDSGX].
const (
	arcPPID   = 1
	arcTCB    = 2
	arcPCEID  = 3
	arcFMSPC  = 4
	arcType   = 5
	arcPIID   = 6
	arcConfig = 7

	arcPCESVN = 17 // below arcTCB, after the 16 components
	arcCPUSVN = 18
)

// maxSGX bounds an encoded SGX extension; real ones take about 600 bytes.
const maxSGX = 4 << 10

// SGXExtension is the content of [OIDSGX].
type SGXExtension struct {
	PPID       [16]byte
	Components [16]uint8 // SVNs of the platform's TCB, the order of TCB info's sgxtcbcomponents
	PCESVN     uint16
	CPUSVN     [16]byte
	PCEID      [2]byte
	FMSPC      [6]byte // family, model, stepping, platform and custom SKU
	Type       int     // 0 standard, 1 scalable, 2 scalable with integrity

	// InstanceID (PIID) names the platform across its re-registrations. Zero where
	// the certificate has none: those of the Processor CA, which TDX does not use.
	InstanceID [16]byte
	// What the platform says of itself; false also where it says nothing.
	Dynamic, CachedKeys, SMT bool
}

type arc struct {
	ID    asn1.ObjectIdentifier
	Value asn1.RawValue
}

// ParseSGXExtension reads the value of an [OIDSGX] extension. Arcs that it does
// not know are skipped, a second one of the same name or a missing one is
// refused (InstanceID and the configuration may be missing). The error wraps
// [ErrMalformed].
func ParseSGXExtension(der []byte) (*SGXExtension, error) {
	x, err := parseSGX(der)
	if err != nil {
		return nil, fmt.Errorf("%w: SGX extension: %w", ErrMalformed, err)
	}
	return x, nil
}

func parseSGX(der []byte) (*SGXExtension, error) {
	if len(der) > maxSGX {
		return nil, fmt.Errorf("%d bytes, limit %d", len(der), maxSGX)
	}
	top, err := arcs(der, OIDSGX, arcPPID, arcTCB, arcPCEID, arcFMSPC, arcType)
	if err != nil {
		return nil, err
	}
	required := make([]int, arcCPUSVN)
	for i := range required {
		required[i] = i + 1
	}
	tcb, err := arcs(top[arcTCB].FullBytes, append(OIDSGX[:len(OIDSGX):len(OIDSGX)], arcTCB), required...)
	if err != nil {
		return nil, err
	}
	x := new(SGXExtension)
	var d decoder
	for i := range x.Components {
		x.Components[i] = uint8(d.integer(tcb[i+1], 1<<8-1))
	}
	x.PCESVN = uint16(d.integer(tcb[arcPCESVN], 1<<16-1))
	d.octets(tcb[arcCPUSVN], x.CPUSVN[:])
	d.octets(top[arcPPID], x.PPID[:])
	d.octets(top[arcPCEID], x.PCEID[:])
	d.octets(top[arcFMSPC], x.FMSPC[:])
	var typ asn1.Enumerated
	d.value(top[arcType], &typ)
	x.Type = int(typ)
	if v, ok := top[arcPIID]; ok {
		d.octets(v, x.InstanceID[:])
	}
	if v, ok := top[arcConfig]; ok {
		conf, err := arcs(v.FullBytes, append(OIDSGX[:len(OIDSGX):len(OIDSGX)], arcConfig))
		if err != nil {
			return nil, err
		}
		for i, p := range []*bool{&x.Dynamic, &x.CachedKeys, &x.SMT} {
			if v, ok := conf[i+1]; ok {
				d.value(v, p)
			}
		}
	}
	return x, d.err
}

// arcs reads a SEQUENCE OF SEQUENCE {oid, value} into its values by the last arc
// of their oid, which must lie directly below base.
func arcs(der []byte, base asn1.ObjectIdentifier, required ...int) (map[int]asn1.RawValue, error) {
	var list []arc
	if rest, err := asn1.Unmarshal(der, &list); err != nil || len(rest) != 0 {
		return nil, fmt.Errorf("%v is not a sequence of named values (%d bytes left): %w", base, len(rest), errOr(err))
	}
	m := make(map[int]asn1.RawValue, len(list))
	for _, a := range list {
		n := len(a.ID) - 1
		if n != len(base) || !a.ID[:n].Equal(base) {
			return nil, fmt.Errorf("%v inside %v", a.ID, base)
		}
		if _, ok := m[a.ID[n]]; ok {
			return nil, fmt.Errorf("%v is there twice", a.ID)
		}
		m[a.ID[n]] = a.Value
	}
	for _, n := range required {
		if _, ok := m[n]; !ok {
			return nil, fmt.Errorf("%v.%d is missing", base, n)
		}
	}
	return m, nil
}

func errOr(err error) error {
	if err == nil {
		return fmt.Errorf("trailing bytes")
	}
	return err
}

// decoder keeps the first error of a run of values.
type decoder struct{ err error }

func (d *decoder) value(v asn1.RawValue, to any) {
	if d.err != nil {
		return
	}
	if rest, err := asn1.Unmarshal(v.FullBytes, to); err != nil || len(rest) != 0 {
		d.err = errOr(err)
	}
}

func (d *decoder) integer(v asn1.RawValue, limit int) int {
	var n int
	d.value(v, &n)
	if d.err == nil && (n < 0 || n > limit) {
		d.err = fmt.Errorf("integer %d, limit %d", n, limit)
	}
	return n
}

func (d *decoder) octets(v asn1.RawValue, to []byte) {
	var b []byte
	d.value(v, &b)
	if d.err == nil && len(b) != len(to) {
		d.err = fmt.Errorf("octet string of %d bytes, want %d", len(b), len(to))
	}
	copy(to, b)
}

type encodedArc struct {
	ID    asn1.ObjectIdentifier
	Value any
}

// Marshal returns the DER value of the extension as Intel's Platform CA writes
// it: instance id and configuration always included.
func (x *SGXExtension) Marshal() []byte {
	oid := func(n ...int) asn1.ObjectIdentifier { return append(OIDSGX[:len(OIDSGX):len(OIDSGX)], n...) }
	var tcb, conf []encodedArc
	for i, c := range x.Components {
		tcb = append(tcb, encodedArc{oid(arcTCB, i+1), int(c)})
	}
	tcb = append(tcb, encodedArc{oid(arcTCB, arcPCESVN), int(x.PCESVN)}, encodedArc{oid(arcTCB, arcCPUSVN), x.CPUSVN[:]})
	for i, b := range []bool{x.Dynamic, x.CachedKeys, x.SMT} {
		conf = append(conf, encodedArc{oid(arcConfig, i+1), b})
	}
	der, err := asn1.Marshal([]encodedArc{
		{oid(arcPPID), x.PPID[:]},
		{oid(arcTCB), tcb},
		{oid(arcPCEID), x.PCEID[:]},
		{oid(arcFMSPC), x.FMSPC[:]},
		{oid(arcType), asn1.Enumerated(x.Type)},
		{oid(arcPIID), x.InstanceID[:]},
		{oid(arcConfig), conf},
	})
	if err != nil {
		panic("tdx: internal error: " + err.Error())
	}
	return der
}
