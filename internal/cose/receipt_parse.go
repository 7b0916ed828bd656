package cose

import (
	"errors"
	"fmt"
	"slices"

	"github.com/fxamacker/cbor/v2"
)

// foreignMode reads messages that others encoded: any valid encoding but
// indefinite lengths, and nothing twice.
var foreignMode = func() cbor.DecMode {
	m, err := cbor.DecOptions{
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
		IndefLength:      cbor.IndefLengthForbidden,
		MaxNestedLevels:  maxNesting,
		MaxArrayElements: 4096,
		MaxMapPairs:      maxMap,
		IntDec:           cbor.IntDecConvertSignedOrFail,
	}.DecMode()
	if err != nil {
		panic("cose: internal error: " + err.Error())
	}
	return m
}()

// ParseReceipt decodes a COSE receipt of anybody (RFC 9942): tag 18, a protected
// header that names an algorithm and the tree structure RFC9162_SHA256, proofs of
// inclusion or of consistency in the unprotected one. It refuses a critical
// header that it does not know, labels that stand in both headers, and a receipt
// that mixes the two kinds of proof. It checks no signature and no proof.
func ParseReceipt(raw []byte) (*Receipt, error) {
	r, err := parseReceipt(raw)
	if err != nil {
		return nil, fmt.Errorf("receipt: %w", err)
	}
	return r, nil
}

func parseReceipt(raw []byte) (*Receipt, error) {
	if len(raw) > MaxReceipt {
		return nil, fmt.Errorf("%d bytes, limit %d", len(raw), MaxReceipt)
	}
	if len(raw) < 2 || raw[0] != 0xd2 {
		return nil, errors.New("not a tagged COSE_Sign1")
	}
	var outer []cbor.RawMessage
	if err := foreignMode.Unmarshal(raw[1:], &outer); err != nil {
		return nil, err
	}
	if len(outer) != 4 {
		return nil, fmt.Errorf("array of %d, want 4", len(outer))
	}
	r := new(Receipt)
	for _, f := range []struct {
		name string
		raw  cbor.RawMessage
		to   *[]byte
	}{{"protected header", outer[0], &r.protected}, {"signature", outer[3], &r.signature}} {
		if err := decodeBytes(f.raw, f.to); err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
	}
	if p := outer[2]; len(p) != 1 || p[0] != 0xf6 { // nil: detached
		if err := decodeBytes(p, &r.payload); err != nil {
			return nil, fmt.Errorf("payload: %w", err)
		}
		if r.payload == nil {
			r.payload = []byte{}
		}
	}
	protected, err := decodeHeader(r.protected)
	if err != nil {
		return nil, fmt.Errorf("protected header: %w", err)
	}
	unprotected, err := decodeHeader(outer[1])
	if err != nil {
		return nil, fmt.Errorf("unprotected header: %w", err)
	}
	for label := range unprotected {
		if _, ok := protected[label]; ok {
			return nil, fmt.Errorf("label %v is in both headers", label)
		}
	}
	if err := r.readHeader(protected); err != nil {
		return nil, err
	}
	for _, label := range []int64{labelAlg, labelCritical, labelStructure, labelTree} {
		if _, ok := unprotected[label]; ok {
			return nil, fmt.Errorf("label %d is not protected", label)
		}
	}
	if id, ok := unprotected[labelKeyID]; ok {
		if err := decodeBytes(id, &r.KeyID); err != nil {
			return nil, fmt.Errorf("kid: %w", err)
		}
	}
	proofs, ok := unprotected[labelProofs]
	if !ok {
		return nil, errors.New("no proofs (label 396)")
	}
	return r, r.readProofs(proofs)
}

// decodeHeader reads a header map whose labels are integers or strings. A
// protected header of no bytes is an empty map.
func decodeHeader(raw []byte) (map[any]cbor.RawMessage, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	if raw[0]>>5 != 5 {
		return nil, errors.New("not a map")
	}
	var m map[any]cbor.RawMessage
	if err := foreignMode.Unmarshal(raw, &m); err != nil {
		return nil, err
	}
	for label := range m {
		switch label.(type) {
		case int64, string:
		default:
			return nil, fmt.Errorf("label of type %T", label)
		}
	}
	return m, nil
}

func decodeBytes(raw []byte, to *[]byte) error {
	if len(raw) == 0 || raw[0]>>5 != 2 {
		return errors.New("not a byte string")
	}
	return foreignMode.Unmarshal(raw, to)
}

