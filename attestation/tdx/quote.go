package tdx

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
)

// MaxQuote is the largest quote that [Parse] accepts, in bytes, trailing zeros
// included. Real quotes take about 5,000.
const MaxQuote = 64 << 10

// Sizes of the fixed parts, in bytes.
const (
	headerSize     = 48
	descriptorSize = 6 // version 5 only: body type, body size
	bodySize10     = 584
	bodySize15     = 648
	qeReportSize   = 384
	signatureSize  = 64
	keySize        = 64
)

// Constants of the quote header and of certification data.
const (
	keyTypeP256  = 2    // attestation key type: ECDSA P-256 with SHA-256
	teeTDX       = 0x81 // TEE type
	certPCKChain = 5    // certification data: PEM chain, PCK certificate first
	certQEReport = 6    // certification data: QE report with its own certification data
)

// Quote versions.
const (
	V4 = 4 // TDX 1.0 body, always
	V5 = 5 // a descriptor names the body
)

// BodyType tells the two bodies apart, with the numbers of a version 5
// descriptor.
type BodyType uint16

// The two TD bodies.
const (
	TDX10 BodyType = 2 // 584 bytes: [Body]
	TDX15 BodyType = 3 // 648 bytes: [Body] and [Extra]
)

// Errors of [Parse]. ErrUnsupported is wrapped where the bytes name a version,
// key type, TEE or body that this package does not know, ErrMalformed where they
// contradict their own layout.
var (
	ErrMalformed   = errors.New("tdx: malformed")
	ErrUnsupported = errors.New("tdx: unsupported")
)

// VendorIntel is the QE vendor id of Intel's quoting enclave.
var VendorIntel = [16]byte{0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07}

// Quote is a parsed quote. AuthData and Chain of one from [Parse] alias the
// bytes that were parsed; everything else is a copy.
type Quote struct {
	Version  uint16 // [V4] or [V5]
	Reserved [4]byte
	Vendor   [16]byte // [VendorIntel]
	UserData [20]byte // QE defined: in practice the QE's platform id
	BodyType BodyType // [TDX10] in every version 4 quote
	Body     Body
	Extra    Extra // zero unless BodyType is [TDX15]

	Signature [signatureSize]byte // r‖s big-endian, by AttestationKey over [Quote.Signed]
	Endorsed
}

// Endorsed is what binds the attestation key to the platform's PCK certificate.
type Endorsed struct {
	AttestationKey [keySize]byte // x‖y big-endian, a point on P-256 if the quote is honest
	QEReport       QEReport      // its ReportData begins with SHA-256(AttestationKey‖AuthData)
	QESignature    [signatureSize]byte
	AuthData       []byte
	Chain          []byte // PEM: PCK certificate, its CA, the root; the QE may have added a NUL
}

type header struct {
	Version  uint16
	KeyType  uint16
	TEE      uint32
	Reserved [4]byte
	Vendor   [16]byte
	UserData [20]byte
}

