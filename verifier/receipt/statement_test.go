package receipt

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/concordat/concordat/internal/cose"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Fixed keys: test data, and nothing else.
func nodeKey(t testing.TB, n byte) *cose.Signer {
	t.Helper()
	k, err := cose.NewSigner(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func enclaveKey(t testing.TB, n byte) *cose.Signer {
	t.Helper()
	priv, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), bytes.Repeat([]byte{n}, 32))
	if err != nil {
		t.Fatal(err)
	}
	k, err := cose.NewSigner(priv)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var (
	federation = Digest{0xfe}
	policyHead = Digest{0x70}
	instance   = ID{0x1a}
)

// samples returns one statement of every kind, unsigned.
func samples(t testing.TB) []*Statement {
	node := NodeIssuer(nodeKey(t, 1).Public().ID())
	d := func(n byte) Digest { return Digest{n, n} }
	bodies := []any{
		&Evidence{Claims: []byte("claims"), Envelope: d(1), Endorsements: []Digest{d(2), d(3)}},
		&RunRequest{App: d(1), Config: d(2), Strategy: "fedavg", Rounds: 3, ResultsTo: "hospital-a", NotAfter: 1790000000, Nonce: [32]byte{4}},
		&Run{
			Request: d(1), Requester: d(2), App: d(3), Config: d(4), Strategy: "fedavg", Class: ClassMixing, Exposure: "aggregate", Rounds: 3,
			Cohort: d(5), Nodes: 3, Members: 3, DownlinkCommit: d(6), Generation: 1, Frozen: []string{"a", "b"}, Dropouts: "refuse",
			Numeric: "f32/f64/tree/rne", Evidence: d(7), RunID: 1 << 63,
		},
		&Contribution{Seq: 1, Step: d(1), Manifest: d(2), ChunkRoot: d(3), Count: 4},
		&Step{
			Seq: 2, Prev: d(1), Attempt: 1, Opens: OpensEvaluate, Round: 1, InputsRoot: d(2), InputsCount: 2, Members: 2, ExcludedRoot: d(3), ExcludedCount: 1,
			ExcludedCodes: ExcludedCounts{Late: 1}, OutputsRoot: d(4), OutputsCount: 5, Cohort: d(5), Nodes: 3, App: d(6), Evidence: d(7),
			Numeric: "f32/f64/tree/rne", EpsilonMicro: 8, Generation: 1, DownlinkCommit: d(9),
		},
		&Ack{Seq: 2, Attempt: 1, Step: d(1), Instance: instance, Checkpoint: Checkpoint{Size: 9, Root: d(2)}, Denials: d(3)},
		&Release{Seq: 2, Attempt: 1, Step: d(1), AcksRoot: d(2), AcksCount: 2},
		&End{Seq: 2, Step: d(1), Outcome: Failed, Code: "ack_late"},
		&Refusal{Subject: d(1), Code: "policy"},
	}
	var out []*Statement
	for _, b := range bodies {
		s := &Statement{Kind: b.(body).kind(), Federation: federation, Seq: 7, Prev: d(8), Policy: policyHead, Issuer: EnclaveIssuer(instance), Body: b}
		if kinds[s.Kind].byNode {
			s.Issuer = node
		}
		if kinds[s.Kind].inRun {
			s.Run = d(9)
		}
		out = append(out, s)
	}
	return out
}

func signerOf(t testing.TB, s *Statement) *cose.Signer {
	if _, ok := s.Node(); ok {
		return nodeKey(t, 1)
	}
	return enclaveKey(t, 2)
}

// TestGoldenStatements pins the bytes of every kind. ES256 signatures are
// randomised, so an enclave's message is pinned as it was signed once: it must
// verify for ever, and its payload must be what is encoded today.
func TestGoldenStatements(t *testing.T) {
	list := samples(t)
	names := make([]string, len(list))
	for i, s := range list {
		names[i] = string(s.Kind)
		if b, ok := s.Body.(*Step); ok { // with the field that is left out there
			sampled, body := *s, *b
			body.ExcludedCodes, body.Unasked = ExcludedCounts{}, 1
			sampled.Body = &body
			list, names = append(list, &sampled), append(names, names[i]+"-unasked")
		}
	}
	for i, s := range list {
		t.Run(names[i], func(t *testing.T) {
			k := signerOf(t, s)
			raw, err := Sign(s, k)
			if err != nil {
				t.Fatal(err)
			}
			golden := goldenFile(t, "statement-"+names[i]+".cbor", raw)
			u, err := Parse(golden)
			if err != nil {
				t.Fatal(err)
			}
			old, err := u.Verify(k.Public())
			if err != nil {
				t.Fatal(err)
			}
			sig := 64 // the rest is deterministic
			if !bytes.Equal(golden[:len(golden)-sig], raw[:len(raw)-sig]) {
				t.Errorf("encoding changed:\n%x\n%x", golden, raw)
			}
			if old.Kind != s.Kind || old.Seq != s.Seq || old.Prev != s.Prev || old.Run != s.Run || old.Issuer != s.Issuer || fmt.Sprint(old.Body) != fmt.Sprint(s.Body) {
				t.Errorf("read %+v, want %+v", old, s)
			}
			if old.Digest() != cose.Sum(golden) || u.Digest() != old.Digest() {
				t.Error("digest is not that of the bytes")
			}
		})
	}
}

func goldenFile(t testing.TB, name string, b []byte) []byte {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return golden
}

// TestTampered changes every single bit of every kind, and every value within the
// payload: nothing verifies any more.
func TestTampered(t *testing.T) {
	for _, s := range samples(t) {
		t.Run(string(s.Kind), func(t *testing.T) {
			t.Parallel()
			k := signerOf(t, s)
			raw, err := Sign(s, k)
			if err != nil {
				t.Fatal(err)
			}
			for i := range raw {
				bad := bytes.Clone(raw)
				bad[i] ^= 1 << (i % 8)
				if u, err := Parse(bad); err == nil {
					if _, err := u.Verify(k.Public()); err == nil {
						t.Fatalf("byte %d changed: verifies", i)
					}
				}
			}
			for _, n := range []int{0, 1, len(raw) / 2, len(raw) - 1} {
				if _, err := Parse(raw[:n]); err == nil {
					t.Errorf("cut to %d bytes: parses", n)
				}
			}
			if _, err := Parse(append(bytes.Clone(raw), 0)); err == nil {
				t.Error("trailing byte: parses")
			}
			tamperFields(t, raw, k)
		})
	}
}

// TestSignRefuses is what no issuer can say.
func TestSignRefuses(t *testing.T) {
	for name, change := range map[string]func(*Statement){
		"no federation":        func(s *Statement) { s.Federation = Digest{} },
		"no policy":            func(s *Statement) { s.Policy = Digest{} },
		"number 0":             func(s *Statement) { s.Seq = 0 },
		"no predecessor":       func(s *Statement) { s.Prev = Digest{} },
		"run where none is":    func(s *Statement) { s.Run = Digest{1} },
		"body of another kind": func(s *Statement) { s.Body = &Step{} },
		"no body":              func(s *Statement) { s.Body = nil },
		"unknown kind":         func(s *Statement) { s.Kind = "advert" },
		"issuer of a node":     func(s *Statement) { s.Issuer = NodeIssuer(Digest{1}) },
		"issuer in capitals":   func(s *Statement) { s.Issuer = strings.ToUpper(s.Issuer) },
		"issuer of zeros":      func(s *Statement) { s.Issuer = EnclaveIssuer(ID{}) },
		"issuer with more":     func(s *Statement) { s.Issuer += "00" },
		"text for a code":      func(s *Statement) { s.Body.(*Refusal).Code = "loss was 0.3" },
	} {
		s := samples(t)[8]
		change(s)
		if _, err := Sign(s, enclaveKey(t, 2)); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
	for name, change := range map[string]func(*Run){
		"frozen arrays of a ServerApp": func(b *Run) { b.Class = ClassCustom },
		"frozen arrays out of order":   func(b *Run) { b.Frozen = []string{"b", "a"} },
		"a frozen array twice":         func(b *Run) { b.Frozen = []string{"a", "a"} },
		"a frozen array without name":  func(b *Run) { b.Frozen = []string{""} },
		"a long name":                  func(b *Run) { b.Frozen = []string{strings.Repeat("x", 257)} },
	} {
		s := samples(t)[2]
		change(s.Body.(*Run))
		if _, err := Sign(s, enclaveKey(t, 2)); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
	ack := samples(t)[5]
	if _, err := Sign(ack, nodeKey(t, 9)); !errors.Is(err, cose.ErrSignature) {
		t.Errorf("a node signs for another: %v", err)
	}
	first := samples(t)[5]
	first.Seq = 1
	if _, err := Sign(first, nodeKey(t, 1)); err == nil {
		t.Error("first statement of a node with a predecessor: signed")
	}
}

// TestKeyIsNotInStatement: who holds another key, however named, is not the issuer.
func TestKeyIsNotInStatement(t *testing.T) {
	s := samples(t)[4]
	raw, err := Sign(s, enclaveKey(t, 3))
	if err != nil {
		t.Fatal(err)
	}
	u, err := Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.Verify(enclaveKey(t, 2).Public()); !errors.Is(err, cose.ErrSignature) {
		t.Errorf("verified by another key: %v", err)
	}
	if u.Claims() != nil || !u.Envelope().IsZero() || u.Endorsements() != nil {
		t.Error("a step shows a body before it was verified")
	}
}

func TestChain(t *testing.T) {
	k := enclaveKey(t, 2)
	c := NewChain(Digest{5})
	var last *Statement
	for i := range 3 {
		s := samples(t)[8]
		s.Seq, s.Prev = c.Next()
		if _, err := Sign(s, k); err != nil {
			t.Fatal(err)
		}
		if s.Seq != uint64(i+1) {
			t.Fatalf("number %d", s.Seq)
		}
		if err := c.Extend(s); err != nil {
			t.Fatal(err)
		}
		if err := c.Extend(s); !errors.Is(err, ErrChain) {
			t.Errorf("twice: %v", err)
		}
		last = s
	}
	if seq, prev := ResumeChain(3, last.Digest()).Next(); seq != 4 || prev != last.Digest() {
		t.Errorf("resumed at %d, %s", seq, prev)
	}
}

func TestCohort(t *testing.T) {
	list := []Participant{{Member: "b", Node: Digest{1}}, {Member: "a", Node: Digest{3}}, {Member: "a", Node: Digest{2}}}
	c, err := NewCohort(list)
	if err != nil {
		t.Fatal(err)
	}
	if c.Members() != 2 || c[0].Node != (Digest{2}) || c[2].Member != "b" {
		t.Errorf("cohort %v", c)
	}
	back, err := ParseCohort(c.Encode())
	if err != nil || back.Digest() != c.Digest() {
		t.Errorf("round trip: %v", err)
	}
	if m, ok := c.Member(Digest{1}); !ok || m != "b" {
		t.Errorf("member %q", m)
	}
	if _, ok := c.Member(Digest{9}); ok {
		t.Error("stranger takes part")
	}
	if got := goldenFile(t, "cohort.cbor", c.Encode()); !bytes.Equal(got, c.Encode()) {
		t.Errorf("encoding changed: %x", c.Encode())
	}
	for name, bad := range map[string]Cohort{
		"empty":      {},
		"unsorted":   {c[1], c[0]},
		"node twice": {{Member: "a", Node: Digest{1}}, {Member: "b", Node: Digest{1}}},
		"no node":    {{Member: "a"}},
		"no member":  {{Node: Digest{1}}},
		"text":       {{Member: "Dr. A\n", Node: Digest{1}}},
	} {
		if _, err := ParseCohort(bad.Encode()); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestExcluded(t *testing.T) {
	e := Excluded{{Node: Digest{2}, Code: ClippedOut}, {Node: Digest{1}, Code: Late}, {Node: Digest{3}, Code: Unasked}}
	e.Sort()
	back, err := ParseExcluded(e.Encode())
	if counts, unasked := back.Counts(); err != nil || back.Root() != e.Root() || counts != (ExcludedCounts{Late: 1, ClippedOut: 1}) || unasked != 1 {
		t.Errorf("round trip: %v, %v", back, err)
	}
	e[0].Code = Invalid
	if e.Root() == back.Root() {
		t.Error("the reason is not under the root")
	}
	if !(Excluded{}).Root().IsZero() {
		t.Error("root of nobody is not none")
	}
	for name, bad := range map[string]Excluded{
		"unsorted": {{Node: Digest{2}, Code: Late}, {Node: Digest{1}, Code: Late}},
		"no node":  {{Code: Late}},
		"code 0":   {{Node: Digest{1}}},
		"code 6":   {{Node: Digest{1}, Code: 6}},
	} {
		if _, err := ParseExcluded(bad.Encode()); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range samples(f) {
		raw, err := Sign(s, signerOf(f, s))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		u, err := Parse(b)
		if err != nil {
			return
		}
		if u.Digest() != cose.Sum(b) {
			t.Error("digest is not that of the bytes")
		}
		if err := u.s.check(); err != nil {
			t.Errorf("parsed what may not be signed: %v", err)
		}
	})
}

func FuzzLists(f *testing.F) {
	c, _ := NewCohort([]Participant{{Member: "a", Node: Digest{1}}})
	f.Add(c.Encode())
	f.Add(Excluded{{Node: Digest{1}, Code: Late}}.Encode())
	f.Add(EncodeList([][]byte{{1}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := ParseCohort(b); err == nil && !bytes.Equal(c.Encode(), b) {
			t.Error("cohort has two encodings")
		}
		if e, err := ParseExcluded(b); err == nil && !bytes.Equal(e.Encode(), b) {
			t.Error("excluded list has two encodings")
		}
		if l, err := ParseList(b); err == nil && !bytes.Equal(EncodeList(l), b) {
			t.Error("list has two encodings")
		}
	})
}