func (r *Receipt) readHeader(h map[any]cbor.RawMessage) error {
	if h[labelAlg] == nil {
		return errors.New("no algorithm in the protected header")
	}
	if err := foreignMode.Unmarshal(h[labelAlg], &r.Alg); err != nil {
		return fmt.Errorf("algorithm: %w", err)
	}
	if _, ok := foreignAlgs[r.Alg]; !ok {
		return fmt.Errorf("%w: algorithm %d", ErrUnsupported, r.Alg)
	}
	if err := checkCritical(h); err != nil {
		return err
	}
	var structure int64
	if h[labelStructure] == nil {
		return errors.New("no verifiable data structure (label 395)")
	}
	if err := foreignMode.Unmarshal(h[labelStructure], &structure); err != nil {
		return fmt.Errorf("verifiable data structure: %w", err)
	}
	if structure != rfc9162SHA256 {
		return fmt.Errorf("%w: verifiable data structure %d is not RFC9162_SHA256 (1)", ErrUnsupported, structure)
	}
	if id := h[labelKeyID]; id != nil {
		if err := decodeBytes(id, &r.KeyID); err != nil {
			return fmt.Errorf("kid: %w", err)
		}
	}
	if c := h[labelCWTClaims]; c != nil {
		claims, err := decodeHeader(c)
		if err != nil {
			return fmt.Errorf("CWT claims: %w", err)
		}
		for label, to := range map[int64]*string{cwtIssuer: &r.Header.Issuer, cwtSubject: &r.Header.Subject} {
			if v := claims[label]; v != nil {
				if err := foreignMode.Unmarshal(v, to); err != nil {
					return fmt.Errorf("CWT claim %d: %w", label, err)
				}
			}
		}
	}
	if t := h[labelType]; t != nil && t[0]>>5 == 3 { // a content format number says nothing to us
		if err := foreignMode.Unmarshal(t, &r.Header.Type); err != nil {
			return fmt.Errorf("typ: %w", err)
		}
	}
	if t := h[labelTree]; t != nil {
		var tree treeLabel
		if err := foreignMode.Unmarshal(t, &tree); err != nil {
			return fmt.Errorf("label %d: %w", labelTree, err)
		}
		r.Origin, r.Size = tree.Origin, tree.Size
	}
	return nil
}

// checkCritical refuses what the signer says must be understood and is not (RFC
// 9052 3.1).
func checkCritical(h map[any]cbor.RawMessage) error {
	raw := h[labelCritical]
	if raw == nil {
		return nil
	}
	var labels []any
	if err := foreignMode.Unmarshal(raw, &labels); err != nil {
		return fmt.Errorf("crit: %w", err)
	}
	if len(labels) == 0 {
		return errors.New("crit is empty")
	}
	known := []int64{labelAlg, labelKeyID, labelCWTClaims, labelType, labelStructure, labelTree}
	for _, l := range labels {
		n, ok := l.(int64)
		if !ok || !slices.Contains(known, n) {
			return fmt.Errorf("critical header %v is unknown", l)
		}
		if h[n] == nil {
			return fmt.Errorf("critical header %d is not there", n)
		}
	}
	return nil
}

func (r *Receipt) readProofs(raw []byte) error {
	kinds, err := decodeHeader(raw)
	if err != nil {
		return fmt.Errorf("proofs: %w", err)
	}
	if len(kinds) != 1 {
		return fmt.Errorf("%d kinds of proof, want 1", len(kinds))
	}
	for label, list := range kinds {
		var items []cbor.RawMessage
		if err := foreignMode.Unmarshal(list, &items); err != nil {
			return fmt.Errorf("proofs: %w", err)
		}
		if len(items) == 0 || len(items) > maxProofs {
			return fmt.Errorf("%d proofs, want 1 to %d", len(items), maxProofs)
		}
		var proofs []Proof
		for _, item := range items {
			p, err := readProof(item)
			if err != nil {
				return fmt.Errorf("proof: %w", err)
			}
			proofs = append(proofs, p)
		}
		switch label {
		case proofsInclusion:
			r.Inclusion = proofs
		case proofsConsist:
			r.Consistency = proofs
		default:
			return fmt.Errorf("proofs of unknown kind %v", label)
		}
	}
	return nil
}

func readProof(raw []byte) (p Proof, err error) {
	var inner []byte
	if err := decodeBytes(raw, &inner); err != nil {
		return p, err
	}
	var item proofItem
	if err := foreignMode.Unmarshal(inner, &item); err != nil {
		return p, err
	}
	if len(item.Path) > maxProofPath {
		return p, fmt.Errorf("path of %d, limit %d", len(item.Path), maxProofPath)
	}
	p = Proof{First: item.First, Second: item.Second}
	for _, h := range item.Path {
		if len(h) != len(Digest{}) {
			return p, fmt.Errorf("path element of %d bytes, want %d", len(h), len(Digest{}))
		}
		p.Path = append(p.Path, Digest(h))
	}
	return p, nil
}
