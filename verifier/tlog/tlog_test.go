package tlog

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/torchwood"
	fnote "github.com/transparency-dev/formats/note"
	xnote "golang.org/x/mod/sumdb/note"

	"github.com/concordat/concordat/internal/merkle"
)

const origin = "example.org/federation"

var at = time.Unix(1790000000, 0).UTC()

func seed(n byte) ed25519.PrivateKey { return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, 32)) }

func public(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

func logKey(t testing.TB) VerifierKey {
	t.Helper()
	k, err := NewLogKey(origin, public(seed(1)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// signed is a checkpoint note of the log, made by hand.
func signed(t testing.TB, c Checkpoint) []byte {
	t.Helper()
	text := c.Text()
	return slices.Concat(text, []byte("\n"), formatSignature(logKey(t), ed25519.Sign(seed(1), text)))
}

func leaves(n int) []merkle.Hash {
	var out []merkle.Hash
	for i := range n {
		out = append(out, merkle.LeafHash(entry(i)))
	}
	return out
}

func entry(i int) []byte { return fmt.Appendf(nil, "entry %d", i) }

func checkpoint(n int) Checkpoint {
	return Checkpoint{Origin: origin, Size: uint64(n), Root: merkle.Root(leaves(n))}
}

func newWitness(t testing.TB, n byte, held State, save func(State) error) *Witness {
	t.Helper()
	if save == nil {
		save = func(State) error { return nil }
	}
	w, err := NewWitness(WitnessConfig{
		Origin: origin, LogKey: logKey(t), Name: fmt.Sprintf("witness%d.example", n), Key: seed(n), Save: save, Now: func() time.Time { return at },
	}, held)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// TestKeysAgree: the same keys in golang.org/x/mod, formats and torchwood.
func TestKeysAgree(t *testing.T) {
	k := logKey(t)
	theirs, err := xnote.NewEd25519VerifierKey(origin, public(seed(1)))
	if err != nil {
		t.Fatal(err)
	}
	if k.String() != theirs {
		t.Errorf("log key %s, x/mod says %s", k, theirs)
	}
	w := newWitness(t, 9, State{}, nil)
	v, err := torchwood.NewCosignatureVerifier(w.Key().String())
	if err != nil {
		t.Fatal(err)
	}
	if v.String() != w.Key().String() {
		t.Errorf("witness key %s, torchwood says %s", w.Key(), v)
	}
	if _, err := fnote.NewVerifierForCosignatureV1(w.Key().String()); err != nil {
		t.Errorf("formats refuses the witness key: %v", err)
	}
	for _, s := range []string{k.String(), w.Key().String()} {
		back, err := ParseVerifierKey(s)
		if err != nil || back.String() != s {
			t.Errorf("round trip of %s: %v", s, err)
		}
	}
	if c, err := k.COSE(); err != nil || !public(seed(1)).Equal(c.Public()) {
		t.Errorf("as a COSE key: %v", err)
	}
	if _, err := (VerifierKey{}).COSE(); err == nil {
		t.Error("no key has a COSE form")
	}
	for name, bad := range map[string]string{
		"empty": "", "no hash": origin + "+" + strings.Split(k.String(), "+")[2], "other hash": strings.Replace(k.String(), "+", "+0", 1),
		"capitals": strings.ToUpper(k.String()), "newline": k.String() + "\n", "long": strings.Repeat("a", 600) + k.String(),
		"ML-DSA": "w+00000000+" + "Bq" + strings.Repeat("A", 42), "space": strings.Replace(k.String(), "example", "exa mple", 1),
	} {
		if _, err := ParseVerifierKey(bad); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := NewLogKey("a+b", public(seed(1))); err == nil {
		t.Error("name with a plus: accepted")
	}
	if _, err := NewLogKey("a", nil); err == nil {
		t.Error("no key: accepted")
	}
}

// TestNotesAgree opens what they sign, and they what we sign.
func TestNotesAgree(t *testing.T) {
	skey, _, err := noteKeys(origin, seed(1))
	if err != nil {
		t.Fatal(err)
	}
	signer, err := xnote.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	c := checkpoint(7)
	theirs, err := xnote.Sign(&xnote.Note{Text: string(c.Text())}, signer)
	if err != nil {
		t.Fatal(err)
	}
	cosigner, err := torchwood.NewCosignatureSigner("witness8.example", seed(8))
	if err != nil {
		t.Fatal(err)
	}
	opened, err := xnote.Open(theirs, xnote.VerifierList(mustVerifier(t, logKey(t).String())))
	if err != nil {
		t.Fatal(err)
	}
	cosigned, err := xnote.Sign(opened, cosigner)
	if err != nil {
		t.Fatal(err)
	}
	w8, err := NewWitnessKey("witness8.example", public(seed(8)))
	if err != nil {
		t.Fatal(err)
	}
	got, sigs, err := Open(cosigned, Trust{Origin: origin, LogKey: logKey(t), Witnesses: []VerifierKey{w8}, Need: 1, Own: w8})
	if err != nil || *got != c || len(sigs) != 1 || time.Since(sigs[0].Time) > time.Hour {
		t.Fatalf("open: %+v, %+v, %v", got, sigs, err)
	}

	// Ours, opened by them.
	w := newWitness(t, 9, State{}, nil)
	raw := signed(t, c)
	if !bytes.Equal(raw, theirs) {
		t.Errorf("our note\n%s\ntheirs\n%s", raw, theirs)
	}
	line, err := w.Add(0, nil, raw)
	if err != nil {
		t.Fatal(err)
	}
	both := append(raw, line...)
	v, err := torchwood.NewCosignatureVerifier(w.Key().String())
	if err != nil {
		t.Fatal(err)
	}
	tc, n, err := torchwood.VerifyCheckpoint(both, torchwood.ThresholdPolicy(3, torchwood.OriginPolicy(origin),
		torchwood.SingleVerifierPolicy(mustVerifier(t, logKey(t).String())), torchwood.SingleVerifierPolicy(v)))
	if err != nil || tc.N != 7 || [32]byte(tc.Hash) != c.Root || len(n.Sigs) != 2 {
		t.Fatalf("torchwood: %+v, %v", tc, err)
	}
	fv, err := fnote.NewVerifierForCosignatureV1(w.Key().String())
	if err != nil {
		t.Fatal(err)
	}
	n, err = xnote.Open(both, xnote.VerifierList(fv))
	if err != nil {
		t.Fatal(err)
	}
	if ts, err := fnote.CoSigV1Timestamp(n.Sigs[0]); err != nil || !ts.Equal(at) {
		t.Errorf("time %s, %v", ts, err)
	}
}

func mustVerifier(t testing.TB, vkey string) xnote.Verifier {
	t.Helper()
	v, err := xnote.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// noteKeys writes the private key in the form that x/mod reads.
func noteKeys(name string, k ed25519.PrivateKey) (skey, vkey string, err error) {
	return xnote.GenerateKey(bytes.NewReader(k.Seed()), name)
}

func TestOpenRefuses(t *testing.T) {
	c := checkpoint(7)
	good := signed(t, c)
	w2, w3 := newWitness(t, 2, State{}, nil), newWitness(t, 3, State{}, nil)
	line := func(w *Witness, note []byte) []byte {
		l, err := w.Add(0, nil, note)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	l2, l3 := line(w2, good), line(w3, good)
	trust := Trust{Origin: origin, LogKey: logKey(t), Witnesses: []VerifierKey{w2.Key(), w3.Key()}}
	with := func(lines ...[]byte) []byte { return slices.Concat(append([][]byte{good}, lines...)...) }
	sign := func(text string) []byte {
		return slices.Concat([]byte(text), []byte("\n"), formatSignature(logKey(t), ed25519.Sign(seed(1), []byte(text))))
	}
	body := string(c.Text())
	forged := bytes.Clone(l2)
	forged[len(forged)-10] ^= 1

	if _, sigs, err := Open(with(l3, l2, l2), trust); err != nil || len(sigs) != 2 || sigs[0].Witness != w2.Key() {
		t.Fatalf("good: %+v, %v", sigs, err)
	}
	for name, b := range map[string][]byte{
		"nothing":         nil,
		"no signature":    []byte(body + "\n"),
		"other signature": slices.Concat([]byte(body), []byte("\n"), l2),
		"changed size":    bytes.Replace(good, []byte("\n7\n"), []byte("\n8\n"), 1),
		"forged line":     with(forged),
		"garbage line":    with([]byte("— x\n")),
		"no last newline": good[:len(good)-1],
		"control":         sign(strings.Replace(body, origin, origin+"\x07", 1)),
		"extension":       sign(body + "ext\n"),
		"leading zero":    sign(strings.Replace(body, "\n7\n", "\n07\n", 1)),
		"plus":            sign(strings.Replace(body, "\n7\n", "\n+7\n", 1)),
		"negative":        sign(strings.Replace(body, "\n7\n", "\n-7\n", 1)),
		"huge size":       sign(strings.Replace(body, "\n7\n", "\n9223372036854775808\n", 1)),
		"short root":      sign(origin + "\n7\nAAAA\n"),
		"empty log":       sign(strings.Replace(body, "\n7\n", "\n0\n", 1)),
		"too long":        append(bytes.Clone(good), bytes.Repeat(l2, 1000)...),
		"not UTF-8":       append([]byte{0xff}, good...),
	} {
		if got, _, err := Open(b, trust); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
	other := trust
	other.Origin = "example.org/other"
	if _, _, err := Open(good, other); !errors.Is(err, ErrOrigin) {
		t.Errorf("another log: %v", err)
	}
	other = trust
	other.LogKey = w2.Key()
	if _, _, err := Open(with(l2), other); !errors.Is(err, ErrSignature) {
		t.Errorf("a witness's key as the log's: %v", err)
	}
	other = trust
	other.Witnesses = append(slices.Clone(trust.Witnesses), w2.Key())
	if _, _, err := Open(with(l2), other); err == nil {
		t.Error("a witness counts twice")
	}
	other = trust
	other.Witnesses = []VerifierKey{logKey(t)}
	if _, _, err := Open(good, other); err == nil {
		t.Error("the log witnesses itself")
	}
	for name, c := range map[string]struct {
		need  int
		own   VerifierKey
		lines []byte
		ok    bool
	}{
		"none needed":    {0, VerifierKey{}, nil, true},
		"one of one":     {1, VerifierKey{}, l2, true},
		"one of two":     {2, VerifierKey{}, l2, false},
		"the same twice": {2, VerifierKey{}, slices.Concat(l2, l2), false},
		"own":            {1, w3.Key(), l3, true},
		"own is missing": {1, w3.Key(), l2, false},
		"own besides":    {0, newWitness(t, 4, State{}, nil).Key(), line(newWitness(t, 4, State{}, nil), good), true},
	} {
		tr := trust
		tr.Need, tr.Own = c.need, c.own
		got, _, err := Open(with(c.lines), tr)
		var few *WitnessError
		if (err == nil) != c.ok || err != nil && (!errors.As(err, &few) || got == nil) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWitness(t *testing.T) {
	var saved []State
	full := errors.New("disk is full")
	fail := false
	w := newWitness(t, 2, State{}, func(s State) error {
		if fail {
			return full
		}
		saved = append(saved, s)
		return nil
	})
	add := func(old, size int) ([]byte, error) {
		c := checkpoint(size)
		var proof []Digest
		if old > 0 && old < size {
			proof = digests(merkle.Consistency(leaves(size), old))
		}
		return w.Add(uint64(old), proof, signed(t, c))
	}
	must := func(old, size int) {
		t.Helper()
		line, err := add(old, size)
		if err != nil {
			t.Fatal(err)
		}
		note := append(signed(t, checkpoint(size)), line...)
		_, sigs, err := Open(note, Trust{Origin: origin, LogKey: logKey(t), Witnesses: []VerifierKey{w.Key()}, Need: 1})
		if err != nil || !sigs[0].Time.Equal(at) {
			t.Fatalf("cosigned %d: %v", size, err)
		}
	}
	must(0, 0)
	must(0, 3)
	must(3, 3)
	must(3, 7)
	if len(saved) != 3 || saved[2].Size != 7 || w.Held().Size != 7 {
		t.Errorf("saved %d states, holds %d", len(saved), w.Held().Size)
	}

	var held *HeldError
	if _, err := add(3, 8); !errors.As(err, &held) || held.Held != 7 {
		t.Errorf("from an old size: %v", err)
	}
	if _, err := add(0, 3); !errors.As(err, &held) {
		t.Errorf("an old checkpoint: %v", err)
	}
	if _, err := w.Add(8, nil, signed(t, checkpoint(7))); !errors.Is(err, ErrOldSize) {
		t.Errorf("old size above the new: %v", err)
	}
	if _, err := w.Add(7, make([]Digest, 64), signed(t, checkpoint(8))); !errors.Is(err, ErrOldSize) {
		t.Errorf("64 hashes: %v", err)
	}
	if _, err := w.Add(7, []Digest{{1}}, signed(t, checkpoint(8))); !errors.Is(err, merkle.ErrProof) {
		t.Errorf("wrong proof: %v", err)
	}
	other := checkpoint(8)
	other.Origin = "example.org/other"
	if _, err := w.Add(7, nil, signed(t, other)); !errors.Is(err, ErrOrigin) {
		t.Errorf("another log: %v", err)
	}
	unsigned := bytes.Clone(signed(t, checkpoint(8)))
	unsigned[len(unsigned)-5] ^= 1
	if _, err := w.Add(7, nil, unsigned); err == nil {
		t.Error("not signed by the log: cosigned")
	}

	// The same size with another root: caught, with both notes.
	forked := checkpoint(7)
	forked.Root = Digest{1}
	var fork *ForkError
	if _, err := w.Add(7, nil, signed(t, forked)); !errors.As(err, &fork) {
		t.Fatalf("fork: %v", err)
	}
	back, err := ParseForkProof(fork.Proof.Encode())
	if err != nil {
		t.Fatal(err)
	}
	a, b, err := back.Verify(origin, logKey(t))
	if err != nil || a.Root == b.Root || a.Size != 7 {
		t.Errorf("fork proof: %+v, %+v, %v", a, b, err)
	}
	if w.Held().Root != checkpoint(7).Root {
		t.Error("the fork replaced what was held")
	}

	// Nothing leaves that was not saved.
	fail = true
	if _, err := add(7, 9); !errors.Is(err, full) || w.Held().Size != 7 {
		t.Errorf("save failed: %v, holds %d", err, w.Held().Size)
	}
	fail = false
	must(7, 9)
	again := newWitness(t, 2, saved[len(saved)-1], nil)
	if again.Held().Size != 9 {
		t.Errorf("a restarted witness holds %d", again.Held().Size)
	}
	if _, err := again.Add(0, nil, signed(t, checkpoint(3))); !errors.As(err, &held) {
		t.Errorf("rolled back after a restart: %v", err)
	}
	if _, err := NewWitness(WitnessConfig{}, State{}); err == nil {
		t.Error("witness without a configuration")
	}
}

func TestForkProofRefuses(t *testing.T) {
	seven, eight := signed(t, checkpoint(7)), signed(t, checkpoint(8))
	fake := checkpoint(7)
	fake.Root = Digest{1}
	for name, p := range map[string]ForkProof{
		"the same":    {seven, seven},
		"other sizes": {seven, eight},
		"not signed":  {seven, []byte(string(fake.Text()) + "\n— x AAAAAAAA\n")},
		"empty":       {},
	} {
		if _, _, err := p.Verify(origin, logKey(t)); err == nil {
			t.Errorf("%s: proves a fork", name)
		}
	}
	for name, b := range map[string][]byte{"empty": nil, "text": []byte("fork"), "long": make([]byte, 3*MaxNote)} {
		if _, err := ParseForkProof(b); err == nil {
			t.Errorf("%s: parses", name)
		}
	}
}

func FuzzOpen(f *testing.F) {
	w := newWitness(f, 2, State{}, nil)
	note := signed(f, checkpoint(7))
	line, err := w.Add(0, nil, note)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append(note, line...))
	f.Add([]byte("x\n1\nAAAA\n\n— x AAAA\n"))
	trust := Trust{Origin: origin, LogKey: logKey(f), Witnesses: []VerifierKey{w.Key()}, Need: 1}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, sigs, err := Open(b, trust)
		if err == nil && (*c != checkpoint(7) || len(sigs) != 1) {
			t.Errorf("another checkpoint opens: %+v", c)
		}
	})
}

func FuzzParseVerifierKey(f *testing.F) {
	f.Add(logKey(f).String())
	f.Fuzz(func(t *testing.T, s string) {
		if k, err := ParseVerifierKey(s); err == nil && k.String() != s {
			t.Errorf("%q is %q", s, k)
		}
	})
}

func FuzzParseForkProof(f *testing.F) {
	f.Add(ForkProof{signed(f, checkpoint(7)), signed(f, checkpoint(8))}.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParseForkProof(b)
		if err != nil {
			return
		}
		if !bytes.Equal(p.Encode(), b) {
			t.Error("fork proof has two encodings")
		}
		if _, _, err := p.Verify(origin, logKey(t)); err == nil {
			t.Error("a fork that never was")
		}
	})
}

// bundleOf is an entry bundle of tlog-tiles.
func bundleOf(entries [][]byte) []byte {
	var b []byte
	for _, e := range entries {
		b = binary.BigEndian.AppendUint16(b, uint16(len(e)))
		b = append(b, e...)
	}
	return b
}
