package receipt

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"testing"

	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/merkle"
)

func chunkTree(n int) *Tree {
	var t Tree
	for i := range n {
		t.Append(merkle.ChunkEntry(merkle.Hash{byte(i), byte(i >> 8)}))
	}
	return &t
}

func headerOf(tree *Tree) ReceiptHeader {
	return ReceiptHeader{Issuer: EnclaveIssuer(instance), Subject: federation.String(), Origin: ContributionOrigin(Digest{3}), Size: tree.Size()}
}

// issue returns the receipt of chunk index of a tree of n.
func issue(t testing.TB, n, index int, k *cose.Signer) (entry, raw []byte, tree *Tree) {
	t.Helper()
	tree = chunkTree(n)
	entry = merkle.ChunkEntry(merkle.Hash{byte(index), byte(index >> 8)})
	raw, err := IssueReceipt(headerOf(tree), entry, tree.Prove(uint64(index)), tree.Root(), k)
	if err != nil {
		t.Fatal(err)
	}
	return entry, raw, tree
}

func TestReceipt(t *testing.T) {
	for _, k := range []*cose.Signer{nodeKey(t, 1), enclaveKey(t, 2)} {
		for _, n := range []int{1, 2, 3, 8, 300} {
			for _, i := range []int{0, n / 2, n - 1} {
				entry, raw, tree := issue(t, n, i, k)
				want := headerOf(tree)
				if err := VerifyReceipt(entry, raw, k.Public(), Own(want).ForRoot(tree.Root())); err != nil {
					t.Fatalf("%d of %d: %v", i, n, err)
				}
				if h, err := ParseReceiptHeader(raw); err != nil || h != want {
					t.Errorf("header %+v, %v", h, err)
				}
				// Any reader of RFC 9942 accepts ours.
				if err := VerifyReceipt(entry, raw, k.Public().Public(), RFC9942()); err != nil {
					t.Errorf("as a foreign one: %v", err)
				}
			}
		}
	}
}

func TestReceiptRefused(t *testing.T) {
	k := enclaveKey(t, 2)
	entry, raw, tree := issue(t, 300, 17, k)
	want := headerOf(tree)
	change := func(f func(*ReceiptHeader)) Profile {
		h := want
		f(&h)
		return Own(h)
	}
	for name, err := range map[string]error{
		"another entry":      VerifyReceipt(merkle.ChunkEntry(merkle.Hash{18}), raw, k.Public(), Own(want)),
		"entry of inputs":    VerifyReceipt(merkle.InputEntry(merkle.Hash{17}), raw, k.Public(), Own(want)),
		"bare id":            VerifyReceipt(make([]byte, 32), raw, k.Public(), Own(want)),
		"another key":        VerifyReceipt(entry, raw, enclaveKey(t, 3).Public(), Own(want)),
		"no key":             VerifyReceipt(entry, raw, cose.Key{}, Own(want)),
		"key not ours":       VerifyReceipt(entry, raw, k.Public().Public(), Own(want)),
		"another issuer":     VerifyReceipt(entry, raw, k.Public(), change(func(h *ReceiptHeader) { h.Issuer = EnclaveIssuer(ID{9}) })),
		"another federation": VerifyReceipt(entry, raw, k.Public(), change(func(h *ReceiptHeader) { h.Subject = Digest{9}.String() })),
		"another tree":       VerifyReceipt(entry, raw, k.Public(), change(func(h *ReceiptHeader) { h.Origin = StepOrigin(Digest{3}) })),
		"another size":       VerifyReceipt(entry, raw, k.Public(), change(func(h *ReceiptHeader) { h.Size = 301 })),
		"another root":       VerifyReceipt(entry, raw, k.Public(), Own(want).ForRoot(Digest{1})),
		"restricted key":     VerifyReceipt(entry, raw, k.Public(), RFC9942().ForAlg(-8)),
		"foreign, other key": VerifyReceipt(entry, raw, enclaveKey(t, 3).Public(), RFC9942()),
		"nothing":            VerifyReceipt(entry, nil, k.Public(), Own(want)),
		"as consistency":     VerifyConsistencyReceipt(tree.Root(), raw, k.Public(), RFC9942()),
	} {
		if !errors.Is(err, ErrReceipt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range raw {
		for _, p := range []Profile{Own(want), RFC9942()} {
			bad := bytes.Clone(raw)
			bad[i] ^= 1 << (i % 8)
			if VerifyReceipt(entry, bad, k.Public(), p) == nil {
				t.Fatalf("byte %d changed: verifies", i)
			}
		}
	}
	tree = chunkTree(2)
	if _, err := IssueReceipt(headerOf(tree), entry, tree.Prove(0), tree.Root(), k); err == nil {
		t.Error("issued for an entry that is not there")
	}
	good := merkle.ChunkEntry(merkle.Hash{})
	h := headerOf(tree)
	h.Size = 3
	if _, err := IssueReceipt(h, good, tree.Prove(0), tree.Root(), k); err == nil {
		t.Error("issued for another size")
	}
}

// TestReceiptSizeIsSigned: of a leaf in 300, 256 sizes have the same path and root
// (17 of 300: 257 to 512). The signature over the root covers none of them; the
// header does.
func TestReceiptSizeIsSigned(t *testing.T) {
	k := enclaveKey(t, 2)
	entry, raw, tree := issue(t, 300, 17, k)
	p := tree.Prove(17)
	var path []merkle.Hash
	for _, d := range p.Path {
		path = append(path, d)
	}
	same := 0
	for size := uint64(18); size < 1000; size++ {
		if merkle.VerifyInclusion(merkle.LeafHash(entry), 17, size, path, tree.Root()) == nil {
			same++
		}
	}
	if same != 256 {
		t.Errorf("%d sizes verify, want 256", same)
	}
	// The same signature around a proof that says 301.
	i := bytes.LastIndex(raw, []byte{0x83, 0x19, 0x01, 0x2c}) // array of 3, 300
	bad := bytes.Clone(raw)
	bad[i+3]++
	if err := VerifyReceipt(entry, bad, k.Public(), Own(headerOf(tree))); !errors.Is(err, ErrReceipt) {
		t.Errorf("a proof of another size: %v", err)
	}
	if err := VerifyReceipt(entry, bad, k.Public(), RFC9942()); !errors.Is(err, ErrReceipt) {
		t.Errorf("a proof that contradicts the header: %v", err)
	}
}

// TestGoldenReceipt pins the bytes: Ed25519 is deterministic.
func TestGoldenReceipt(t *testing.T) {
	_, raw, _ := issue(t, 5, 3, nodeKey(t, 1))
	if want := goldenFile(t, "receipt.cbor", raw); !bytes.Equal(raw, want) {
		t.Errorf("encoding changed:\n%x\n%x", want, raw)
	}
}

// foreignConsistency makes a receipt of consistency by hand (RFC 9942 5.3).
func foreignConsistency(t testing.TB, old, size int) (raw []byte, oldRoot Digest, pub ed25519.PublicKey) {
	t.Helper()
	var leaves []merkle.Hash
	for i := range size {
		leaves = append(leaves, merkle.LeafHash([]byte{byte(i)}))
	}
	priv := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{5}, 32))
	protected := cose.Marshal(map[int64]any{1: -8, 395: 1})
	root := merkle.Root(leaves)
	path := [][]byte{}
	for _, h := range merkle.Consistency(leaves, old) {
		path = append(path, h[:])
	}
	proof := cose.Marshal([]any{old, size, path})
	sig := ed25519.Sign(priv, cose.Marshal([]any{"Signature1", protected, []byte{}, root[:]}))
	raw = append([]byte{0xd2}, cose.Marshal([]any{protected, map[int64]any{396: map[int64]any{-2: [][]byte{proof}}}, nil, sig})...)
	return raw, merkle.Root(leaves[:old]), priv.Public().(ed25519.PublicKey)
}

