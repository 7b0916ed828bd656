package receipt

import (
	"crypto"
	"errors"
	"fmt"

	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/merkle"
)

// ErrReceipt is wrapped by every receipt that does not prove what it should.
var ErrReceipt = errors.New("receipt does not prove it")

// MaxReceipt bounds a COSE receipt in bytes.
const MaxReceipt = cose.MaxReceipt

// ReceiptHeader is what the signature of a receipt of ours covers beside the
// root: whose tree, of what, and how large. RFC 9942 signs the root alone, and
// one root and path verify under thousands of tree sizes, so the header says it.
type ReceiptHeader struct {
	Issuer  string // [EnclaveIssuer], or the log's origin
	Subject string // federation id in hex
	Origin  string // which tree: the log's origin, [ContributionOrigin], [StepOrigin]
	Size    uint64 // leaves of the tree
}

// ContributionOrigin names the chunk tree of a contribution statement.
func ContributionOrigin(contribution Digest) string { return "contribution:" + contribution.String() }

// StepOrigin names the inputs tree of a step statement.
func StepOrigin(step Digest) string { return "step:" + step.String() }

// IssueReceipt signs that the entry with proof p stands in the tree with the
// given root. It checks the proof first: nothing is signed that does not verify.
// h.Size must be p.Size.
func IssueReceipt(h ReceiptHeader, entry []byte, p Proof, root Digest, k *cose.Signer) ([]byte, error) {
	if err := p.Verify(entry, h.Size, root); err != nil {
		return nil, fmt.Errorf("receipt: %w", err)
	}
	if p.Size != h.Size {
		return nil, fmt.Errorf("receipt: proof in a tree of %d leaves, header says %d", p.Size, h.Size)
	}
	raw, err := cose.SignReceipt(k, cose.Header{Type: cose.ReceiptType, Issuer: h.Issuer, Subject: h.Subject}, h.Origin, h.Size, p.Index, p.Path, root)
	if err != nil {
		return nil, fmt.Errorf("receipt: %w", err)
	}
	return raw, nil
}

// ParseReceiptHeader returns what a receipt of ours says about its tree, unverified:
// a reader learns from it which root it needs, and passes what it expects to
// [Own].
func ParseReceiptHeader(receipt []byte) (ReceiptHeader, error) {
	r, err := cose.ParseReceipt(receipt)
	if err != nil {
		return ReceiptHeader{}, fmt.Errorf("%w: %w", ErrReceipt, err)
	}
	return ReceiptHeader{r.Header.Issuer, r.Header.Subject, r.Origin, r.Size}, nil
}

// Profile says what a receipt must be to be accepted.
type Profile struct {
	own  *ReceiptHeader
	root Digest
	alg  int64
}

// Own accepts receipts of Concordat: the one encoding, an algorithm of ours, low
// S, and exactly the header want, so that a receipt of one tree never passes as
// one of another. want.Size must come from a signed statement or a checkpoint
// that was verified.
func Own(want ReceiptHeader) Profile { return Profile{own: &want} }

// RFC9942 accepts anybody's receipts over RFC9162_SHA256 trees. It says nothing
// about who owns the key, or which tree of what size it is: RFC 9942 signs
// neither.
func RFC9942() Profile { return Profile{} }

// ForRoot returns p with the additional demand that the receipt is of the tree
// with this root, known from a signed statement or a checkpoint.
func (p Profile) ForRoot(root Digest) Profile { p.root = root; return p }

// ForAlg returns p for a key that restricts itself to one COSE algorithm, as a
// COSE_Key does with alg; 0 restricts nothing. It only concerns [RFC9942].
func (p Profile) ForAlg(alg int64) Profile { p.alg = alg; return p }

