package check

import (
	"crypto/x509"
	"errors"
	"testing"
)

// TestSigned demands that only what was good is remembered, under both its halves.
func TestSigned(t *testing.T) {
	a, b := &x509.Certificate{Raw: []byte("a")}, &x509.Certificate{Raw: []byte("b")}
	bad := errors.New("bad")
	asked := 0
	verify := func(err error) func() error { return func() error { asked++; return err } }
	for _, c := range []struct {
		doc   string
		by    *x509.Certificate
		err   error
		asked int
		want  error
	}{
		{"x", a, bad, 1, bad}, {"x", a, nil, 2, nil}, {"x", a, bad, 2, nil}, {"x", b, bad, 3, bad}, {"y", a, bad, 4, bad},
	} {
		if err := Signed([]byte(c.doc), c.by, verify(c.err)); err != c.want || asked != c.asked {
			t.Errorf("%s by %s: %v, asked %d times", c.doc, c.by.Raw, err, asked)
		}
	}
	Forget()
	if Signed([]byte("x"), a, verify(bad)) == nil {
		t.Error("not forgotten")
	}
}

// TestMemory demands that a memory does not grow for ever, and that documents are told
// apart by where they end.
func TestMemory(t *testing.T) {
	m := &Memory[int]{limit: 8}
	for i := range 20 {
		key := Key([]byte{byte(i)})
		m.Put(key, i)
		if v, ok := m.Get(key); !ok || v != i || len(m.known) > m.limit {
			t.Fatalf("entry %d: %d, %t, of %d entries", i, v, ok, len(m.known))
		}
	}
	if Key([]byte("a"), []byte("b")) == Key([]byte("ab")) || Key([]byte("a"), []byte("b")) == Key([]byte("b"), []byte("a")) {
		t.Error("two lists of documents have one key")
	}
}
