package cose

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
)

// ReceiptType is the typ of a receipt of ours (RFC 9943).
const ReceiptType = "application/scitt-receipt+cose"

// Limits of a receipt, checked before and after decoding.
const (
	MaxReceipt   = 16 << 10 // bytes
	maxProofs    = 16       // proofs of one receipt
	maxProofPath = 64       // hashes of one proof
)

// Labels of a receipt (RFC 9942 2; the last is private and ours: the tree's
// origin and size, which the signature over a root alone would not cover).
const (
	labelCritical   = int64(2)
	labelStructure  = int64(395) // vds
	labelProofs     = int64(396) // vdp
	labelTree       = int64(-70001)
	proofsInclusion = int64(-1)
	proofsConsist   = int64(-2)

	rfc9162SHA256 = int64(1) // vds RFC9162_SHA256
)

// ErrUnsupported is wrapped where a receipt is of a tree or an algorithm that this
// package does not know: it may be good, and cannot be judged.
var ErrUnsupported = errors.New("not supported")

// Proof is one proof of a receipt: of inclusion, with First the tree's size and
// Second the leaf's index, or of consistency, with First the old size and Second
// the new one.
type Proof struct {
	First, Second uint64
	Path          []Digest
}

// Receipt is a parsed COSE receipt (RFC 9942) over a tree of RFC 9162 with
// SHA-256, whose signature nobody has checked yet.
type Receipt struct {
	Header      Header // fields are empty where a foreign receipt has none
	Alg         int64  // COSE algorithm identifier
	KeyID       []byte
	Origin      string // of the tree, as signed; empty in a foreign receipt
	Size        uint64 // of the tree, as signed; 0 in a foreign receipt
	Inclusion   []Proof
	Consistency []Proof

	payload   []byte // nil if detached
	protected []byte
	signature []byte
}

type treeLabel struct {
	_      struct{} `cbor:",toarray"`
	Origin string
	Size   uint64
}

type proofItem struct {
	_      struct{} `cbor:",toarray"`
	First  uint64
	Second uint64
	Path   [][]byte
}

// The two shapes of our own protected header and proofs, in the one encoding.
type ownReceiptHeader struct {
	Alg    int64  `cbor:"1,keyasint"`
	KeyID  []byte `cbor:"4,keyasint"`
	Claims struct {
		Issuer  string `cbor:"1,keyasint"`
		Subject string `cbor:"2,keyasint"`
	} `cbor:"15,keyasint"`
	Type      string    `cbor:"16,keyasint"`
	Structure int64     `cbor:"395,keyasint"`
	Tree      treeLabel `cbor:"-70001,keyasint"`
}

type ownProofs struct {
	Proofs struct {
		Inclusion [][]byte `cbor:"-1,keyasint"`
	} `cbor:"396,keyasint"`
}

type sign1 struct {
	_           struct{} `cbor:",toarray"`
	Protected   []byte
	Unprotected Raw
	Payload     *[]byte
	Signature   []byte
}

// SignReceipt returns a receipt of inclusion in our own form: the signature is
// over root alone (RFC 9942), the header says whose tree of which size it is.
func SignReceipt(s *Signer, h Header, origin string, size, index uint64, path []Digest, root Digest) ([]byte, error) {
	if err := h.check(); err != nil {
		return nil, err
	}
	if origin == "" || len(origin) > 255 {
		return nil, fmt.Errorf("cose: receipt origin of %d bytes, want 1 to 255", len(origin))
	}
	id := s.pub.ID()
	head := ownReceiptHeader{Alg: int64(s.pub.Alg()), KeyID: id[:], Type: h.Type, Structure: rfc9162SHA256, Tree: treeLabel{Origin: origin, Size: size}}
	head.Claims.Issuer, head.Claims.Subject = h.Issuer, h.Subject
	protected := Marshal(head)
	sig, err := s.SignRaw(sigStructure(protected, root[:]))
	if err != nil {
		return nil, err
	}
	return encodeReceipt(protected, size, index, path, sig), nil
}

func encodeReceipt(protected []byte, size, index uint64, path []Digest, sig []byte) []byte {
	item := proofItem{First: size, Second: index}
	for _, d := range path {
		item.Path = append(item.Path, d[:])
	}
	var proofs ownProofs
	proofs.Proofs.Inclusion = [][]byte{Marshal(item)}
	return append([]byte{0xd2}, Marshal(sign1{Protected: protected, Unprotected: Marshal(proofs), Signature: sig})...) // tag 18
}

// sigStructure is what is signed (RFC 9052 4.4), without external data.
func sigStructure(protected, payload []byte) []byte {
	return Marshal(struct {
		_         struct{} `cbor:",toarray"`
		Context   string
		Protected []byte
		External  []byte
		Payload   []byte
	}{Context: "Signature1", Protected: protected, Payload: payload})
}

// IsOwn says why r, parsed from raw, is not in our own form, or nil if it is:
// one inclusion proof, exactly our header, the one encoding.
func (r *Receipt) IsOwn(raw []byte) error {
	var head ownReceiptHeader
	if err := Unmarshal(r.protected, &head); err != nil {
		return fmt.Errorf("cose: receipt header: %w", err)
	}
	if len(head.KeyID) != len(Digest{}) || head.Tree.Origin == "" {
		return errors.New("cose: receipt header without key or origin")
	}
	if len(r.Inclusion) != 1 || r.payload != nil {
		return fmt.Errorf("cose: receipt with %d inclusion proofs, want 1 and a detached payload", len(r.Inclusion))
	}
	p := r.Inclusion[0]
	if p.First != r.Size {
		return fmt.Errorf("cose: receipt proves a tree of %d, and signs one of %d", p.First, r.Size)
	}
	if !bytes.Equal(encodeReceipt(r.protected, p.First, p.Second, p.Path, r.signature), raw) {
		return fmt.Errorf("%w: receipt has another encoding", ErrEncoding)
	}
	return nil
}

// VerifyOwn checks the signature over root by a key of our own profile. Call
// [Receipt.IsOwn] first. The error wraps [ErrSignature].
func (r *Receipt) VerifyOwn(k Key, root Digest) error {
	id := k.ID()
	if k.IsZero() || r.Alg != int64(k.Alg()) || !bytes.Equal(r.KeyID, id[:]) {
		return fmt.Errorf("%w: receipt is by key %.8x with %d, want key %s with %d", ErrSignature, r.KeyID, r.Alg, id.Short(), k.Alg())
	}
	return k.VerifyRaw(sigStructure(r.protected, root[:]), r.signature)
}

// VerifyForeign checks the signature over root by anybody's key. High S is valid
// there. The error wraps [ErrSignature].
func (r *Receipt) VerifyForeign(k crypto.PublicKey, root Digest) error {
	if r.payload != nil && !bytes.Equal(r.payload, root[:]) {
		return fmt.Errorf("%w: payload %.8x is not the root %s", ErrSignature, r.payload, root.Short())
	}
	return verifyForeign(r.Alg, k, sigStructure(r.protected, root[:]), r.signature)
}
