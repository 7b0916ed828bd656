package tpm

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/asn1"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/eventlog"
	"github.com/concordat/concordat/attestation/tpm"
	"github.com/concordat/concordat/verifier/internal/check"
)

// quoted signs a quote of all PCRs, all zeros, by key with a scheme.
func quoted(t testing.TB, key crypto.Signer, scheme uint16, challenge string) *tpm.Evidence {
	t.Helper()
	runtime, err := tpm.MarshalRuntime(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	e := &tpm.Evidence{Runtime: runtime}
	h := sha256.New()
	var all []int
	for i := range tpm.NumPCRs {
		p := tpm.PCR{Index: uint64(i), Value: make([]byte, 32)}
		e.PCRs, all = append(e.PCRs, p), append(all, i)
		h.Write(p.Value)
	}
	e.Quote = (&tpm.Quote{ExtraData: []byte(challenge), Selections: []tpm.Selection{tpm.Select(all...)}, Digest: h.Sum(nil)}).Marshal()
	sign(t, e, key, scheme)
	return e
}

func sign(t testing.TB, e *tpm.Evidence, key crypto.Signer, scheme uint16) {
	t.Helper()
	sum := sha256.Sum256(e.Quote)
	var opts crypto.SignerOpts = crypto.SHA256
	if scheme == tpm.RSAPSS {
		opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
	}
	raw, err := key.Sign(rand.Reader, sum[:], opts)
	if err != nil {
		t.Fatal(err)
	}
	s := &tpm.Signature{Scheme: scheme, Hash: tpm.SHA256, RSA: raw}
	if scheme == tpm.ECDSA {
		var rs struct{ R, S *big.Int }
		if _, err := asn1.Unmarshal(raw, &rs); err != nil {
			t.Fatal(err)
		}
		s.R, s.S = rs.R.Bytes(), rs.S.Bytes()
	}
	e.Signature = s.Marshal()
}

func judged(e *tpm.Evidence, ends *attestation.Endorsements, challenge string) *check.Recorder {
	r := check.NewRecorder("tpm")
	rd := tpm.Binding(e.Runtime)
	Appraise(e.Encode(), ends, nil, nil, check.Expect{ReportData: []byte(challenge)}, &CPU{ReportData: rd[:], Authentic: true}, r)
	return r
}

func names(r *check.Recorder) string {
	var out []string
	for _, c := range r.Problems() {
		out = append(out, strings.TrimPrefix(c.Name, "tpm."))
	}
	return strings.Join(out, " ")
}

// TestSchemes signs by every accepted scheme, and says that a signature is of
// another than it is.
func TestSchemes(t *testing.T) {
	t.Parallel()
	rk, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ek, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for scheme, key := range map[uint16]crypto.Signer{tpm.RSASSA: rk, tpm.RSAPSS: rk, tpm.ECDSA: ek} {
		e := quoted(t, key, scheme, "c")
		if r := judged(e, nil, "c"); names(r) != "" || !r.IsAuthentic() {
			t.Errorf("%s: %s", schemes[scheme], names(r))
		}
		if r := judged(e, nil, "d"); names(r) != "nonce" || !r.IsAuthentic() {
			t.Errorf("%s, another challenge: %s", schemes[scheme], names(r))
		}
		// Every bit of quote and signature counts.
		for _, part := range []*[]byte{&e.Quote, &e.Signature} {
			good := *part
			for i := range len(good) * 8 {
				b := slices.Clone(good)
				b[i/8] ^= 1 << (i % 8)
				*part = b
				if r := judged(e, nil, "c"); names(r) == "" || r.IsAuthentic() {
					t.Fatalf("%s: bit %d of %d bytes does not count", schemes[scheme], i, len(good))
				}
			}
			*part = good
		}
	}
	e := quoted(t, rk, tpm.RSAPSS, "c")
	e.Signature[1] = byte(tpm.RSASSA)
	if r := judged(e, nil, "c"); names(r) != "signature" {
		t.Errorf("PSS as PKCS #1 1.5: %s", names(r))
	}
	e = quoted(t, ek, tpm.ECDSA, "c")
	e.Runtime = quoted(t, rk, tpm.RSASSA, "c").Runtime
	if r := judged(e, nil, "c"); names(r) != "signature-algorithm" {
		t.Errorf("ECDSA by an RSA key: %s", names(r))
	}
}

// TestBinding gives every CPU that does not vouch for the key.
func TestBinding(t *testing.T) {
	t.Parallel()
	ek, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	e := quoted(t, ek, tpm.ECDSA, "c")
	rd := tpm.Binding(e.Runtime)
	tail := rd
	tail[63] = 1
	for name, cpu := range map[string]*CPU{
		"none":                {},
		"a quote alone":       nil,
		"not genuine":         {ReportData: rd[:]},
		"of other data":       {ReportData: make([]byte, 64), Authentic: true},
		"more than the hash":  {ReportData: tail[:], Authentic: true},
		"the hash and no end": {ReportData: rd[:32], Authentic: true},
	} {
		r := check.NewRecorder("tpm")
		Appraise(e.Encode(), nil, nil, nil, check.Expect{ReportData: []byte("c")}, cpu, r)
		if names(r) != "ak-binding" || r.IsAuthentic() || check.Summary(r.Checks()) != check.Fail {
			t.Errorf("%s: %s", name, names(r))
		}
	}
}

// TestLogAlone judges a log that came without a policy.
func TestLogAlone(t *testing.T) {
	t.Parallel()
	ek, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	e := quoted(t, ek, tpm.ECDSA, "c")
	l := eventlog.New(eventlog.SHA256)
	l.Extend(4, eventlog.Separator, make([]byte, 4))
	h := sha256.New()
	for i := range e.PCRs {
		if i == 4 {
			if e.PCRs[i].Value, err = l.Replay(eventlog.SHA256, 4); err != nil {
				t.Fatal(err)
			}
		}
		h.Write(e.PCRs[i].Value)
	}
	q, err := tpm.ParseQuote(e.Quote)
	if err != nil {
		t.Fatal(err)
	}
	q.Digest = h.Sum(nil)
	e.Quote = q.Marshal()
	sign(t, e, ek, tpm.ECDSA)
	for want, log := range map[string]*eventlog.Log{"": l, "event-log": eventlog.New(eventlog.SHA256)} {
		ends, err := attestation.NewEndorsements(attestation.Endorsement{Type: attestation.TypeEventLog, Data: log.Marshal()})
		if err != nil {
			t.Fatal(err)
		}
		if r := judged(e, ends, "c"); names(r) != want {
			t.Errorf("want %q, got %q", want, names(r))
		}
	}
}

// TestVector flips every bit of the genuine quote, its signature and its PCRs.
func TestVector(t *testing.T) {
	t.Parallel()
	dir := os.Getenv("CONCORDAT_VECTORS")
	if dir == "" {
		t.Skip("CONCORDAT_VECTORS is not set: the quote of a genuine machine was not tested")
	}
	b, err := os.ReadFile(filepath.Join(dir, "tpm", "azure-snp-vtpm-evidence.json"))
	if err != nil {
		t.Fatal(err)
	}
	a, err := tpm.ParseAzure(b)
	if err != nil {
		t.Fatal(err)
	}
	e := a.Evidence
	if r := judged(e, nil, "challenge"); names(r) != "" || !r.IsAuthentic() {
		t.Fatal(names(r))
	}
	flip := func(what string, part []byte, want ...string) {
		for i := range len(part) * 8 {
			part[i/8] ^= 1 << (i % 8)
			if got := names(judged(e, nil, "challenge")); !slices.Contains(want, got) {
				t.Errorf("bit %d of %s: %q", i, what, got)
			}
			part[i/8] ^= 1 << (i % 8)
		}
	}
	flip("magic", e.Quote[:4], "magic")
	flip("type", e.Quote[4:6], "type")
	flip("name", e.Quote[8:42], "signature")
	flip("challenge", e.Quote[44:53], "signature nonce")
	flip("PCR digest", e.Quote[len(e.Quote)-32:], "signature pcr-digest")
	flip("signature", e.Signature[6:], "signature")
	for i := range e.PCRs {
		flip("a PCR", e.PCRs[i].Value[:4], "pcr-digest")
	}
}

func FuzzAppraise(f *testing.F) {
	ek, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(quoted(f, ek, tpm.ECDSA, "c").Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		r := check.NewRecorder("tpm")
		Appraise(b, nil, nil, nil, check.Expect{}, nil, r)
		if r.IsAuthentic() || check.Summary(r.Checks()) != check.Fail {
			t.Error("a quote alone does not fail")
		}
	})
}

func BenchmarkAppraise(b *testing.B) {
	rk, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		b.Fatal(err)
	}
	e := quoted(b, rk, tpm.RSASSA, "c")
	b.ReportAllocs()
	for b.Loop() {
		if r := judged(e, nil, "c"); !r.IsAuthentic() {
			b.Fatal(names(r))
		}
	}
}
