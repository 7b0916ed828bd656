package tpm

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// maxAzure bounds the JSON of [ParseAzure]: bytes are written as decimal
// numbers, four characters each.
const maxAzure = 256 << 10

// Azure is what attesters on Azure's confidential machines send.
type Azure struct {
	HCL      *HCLReport
	Evidence *Evidence
	VCEK     []byte // PEM certificates that came along, or nil
}

// ParseAzure decodes the JSON of the "az-snp-vtpm" attester of Confidential
// Containers' guest components: {"quote": {"message", "signature", "pcrs"},
// "report", "vcek"}, where byte strings are arrays of numbers, signature is the
// bare RSASSA signature with SHA-256, and pcrs are those that the quote selects.
func ParseAzure(b []byte) (*Azure, error) {
	if len(b) > maxAzure {
		return nil, fmt.Errorf("%w: JSON of %d bytes, limit %d", ErrMalformed, len(b), maxAzure)
	}
	if err := strictJSON(b); err != nil {
		return nil, fmt.Errorf("%w: JSON: %w", ErrMalformed, err)
	}
	var w struct {
		Quote struct {
			Message   octets   `json:"message"`
			Signature octets   `json:"signature"`
			PCRs      []octets `json:"pcrs"`
		} `json:"quote"`
		Report octets `json:"report"`
		VCEK   string `json:"vcek"`
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&w); err != nil {
		return nil, fmt.Errorf("%w: JSON: %w", ErrMalformed, err)
	}
	hcl, err := ParseHCL(w.Report)
	if err != nil {
		return nil, err
	}
	if len(w.Quote.PCRs) > NumPCRs {
		return nil, fmt.Errorf("%w: %d PCRs, limit %d", ErrMalformed, len(w.Quote.PCRs), NumPCRs)
	}
	e := &Evidence{Runtime: hcl.Runtime, Quote: w.Quote.Message, Signature: (&Signature{Scheme: RSASSA, Hash: SHA256, RSA: w.Quote.Signature}).Marshal()}
	for i, n := range selected(w.Quote.Message, len(w.Quote.PCRs)) {
		e.PCRs = append(e.PCRs, PCR{Index: uint64(n), Value: w.Quote.PCRs[i]})
	}
	a := &Azure{HCL: hcl, Evidence: e}
	if w.VCEK != "" {
		a.VCEK = []byte(w.VCEK)
	}
	return a, nil
}

// selected numbers n values: as the quote's own selection does if it has as many,
// else from 0. A wrong numbering is no harm: the verifier compares it with the
// selection again.
func selected(quote []byte, n int) []int {
	if q, err := ParseQuote(quote); err == nil && len(q.Selections) == 1 {
		if pcrs := q.Selections[0].PCRs(); len(pcrs) == n {
			return pcrs
		}
	}
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

// octets is a byte string that JSON holds as an array of numbers.
type octets []byte

func (o *octets) UnmarshalJSON(b []byte) error {
	var wide []uint16 // encoding/json reads a []uint8 as base64
	if err := json.Unmarshal(b, &wide); err != nil {
		return err
	}
	*o = make([]byte, len(wide))
	for i, x := range wide {
		if x > 0xFF {
			return fmt.Errorf("%d is no byte", x)
		}
		(*o)[i] = byte(x)
	}
	return nil
}