// Parse reads a quote. Zeros may follow it, as in the fixed buffers of some
// drivers; any other trailing byte, and any length that does not fill its
// container exactly, is refused. The error wraps [ErrMalformed] or
// [ErrUnsupported].
func Parse(raw []byte) (*Quote, error) {
	if len(raw) > MaxQuote {
		return nil, fmt.Errorf("%w: quote of %d bytes, limit %d", ErrMalformed, len(raw), MaxQuote)
	}
	r := reader{b: raw}
	var h header
	r.fixed("header", headerSize, &h)
	if r.err != nil {
		return nil, r.err
	}
	switch {
	case h.Version != V4 && h.Version != V5:
		return nil, fmt.Errorf("%w: quote version %d, want 4 or 5", ErrUnsupported, h.Version)
	case h.TEE != teeTDX:
		return nil, fmt.Errorf("%w: TEE type 0x%x, want 0x81 (TDX)", ErrUnsupported, h.TEE)
	case h.KeyType != keyTypeP256:
		return nil, fmt.Errorf("%w: attestation key type %d, want 2 (ECDSA P-256)", ErrUnsupported, h.KeyType)
	}
	q := &Quote{Version: h.Version, Reserved: h.Reserved, Vendor: h.Vendor, UserData: h.UserData, BodyType: TDX10}
	if h.Version == V5 {
		q.BodyType = BodyType(r.u16("body type"))
		size := r.u32("body size")
		switch {
		case r.err != nil:
			return nil, r.err
		case q.BodyType != TDX10 && q.BodyType != TDX15:
			return nil, fmt.Errorf("%w: body type %d, want 2 (TDX 1.0) or 3 (TDX 1.5)", ErrUnsupported, q.BodyType)
		case int64(size) != int64(q.BodyType.size()):
			return nil, fmt.Errorf("%w: body of %d bytes, type %d has %d", ErrMalformed, size, q.BodyType, q.BodyType.size())
		}
	}
	r.fixed("TD body", bodySize10, &q.Body)
	if q.BodyType == TDX15 {
		r.fixed("TDX 1.5 body", bodySize15-bodySize10, &q.Extra)
	}
	sig := r.nested(r.take("signature data", r.u32("signature length")))
	sig.fixed("signature", signatureSize, &q.Signature)
	sig.fixed("attestation key", keySize, &q.AttestationKey)
	qe := sig.nested(sig.cert("certification data", certQEReport))
	qe.fixed("QE report", qeReportSize, &q.QEReport)
	qe.fixed("QE report signature", signatureSize, &q.QESignature)
	q.AuthData = qe.take("QE authentication data", uint32(qe.u16("QE authentication data length")))
	q.Chain = qe.cert("PCK certification data", certPCKChain)
	qe.end("certification data")
	sig.end("signature data")
	if err := cmp.Or(qe.err, sig.err); err != nil {
		return nil, err
	}
	if len(bytes.TrimLeft(r.b, "\x00")) > 0 {
		return nil, fmt.Errorf("%w: %d bytes follow the quote and are not all zero", ErrMalformed, len(r.b))
	}
	return q, nil
}

// Marshal writes q, without trailing zeros. What [Parse] accepts, Marshal writes
// back to the byte. It panics if AuthData exceeds 65,535 bytes.
func (q *Quote) Marshal() []byte {
	if len(q.AuthData) > 1<<16-1 {
		panic("tdx: internal error: authentication data too long")
	}
	b := q.Signed()
	inner := qeReportSize + signatureSize + 2 + len(q.AuthData) + 6 + len(q.Chain)
	b = binary.LittleEndian.AppendUint32(b, uint32(signatureSize+keySize+6+inner))
	b = append(b, q.Signature[:]...)
	b = append(b, q.AttestationKey[:]...)
	b = binary.LittleEndian.AppendUint16(b, certQEReport)
	b = binary.LittleEndian.AppendUint32(b, uint32(inner))
	b = append(b, q.QEReport.Marshal()...)
	b = append(b, q.QESignature[:]...)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(q.AuthData)))
	b = append(b, q.AuthData...)
	b = binary.LittleEndian.AppendUint16(b, certPCKChain)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(q.Chain)))
	return append(b, q.Chain...)
}

// Signed returns the bytes that Signature covers: header and body, and between
// them the body's descriptor in version 5. The slice is new.
func (q *Quote) Signed() []byte {
	b := make([]byte, 0, 8<<10)
	b = appendFixed(b, header{Version: q.Version, KeyType: keyTypeP256, TEE: teeTDX, Reserved: q.Reserved, Vendor: q.Vendor, UserData: q.UserData})
	if q.Version == V5 {
		b = binary.LittleEndian.AppendUint16(b, uint16(q.BodyType))
		b = binary.LittleEndian.AppendUint32(b, uint32(q.BodyType.size()))
	}
	b = appendFixed(b, q.Body)
	if q.BodyType == TDX15 {
		b = appendFixed(b, q.Extra)
	}
	return b
}

func (t BodyType) size() int {
	if t == TDX15 {
		return bodySize15
	}
	return bodySize10
}
