package atrest

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/concordat/concordat/internal/durable"
	"github.com/concordat/concordat/internal/durable/faultfs"
)

var update = flag.Bool("update", false, "rewrite golden files")

// golden compares got, as hex, with testdata/name.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name+".hex")
	if *update {
		if err := os.WriteFile(path, []byte(hex.EncodeToString(got)+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.TrimSpace(string(want)) != hex.EncodeToString(got) {
		t.Errorf("%s is %x, want %s", name, got, want)
	}
}

// fixed is a key that every test run has.
func fixed(t *testing.T) *Key {
	t.Helper()
	fsys := faultfs.New()
	if err := durable.WriteFile(fsys, "/"+File, bytes.Repeat([]byte{0xA5}, keySize), 0o600); err != nil {
		t.Fatal(err)
	}
	k, err := Open(fsys, "/")
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestGolden(t *testing.T) {
	k := fixed(t)
	salt := [saltSize]byte(bytes.Repeat([]byte{0x5A}, saltSize))
	sealed := k.seal(salt, "concordat/test/1", []byte("binding"), []byte("content"))
	golden(t, "sealed", sealed)
	if got, err := k.Open("concordat/test/1", []byte("binding"), sealed); err != nil || string(got) != "content" {
		t.Errorf("opened %q, %v", got, err)
	}
}

// TestSealed: nothing but what was sealed opens, and nothing in it shows the content, or
// that two contents are one.
func TestSealed(t *testing.T) {
	k := fixed(t)
	content := bytes.Repeat([]byte("content "), 10)
	a, b := k.Seal("d", []byte("x"), content), k.Seal("d", []byte("x"), content)
	if len(a) != len(content)+Overhead || bytes.Equal(a[:saltSize], b[:saltSize]) || bytes.Equal(a[saltSize:], b[saltSize:]) || bytes.Contains(a, content[:8]) {
		t.Error("two seals of one content have something in common, or show it")
	}
	for i := range len(a) * 8 {
		a[i/8] ^= 1 << (i % 8)
		if _, err := k.Open("d", []byte("x"), a); !errors.Is(err, ErrSealed) {
			t.Fatalf("opens with bit %d flipped: %v", i, err)
		}
		a[i/8] ^= 1 << (i % 8)
	}
	for n := range a {
		if _, err := k.Open("d", []byte("x"), a[:n]); !errors.Is(err, ErrSealed) {
			t.Fatalf("opens with %d of %d bytes: %v", n, len(a), err)
		}
	}
	other, err := Open(faultfs.New(), "/")
	if err != nil {
		t.Fatal(err)
	}
	for what, open := range map[string]func() ([]byte, error){
		"longer":          func() ([]byte, error) { return k.Open("d", []byte("x"), append(bytes.Clone(a), 0)) },
		"another domain":  func() ([]byte, error) { return k.Open("e", []byte("x"), a) },
		"another binding": func() ([]byte, error) { return k.Open("d", []byte("y"), a) },
		"moved border":    func() ([]byte, error) { return k.Open("d\x00x", nil, a) },
		"another key":     func() ([]byte, error) { return other.Open("d", []byte("x"), a) },
	} {
		if _, err := open(); !errors.Is(err, ErrSealed) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if got, err := k.Open("d", []byte("x"), a); err != nil || !bytes.Equal(got, content) {
		t.Errorf("unchanged: %v", err)
	}
	if got, err := k.Open("d", nil, k.Seal("d", nil, nil)); err != nil || len(got) != 0 {
		t.Errorf("empty: %q, %v", got, err)
	}
}

func FuzzOpen(f *testing.F) {
	k := &Key{}
	f.Add([]byte("x"), k.Seal("d", []byte("x"), []byte("content"))[1:])
	f.Add([]byte{}, make([]byte, Overhead))
	f.Fuzz(func(t *testing.T, binding, sealed []byte) {
		if _, err := k.Open("d", binding, sealed); err == nil {
			t.Error("something opens that was never sealed")
		}
	})
}

// TestKey: a key is made once, durably, shows itself nowhere, and no other file is one.
func TestKey(t *testing.T) {
	for n := 1; ; n++ {
		fsys := faultfs.New()
		fsys.CrashAt(n)
		k, err := Open(fsys, "/")
		if err == nil {
			for _, keep := range faultfs.Keeps {
				again, err := Open(fsys.Recover(keep), "/")
				if err != nil || again.secret != k.secret {
					t.Errorf("%s: another key, or none: %v", keep, err)
				}
			}
			break
		}
		for _, keep := range faultfs.Keeps {
			if _, err := Open(fsys.Recover(keep), "/"); err != nil {
				t.Errorf("crash at operation %d, %s: %v", n, keep, err)
			}
		}
	}
	k := fixed(t)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if s := fmt.Sprintf(verb, k); s != "at-rest key" {
			t.Errorf("%s prints %q", verb, s)
		}
	}
	for _, raw := range [][]byte{nil, make([]byte, keySize-1), make([]byte, keySize+1)} {
		fsys := faultfs.New()
		if err := durable.WriteFile(fsys, "/"+File, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(fsys, "/"); err == nil {
			t.Errorf("%d bytes are a key", len(raw))
		}
	}
}
