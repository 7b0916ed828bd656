package attestation

import (
	"bytes"
	"testing"
)

func TestEvidenceRoundTrip(t *testing.T) {
	e := testEvidence(t)
	got, err := ParseEvidence(e.Encode())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Encode(), e.Encode()) || got.Digest() != e.Digest() || len(got.Items) != 2 {
		t.Errorf("got %+v", got)
	}
}

func TestEvidenceLimits(t *testing.T) {
	for name, spoil := range map[string]func(*Evidence){
		"no claims":    func(e *Evidence) { e.Claims = nil },
		"large claims": func(e *Evidence) { e.Claims = make([]byte, MaxClaims+1) },
		"no items":     func(e *Evidence) { e.Items = nil },
		"empty item":   func(e *Evidence) { e.Items[0].Raw = nil },
		"large CPU":    func(e *Evidence) { e.Items[0].Raw = make([]byte, MaxCPUItem+1) },
		"large GPU":    func(e *Evidence) { e.Items[1].Raw = make([]byte, MaxGPUItem+1) },
		"unknown kind": func(e *Evidence) { e.Items[0].Kind = "sgx" },
		"many refs":    func(e *Evidence) { e.Items[0].Endorsements = make([]Digest, maxRefs+1) },
		"ref none":     func(e *Evidence) { e.Items[0].Endorsements[1] = Digest{} },
		"many items":   func(e *Evidence) { e.Items = append(e.Items, make([]Item, MaxItems)...) },
		"large in all": func(e *Evidence) {
			for range MaxItems - 2 {
				e.Items = append(e.Items, Item{Kind: KindSNP, Raw: make([]byte, MaxCPUItem)})
			}
		},
	} {
		e := testEvidence(t)
		spoil(e)
		if _, err := ParseEvidence(e.Encode()); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	// The limits themselves are allowed.
	e := testEvidence(t)
	e.Items[0].Raw, e.Items[1].Raw = make([]byte, MaxCPUItem), make([]byte, MaxGPUItem)
	if _, err := ParseEvidence(e.Encode()); err != nil {
		t.Error(err)
	}
}

func TestGPUDigest(t *testing.T) {
	gpu := func(raw string) Item { return Item{Kind: KindGPU, Raw: []byte(raw)} }
	cpu := Item{Kind: KindSNP, Raw: []byte("cpu")}
	if !GPUDigest([]Item{cpu}).IsZero() {
		t.Error("digest without a GPU")
	}
	ab := GPUDigest([]Item{gpu("a"), gpu("b")})
	if ab != GPUDigest([]Item{cpu, gpu("a"), gpu("b")}) {
		t.Error("CPU item counts")
	}
	for name, items := range map[string][]Item{
		"order": {gpu("b"), gpu("a")}, "boundary": {gpu("ab")}, "fewer": {gpu("a")},
		"more": {gpu("a"), gpu("b"), gpu("")},
	} {
		if GPUDigest(items) == ab {
			t.Errorf("%s does not count", name)
		}
	}
}

func TestEndorsements(t *testing.T) {
	s := testEndorsements(t)
	got, err := ParseEndorsements(s.Encode())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Encode(), s.Encode()) || got.Len() != 3 {
		t.Errorf("got %+v", got)
	}
	// The order of adding does not matter, and nothing is there twice.
	again, err := NewEndorsements(s.list[2].Endorsement, s.list[0].Endorsement, s.list[1].Endorsement, s.list[0].Endorsement)
	if err != nil || !bytes.Equal(again.Encode(), s.Encode()) {
		t.Errorf("another order: %v", err)
	}
	b, c := Endorsement{Type: TypeAMDCRL, Data: []byte("b")}, Endorsement{Type: TypeAMDCRL, Data: []byte("c")}
	for _, refs := range [][]Digest{{b.Digest(), c.Digest()}, {c.Digest(), b.Digest()}, {c.Digest(), fill(1), c.Digest()}} {
		first := b
		if refs[0] == c.Digest() {
			first = c
		}
		l := s.ByType(TypeAMDCRL, refs)
		if len(l) != 2 || !bytes.Equal(l[0], first.Data) {
			t.Errorf("named %s: %q", refs[0].Short(), l)
		}
	}
	if e, ok := s.Get(b.Digest()); !ok || e.Type != b.Type || !bytes.Equal(e.Data, b.Data) {
		t.Errorf("Get: %v %v", e, ok)
	}
	if _, ok := s.Get(fill(3)); ok {
		t.Error("found what is not there")
	}
	var none *Endorsements
	if none.Len() != 0 || none.ByType(TypeAMDCRL, nil) != nil || !bytes.Equal(none.Encode(), new(Endorsements).Encode()) {
		t.Error("nil is not the empty set")
	}
}

func TestEndorsementLimits(t *testing.T) {
	for name, e := range map[string]Endorsement{
		"type":  {Type: "x509", Data: []byte("a")},
		"empty": {Type: TypeAMDCRL},
		"large": {Type: TypeAMDCRL, Data: make([]byte, MaxEndorsement+1)},
		"log":   {Type: TypeEventLog, Data: make([]byte, MaxEventLog+1)},
	} {
		if _, err := NewEndorsements(e); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	// An event log may be larger than a vendor's document.
	log := Endorsement{Type: TypeEventLog, Data: make([]byte, MaxEventLog)}
	if got, err := ParseEndorsement(log.Encode()); err != nil || len(got.Data) != MaxEventLog {
		t.Errorf("largest event log: %v", err)
	}
	s := new(Endorsements)
	for i := range MaxEndorsements {
		if _, err := s.Add(Endorsement{Type: TypeAMDCRL, Data: []byte{1, byte(i)}}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Add(Endorsement{Type: TypeAMDCRL, Data: []byte("more")}); err == nil {
		t.Error("too many documents accepted")
	}
	s = new(Endorsements)
	for i := range MaxEndorsementBytes / MaxEndorsement {
		if _, err := s.Add(Endorsement{Type: TypeAMDCRL, Data: bytes.Repeat([]byte{byte(i)}, MaxEndorsement)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ParseEndorsements(s.Encode()); err != nil {
		t.Error("a full set does not parse:", err)
	}
	if _, err := s.Add(Endorsement{Type: TypeAMDCRL, Data: []byte("more")}); err == nil {
		t.Error("too many bytes accepted")
	}
}

// TestEndorsementOrder swaps two documents: a set has one encoding.
func TestEndorsementOrder(t *testing.T) {
	s := testEndorsements(t)
	s.list[0], s.list[1] = s.list[1], s.list[0]
	if _, err := ParseEndorsements(s.Encode()); err == nil {
		t.Error("another order accepted")
	}
	s.list[1] = s.list[0]
	if _, err := ParseEndorsements(s.Encode()); err == nil {
		t.Error("a document twice accepted")
	}
}

func FuzzParseEvidence(f *testing.F) {
	f.Add(testEvidence(f).Encode())
	f.Add([]byte{0x83})
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ParseEvidence(b)
		if err == nil && !bytes.Equal(e.Encode(), b) {
			t.Error("second encoding of the same evidence accepted")
		}
	})
}

func FuzzParseEndorsements(f *testing.F) {
	f.Add(testEndorsements(f).Encode())
	f.Add([]byte{0x82})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseEndorsements(b)
		if err == nil && !bytes.Equal(s.Encode(), b) {
			t.Error("second encoding of the same set accepted")
		}
	})
}