// VerifyReceipt checks that receipt proves that entry, the bytes as they are, is
// in a tree whose root was signed by k: a [cose.Key], or any crypto.PublicKey of
// the standard library under [RFC9942]. All proofs of the receipt must lead to
// that root. The error wraps [ErrReceipt].
func VerifyReceipt(entry, receipt []byte, k crypto.PublicKey, p Profile) error {
	r, err := cose.ParseReceipt(receipt)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrReceipt, err)
	}
	if len(r.Inclusion) == 0 {
		return fmt.Errorf("%w: no proof of inclusion", ErrReceipt)
	}
	var root Digest
	for i, proof := range r.Inclusion {
		got, err := merkle.RootFromInclusion(merkle.LeafHash(entry), proof.Second, proof.First, hashes(proof.Path))
		if err != nil {
			return fmt.Errorf("%w: %w", ErrReceipt, err)
		}
		if i > 0 && root != got {
			return fmt.Errorf("%w: its proofs lead to two roots", ErrReceipt)
		}
		root = got
	}
	return verifyRoot(r, receipt, root, k, p)
}

// VerifyConsistencyReceipt checks that receipt proves that a tree whose root was
// signed by k extends the tree with oldRoot, which the caller holds already. It
// is as [VerifyReceipt] otherwise; our own profile has no such receipts.
func VerifyConsistencyReceipt(oldRoot Digest, receipt []byte, k crypto.PublicKey, p Profile) error {
	r, err := cose.ParseReceipt(receipt)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrReceipt, err)
	}
	if len(r.Consistency) == 0 {
		return fmt.Errorf("%w: no proof of consistency", ErrReceipt)
	}
	var root Digest
	for i, proof := range r.Consistency {
		got, err := merkle.RootFromConsistency(proof.First, proof.Second, hashes(proof.Path), oldRoot)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrReceipt, err)
		}
		if i > 0 && root != got {
			return fmt.Errorf("%w: its proofs lead to two roots", ErrReceipt)
		}
		root = got
	}
	return verifyRoot(r, receipt, root, k, p)
}

func verifyRoot(r *cose.Receipt, raw []byte, root Digest, k crypto.PublicKey, p Profile) error {
	if !p.root.IsZero() && root != p.root {
		return fmt.Errorf("%w: of a tree with root %s, want %s", ErrReceipt, root.Short(), p.root.Short())
	}
	own, isOwn := k.(cose.Key)
	if p.own == nil {
		if p.alg != 0 && p.alg != r.Alg {
			return fmt.Errorf("%w: signed with algorithm %d, the key is for %d", ErrReceipt, r.Alg, p.alg)
		}
		if r.Size != 0 && !sizesEqual(r) {
			return fmt.Errorf("%w: its header says a tree of %d leaves, its proof another", ErrReceipt, r.Size)
		}
		if isOwn {
			k = own.Public()
		}
		return wrapReceipt(r.VerifyForeign(k, root))
	}
	if !isOwn {
		return fmt.Errorf("%w: key of type %T is not of our profile", ErrReceipt, k)
	}
	if err := r.IsOwn(raw); err != nil {
		return wrapReceipt(err)
	}
	if r.Header.Type != cose.ReceiptType {
		return fmt.Errorf("%w: typ %q, want %q", ErrReceipt, r.Header.Type, cose.ReceiptType)
	}
	if got := (ReceiptHeader{r.Header.Issuer, r.Header.Subject, r.Origin, r.Size}); got != *p.own {
		return fmt.Errorf("%w: it says %+v, want %+v", ErrReceipt, got, *p.own)
	}
	return wrapReceipt(r.VerifyOwn(own, root))
}

func sizesEqual(r *cose.Receipt) bool {
	for _, p := range r.Inclusion {
		if p.First != r.Size {
			return false
		}
	}
	for _, p := range r.Consistency {
		if p.Second != r.Size {
			return false
		}
	}
	return true
}

func wrapReceipt(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrReceipt, err)
}

func hashes(path []Digest) []merkle.Hash {
	out := make([]merkle.Hash, len(path))
	for i, d := range path {
		out[i] = d
	}
	return out
}
