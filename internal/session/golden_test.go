package session

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/cryptotest"

	"github.com/concordat/concordat/internal/cose"
)

var update = flag.Bool("update", false, "write the golden files")

const transcriptFile = "transcript.txt"

// line is a named value of the transcript.
type line struct {
	name  string
	value []byte
}

// transcript makes one whole join from fixed randomness: secrets first, then the
// frames in the order of the wire, then what follows from them.
func transcript(t *testing.T) []line {
	t.Helper()
	w := theWorld() // made before the randomness is fixed
	key := edKey("node of the transcript")
	enclaveKey()
	cryptotest.SetGlobalRandom(t, 1)
	p := &party{key, w.credential(t, "a", key.Public(), now.AddDate(0, 0, 1))}
	x := &exchange{world: w, party: p, challenge: w.challenge(t, p)}
	win, err := NewWindow(w.policy.FederationID(), enclaveKey(), now)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := win.Add(x.challenge.Hello()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := win.Add(w.challenge(t, w.node(t, "b", "other node of the transcript")).Hello()); err != nil {
		t.Fatal(err)
	}
	claims := w.claims(win).Encode()
	if err := win.Offers(claims, w.envelope(t, claims), logProof, func(_ Digest, offer []byte) error {
		if x.offerRaw == nil {
			x.offerRaw = offer
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	x.window = win
	x.sendJoin(t)
	th2 := x.joining.th2
	window, err := win.private.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	ephemeral, err := x.joining.ephemeral.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	r, _, _ := x.tap(t)
	var af acceptFrame
	if err := parseFrame(r.accept, FrameAccept, &af); err != nil {
		t.Fatal(err)
	}
	th1 := transcript1(r.hello, x.offer.Claims, x.offer.Envelope)
	th3 := transcript3(th2, af.Enc2)
	var first recordFrame
	if err := parseFrame(r.records[0], FrameRecord, &first); err != nil {
		t.Fatal(err)
	}
	return []line{
		{"window-private", window}, {"ephemeral-private", ephemeral},
		{"hello", r.hello}, {"offer", r.offer}, {"join", r.join}, {"accept", r.accept},
		{"confirm", r.records[0]}, {"record-n2e-1", r.records[1]}, {"record-e2n-1", r.answers[0]},
		{"th1", th1[:]}, {"th2", th2[:]}, {"th3", th3[:]}, {"sid", first.SID},
	}
}

// TestGoldenTranscript freezes every byte of a join: fixed randomness makes the
// same frames.
func TestGoldenTranscript(t *testing.T) {
	var b strings.Builder
	b.WriteString("# One join of a simulated federation, in hex. The keys are worthless elsewhere.\n")
	for _, l := range transcript(t) {
		fmt.Fprintf(&b, "%s %x\n", l.name, l.value)
	}
	file := filepath.Join("testdata", transcriptFile)
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got, wanted := strings.Split(b.String(), "\n"), strings.Split(string(want), "\n")
	if len(got) != len(wanted) {
		t.Fatalf("%d lines, want %d", len(got), len(wanted))
	}
	for i := range got {
		if got[i] != wanted[i] {
			t.Errorf("line %d is %.120s…\nwant %.120s…", i+1, got[i], wanted[i])
		}
	}
}

// TestGoldenReplay opens the recorded join with nothing but its two private keys and
// the text of docs/protocol.md, part 2: an independent reading of the same
// bytes, and the test vector for other implementations.
func TestGoldenReplay(t *testing.T) {
	t.Parallel()
	g := map[string][]byte{}
	file, err := os.ReadFile(filepath.Join("testdata", transcriptFile))
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(file)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(l), " "); ok && name != "#" {
			if g[name], err = hex.DecodeString(value); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
	const p = "concordat/join/1/"
	same := func(name string, got []byte) {
		t.Helper()
		if !bytes.Equal(got, g[name]) {
			t.Errorf("%s is %x, want %x", name, got, g[name])
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	suite := hpke.MLKEM768X25519()
	windowKey, err := suite.NewPrivateKey(g["window-private"])
	must(err)
	ephemeral, err := suite.NewPrivateKey(g["ephemeral-private"])
	must(err)

	var hello struct {
		_                       struct{} `cbor:",toarray"`
		P                       string
		Federation, Node, Nonce []byte
	}
	must(cose.Unmarshal(g["hello"], &hello))
	if hello.P != p+"hello" || len(hello.Federation) != 32 || len(hello.Node) != 32 || len(hello.Nonce) != 32 {
		t.Errorf("hello %+v", hello)
	}
	var offer struct {
		_                struct{} `cbor:",toarray"`
		P                string
		Claims, Evidence []byte
		Index            uint64
		Path             [][]byte
		LogProof         cose.Raw
	}
	must(cose.Unmarshal(g["offer"], &offer))
	if offer.P != p+"offer" || offer.Index != 0 || len(offer.Path) != 1 {
		t.Errorf("offer %q, leaf %d, path of %d", offer.P, offer.Index, len(offer.Path))
	}
	evidence := sha256.Sum256(offer.Evidence)
	th1 := cose.Hash(p+"th1", g["hello"], offer.Claims, evidence[:])
	same("th1", th1[:])

	var join struct {
		_                struct{} `cbor:",toarray"`
		P                string
		TH1, Enc, Sealed []byte
	}
	must(cose.Unmarshal(g["join"], &join))
	same("th1", join.TH1)
	r, err := hpke.NewRecipient(join.Enc, windowKey, hpke.HKDFSHA256(), hpke.AES256GCM(), append([]byte(p+"n2e\x00"), th1[:]...))
	must(err)
	plain, err := r.Open(th1[:], join.Sealed)
	must(err)
	var body struct {
		_                                       struct{} `cbor:",toarray"`
		Credential, Ephemeral, Heads, Signature []byte
	}
	must(cose.Unmarshal(plain, &body))
	if join.P != p+"join" || !bytes.Equal(body.Ephemeral, ephemeral.PublicKey().Bytes()) || !bytes.Equal(body.Heads, nodeHeads.Encode()) {
		t.Error("the join holds something else")
	}
	cred, member, err := theWorld().policy.VerifyCredential(body.Credential, now)
	must(err)
	if id := cred.NodeKey.ID(); member != "a" || !bytes.Equal(id[:], hello.Node) {
		t.Errorf("credential of %s for node %s", member, id)
	}
	signed := cose.Hash(p+"sig", th1[:], join.Enc, body.Credential, body.Ephemeral, body.Heads)
	must(cred.NodeKey.VerifyRaw(signed[:], body.Signature))

	th2 := cose.Hash(p+"th2", th1[:], g["join"])
	same("th2", th2[:])
	var accept struct {
		_            struct{} `cbor:",toarray"`
		P            string
		Enc2, Sealed []byte
	}
	must(cose.Unmarshal(g["accept"], &accept))
	r2, err := hpke.NewRecipient(accept.Enc2, ephemeral, hpke.HKDFSHA256(), hpke.AES256GCM(), append([]byte(p+"e2n\x00"), th2[:]...))
	must(err)
	th3 := cose.Hash(p+"th3", th2[:], accept.Enc2)
	same("th3", th3[:])
	ss1, err := r.Export(p+"ss", 32)
	must(err)
	ss2, err := r2.Export(p+"ss", 32)
	must(err)
	prk, err := hkdf.Extract(sha256.New, append(ss1, ss2...), th3[:])
	must(err)
	k := func(x string) []byte {
		b, err := hkdf.Expand(sha256.New, prk, p+"key/"+x, 32)
		must(err)
		return b
	}
	same("sid", k("sid")[:16])
	open := func(key, sealed []byte, ctr byte) []byte {
		t.Helper()
		nonce := append(make([]byte, 11), ctr)
		plain, err := gcm(t, key).Open(nil, nonce, sealed, th3[:])
		must(err)
		return plain
	}
	var answer struct {
		_                     struct{} `cbor:",toarray"`
		SID, Heads, Signature []byte
	}
	must(cose.Unmarshal(open(k("e2n"), accept.Sealed, 0), &answer))
	same("sid", answer.SID)
	signedE := cose.Hash(p+"sigE", th3[:])
	must(enclaveKey().Public().VerifyRaw(signedE[:], answer.Signature))
	if accept.P != p+"accept" || !bytes.Equal(answer.Heads, enclaveHeads.Encode()) {
		t.Error("the accept holds something else")
	}
	for _, rec := range []struct {
		name, key string
		ctr       byte
		want      string
	}{{"confirm", "n2e", 0, p + "confirm"}, {"record-n2e-1", "n2e", 1, "a secret"}, {"record-e2n-1", "e2n", 1, "a secret"}} {
		var f struct {
			_       struct{} `cbor:",toarray"`
			P       string
			SID     []byte
			Counter uint64
			Sealed  []byte
		}
		must(cose.Unmarshal(g[rec.name], &f))
		same("sid", f.SID)
		if got := open(k(rec.key), f.Sealed, rec.ctr); string(got) != rec.want || f.Counter != uint64(rec.ctr) || f.P != p+"record" {
			t.Errorf("%s holds %q at %d", rec.name, got, f.Counter)
		}
	}
}
