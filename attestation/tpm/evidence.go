package tpm

import (
	"fmt"

	"github.com/concordat/concordat/internal/cose"
)

// NumPCRs is the number of PCRs of a PC's TPM.
const NumPCRs = 24

// pcrSize is the bytes of a register of the SHA-256 bank.
const pcrSize = 32

// Evidence is the content of an item of kind "tpm2". The CPU item beside it has
// [Binding] of Runtime as its report data.
type Evidence struct {
	Runtime   []byte // the paravisor's words about the signing key, byte for byte as it hashed them; see [SigningKey]
	Quote     []byte // TPMS_ATTEST, the signed bytes; see [ParseQuote]
	Signature []byte // TPMT_SIGNATURE; see [ParseSignature]
	PCRs      []PCR  // what Quote's digest stands for, of the SHA-256 bank, rising
}

// PCR is the value of one register.
type PCR struct {
	_     struct{} `cbor:",toarray"`
	Index uint64   // 0 to 23
	Value []byte   // 32 bytes
}

const domain = "concordat/tpm/1"

type item struct {
	_         struct{} `cbor:",toarray"`
	Domain    string
	Runtime   []byte
	Quote     []byte
	Signature []byte
	PCRs      []PCR
}

// Encode returns the canonical bytes of e. It does not check e.
func (e *Evidence) Encode() []byte {
	return cose.Marshal(item{Domain: domain, Runtime: e.Runtime, Quote: e.Quote, Signature: e.Signature, PCRs: e.PCRs})
}

// Parse decodes what [Evidence.Encode] returns and checks sizes and the order of
// the PCRs. It looks into none of the parts.
func Parse(b []byte) (*Evidence, error) {
	// The frame and the registers need less than 2 KiB.
	if limit := MaxRuntime + maxQuote + maxSignature + 2<<10; len(b) > limit {
		return nil, fmt.Errorf("%w: %d bytes, limit %d", ErrMalformed, len(b), limit)
	}
	var w item
	if err := cose.Unmarshal(b, &w); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	switch {
	case w.Domain != domain:
		return nil, fmt.Errorf("%w: domain %.40q, want %q", ErrMalformed, w.Domain, domain)
	case len(w.Runtime) > MaxRuntime:
		return nil, fmt.Errorf("%w: runtime data of %d bytes, limit %d", ErrMalformed, len(w.Runtime), MaxRuntime)
	case len(w.PCRs) > NumPCRs:
		return nil, fmt.Errorf("%w: %d PCRs, limit %d", ErrMalformed, len(w.PCRs), NumPCRs)
	}
	for i, p := range w.PCRs {
		switch {
		case p.Index >= NumPCRs:
			return nil, fmt.Errorf("%w: PCR %d, want 0 to %d", ErrMalformed, p.Index, NumPCRs-1)
		case i > 0 && p.Index <= w.PCRs[i-1].Index:
			return nil, fmt.Errorf("%w: PCR %d after PCR %d", ErrMalformed, p.Index, w.PCRs[i-1].Index)
		case len(p.Value) != pcrSize:
			return nil, fmt.Errorf("%w: PCR %d of %d bytes, want %d", ErrMalformed, p.Index, len(p.Value), pcrSize)
		}
	}
	return &Evidence{Runtime: w.Runtime, Quote: w.Quote, Signature: w.Signature, PCRs: w.PCRs}, nil
}