func TestConsistencyReceipt(t *testing.T) {
	for _, c := range [][2]int{{1, 2}, {3, 7}, {4, 7}, {6, 8}, {7, 7}, {8, 9}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			raw, oldRoot, pub := foreignConsistency(t, c[0], c[1])
			if err := VerifyConsistencyReceipt(oldRoot, raw, pub, RFC9942()); err != nil {
				t.Error(err)
			}
			if err := VerifyConsistencyReceipt(Digest{1}, raw, pub, RFC9942()); !errors.Is(err, ErrReceipt) {
				t.Errorf("from another root: %v", err)
			}
			if err := VerifyReceipt([]byte{0}, raw, pub, RFC9942()); !errors.Is(err, ErrReceipt) {
				t.Errorf("as inclusion: %v", err)
			}
			for i := range raw {
				bad := bytes.Clone(raw)
				bad[i] ^= 0x10
				if VerifyConsistencyReceipt(oldRoot, bad, pub, RFC9942()) == nil {
					t.Fatalf("byte %d changed: verifies", i)
				}
			}
		})
	}
}

func FuzzVerifyReceipt(f *testing.F) {
	k := nodeKey(f, 1)
	entry, raw, tree := issue(f, 5, 3, k)
	f.Add(entry, raw)
	consistency, _, _ := foreignConsistency(f, 3, 7)
	f.Add(entry, consistency)
	f.Fuzz(func(t *testing.T, e, r []byte) {
		if VerifyReceipt(e, r, k.Public(), Own(headerOf(tree))) == nil {
			in := false
			for i := range 5 {
				in = in || bytes.Equal(e, merkle.ChunkEntry(merkle.Hash{byte(i)}))
			}
			if !in {
				t.Errorf("entry %x was never in the tree", e)
			}
		}
		_ = VerifyReceipt(e, r, k.Public(), RFC9942())
		_ = VerifyConsistencyReceipt(Digest{1}, r, k.Public(), RFC9942())
	})
}
