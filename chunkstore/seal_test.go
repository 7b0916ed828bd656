package chunkstore

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/concordat/concordat/chunkstore/object"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares got, as indented JSON, with a file of testdata.
func golden(t *testing.T, name string, got any) {
	t.Helper()
	b, err := json.MarshalIndent(got, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	b = append(b, '\n')
	path := "testdata/" + name
	if *update {
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b, want) {
		t.Errorf("%s differs (-update rewrites it):\n%s", path, b)
	}
}

func filled(b byte) (a [32]byte) {
	for i := range a {
		a[i] = b
	}
	return a
}

// pattern is the plaintext of the vectors: byte i is i·7 + i/256.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

var testSizes = []int{0, 1, 65535, 65536, 65537, 200_000}

func TestVectors(t *testing.T) {
	t.Parallel()
	run := Digest(filled(0x33))
	type sealed struct {
		Size                                  int
		Object, Opening, Header, Stored, Leaf string
		Chunk                                 string
	}
	type vector struct {
		Name   string
		Sealed []sealed
	}
	var got []vector
	for _, k := range []struct {
		name   string
		secret *Secret
	}{
		{"up, U = 11…, run = 33…, seq = 7", NewUplink(filled(0x11), run, 7)},
		{"down, D = 22…, run = 33…, generation = 2", NewDownlink(filled(0x22), run, 2)},
		{"one, U = 11…, run = 33…, seq = 7", NewOne(filled(0x11), run, 7)},
	} {
		v := vector{Name: k.name}
		for _, n := range testSizes {
			plain := pattern(n)
			oid := object.Sum(plain)
			id, stored := Seal(nil, k.secret, oid, plain)
			l, err := Measure(stored)
			if err != nil {
				t.Fatal(err)
			}
			m := k.secret.Opening(oid).Disclose()
			v.Sealed = append(v.Sealed, sealed{n, oid.String(), hex.EncodeToString(m[:]), hex.EncodeToString(stored[:HeaderSize]),
				object.Sum(stored).String(), hex.EncodeToString(l.Leaves[0][:]), id.String()})
		}
		got = append(got, v)
	}
	golden(t, "seal.json", struct {
		DownlinkCommit string
		Vectors        []vector
	}{DownlinkCommit(filled(0x22)).String(), got})
}

func TestSealOpen(t *testing.T) {
	t.Parallel()
	s := NewUplink(filled(1), Digest(filled(2)), 3)
	for _, n := range testSizes {
		plain := pattern(n)
		oid := object.Sum(plain)
		id, stored := Seal([]byte("prefix"), s, oid, plain)
		stored, ok := bytes.CutPrefix(stored, []byte("prefix"))
		if !ok || int64(len(stored)) != StoredSize(int64(n)) {
			t.Fatalf("%d bytes: sealed to %d, want %d", n, len(stored), StoredSize(int64(n)))
		}
		if again, b := Seal(nil, NewUplink(filled(1), Digest(filled(2)), 3), oid, plain); again != id || !bytes.Equal(b, stored) {
			t.Errorf("%d bytes: sealed again to other bytes", n)
		}
		got, err := Open([]byte("x"), id, stored, s.Opening(oid))
		if err != nil || string(got) != "x"+string(plain) {
			t.Errorf("%d bytes: opened to %d bytes, %v", n, len(got), err)
		}
		var copied bytes.Buffer
		if size, err := Copy(&copied, bytes.NewReader(stored), id); err != nil || size != int64(len(stored)) || !bytes.Equal(copied.Bytes(), stored) {
			t.Errorf("%d bytes: copied %d of %d, %v", n, copied.Len(), size, err)
		}
		for _, other := range []*Secret{NewUplink(filled(1), Digest(filled(2)), 4), NewOne(filled(1), Digest(filled(2)), 3), NewUplink(filled(1), Digest(filled(3)), 3), NewDownlink(filled(1), Digest(filled(2)), 3)} {
			if o, _ := Seal(nil, other, oid, plain); o == id {
				t.Errorf("%d bytes: another key gives the same chunk", n)
			}
			if _, err := Open(nil, id, stored, other.Opening(oid)); !errors.Is(err, ErrOpening) {
				t.Errorf("%d bytes: another key: %v, want ErrOpening", n, err)
			}
		}
	}
}

// TestRanges opens segments alone, in any order, in place and twice.
func TestRanges(t *testing.T) {
	t.Parallel()
	s := NewDownlink(filled(1), Digest(filled(2)), 0)
	plain := pattern(200_000)
	oid := object.Sum(plain)
	id, stored := Seal(nil, s, oid, plain)
	l, err := Measure(stored)
	if err != nil {
		t.Fatal(err)
	}
	o, err := NewOpener(id, l, s.Opening(oid))
	if err != nil {
		t.Fatal(err)
	}
	if o.Size() != 200_000 || o.Segments() != 4 {
		t.Fatalf("size %d in %d segments", o.Size(), o.Segments())
	}
	for _, i := range []int{3, 0, 2, 1, 1} {
		off, size := o.SegmentSpan(i)
		sealed := bytes.Clone(stored[off : off+int64(size)])
		want := plain[i*SegmentSize : min((i+1)*SegmentSize, len(plain))]
		if got, err := o.OpenSegment([]byte("x"), i, sealed); err != nil || string(got) != "x"+string(want) {
			t.Errorf("segment %d: %d bytes, %v", i, len(got), err)
		}
		if got, err := o.OpenSegment(sealed[:0], i, sealed); err != nil || !bytes.Equal(got, want) {
			t.Errorf("segment %d in place: %d bytes, %v", i, len(got), err)
		}
	}
	// A segment is that of its place only.
	off, size := o.SegmentSpan(1)
	for i := range 4 {
		if _, err := o.OpenSegment(nil, i, stored[off:off+int64(size)]); (err == nil) != (i == 1) || err != nil && !errors.Is(err, ErrMismatch) {
			t.Errorf("segment 1 in place of %d: %v", i, err)
		}
	}
	for _, bad := range [][]byte{nil, stored[off : off+int64(size)-1], stored[off : off+int64(size)+1]} {
		if _, err := o.OpenSegment(nil, 1, bad); !errors.Is(err, ErrMismatch) {
			t.Errorf("segment of %d bytes: %v, want ErrMismatch", len(bad), err)
		}
	}
	for _, i := range []int{-1, 4} {
		mustPanic(t, func() { o.OpenSegment(nil, i, nil) })
	}
}

func mustPanic(t *testing.T, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Error("does not panic")
		}
	}()
	f()
}

// TestEveryBit flips each bit of a chunk: nobody takes it for the chunk.
func TestEveryBit(t *testing.T) {
	t.Parallel()
	s := NewUplink(filled(1), Digest(filled(2)), 3)
	for _, n := range []int{0, 40, 65537} {
		plain := pattern(n)
		oid := object.Sum(plain)
		id, stored := Seal(nil, s, oid, plain)
		l, err := Measure(stored)
		if err != nil {
			t.Fatal(err)
		}
		step := max(1, len(stored)/64)
		for at := 0; at < len(stored); at++ {
			if at > HeaderSize+64 && at < len(stored)-64 && at%step != 0 {
				continue // of a large chunk, every bit of the ends and some between
			}
			for bit := range 8 {
				stored[at] ^= 1 << bit
				if _, err := Open(nil, id, stored, s.Opening(oid)); !errors.Is(err, ErrMismatch) && !errors.Is(err, ErrTooLarge) {
					t.Fatalf("%d bytes, bit %d of byte %d flipped: %v", n, bit, at, err)
				}
				stored[at] ^= 1 << bit
			}
		}
		for cut := 1; cut <= len(stored); cut = cut*2 + 1 {
			if _, err := Open(nil, id, stored[:len(stored)-cut], s.Opening(oid)); !errors.Is(err, ErrMismatch) {
				t.Fatalf("%d bytes, %d cut off: %v", n, cut, err)
			}
		}
		if _, err := Open(nil, id, append(bytes.Clone(stored), 0), s.Opening(oid)); !errors.Is(err, ErrMismatch) {
			t.Fatalf("%d bytes, one appended: %v", n, err)
		}
		// A layout from a liar.
		for i := range l.Leaves {
			bad := Layout{l.Header, append(l.Leaves[:0:0], l.Leaves...)}
			bad.Leaves[i][5] ^= 1
			if _, err := NewOpener(id, &bad, s.Opening(oid)); !errors.Is(err, ErrMismatch) {
				t.Errorf("leaf %d changed: %v", i, err)
			}
		}
		for _, bad := range []*Layout{{}, {Header: l.Header}, {Header: l.Header, Leaves: l.Leaves[1:]}, {Header: l.Header, Leaves: append(l.Leaves[:len(l.Leaves):len(l.Leaves)], l.Leaves[0])}} {
			if _, err := NewOpener(id, bad, s.Opening(oid)); !errors.Is(err, ErrMismatch) {
				t.Errorf("%d leaves: %v", len(bad.Leaves), err)
			}
		}
	}
}

// TestSealerLies: chunks whose ids are right and whose content is not.
func TestSealerLies(t *testing.T) {
	t.Parallel()
	s := NewUplink(filled(1), Digest(filled(2)), 3)
	plain := pattern(100)
	oid := object.Sum(plain)
	id, stored := Seal(nil, s, oid, plain)
	m := s.Opening(oid).Disclose()
	if _, err := Open(nil, id, stored, NewOpening(object.Sum(nil), m)); !errors.Is(err, ErrOpening) {
		t.Errorf("disclosed as another object: %v, want ErrOpening", err)
	}
	if got, err := Open(nil, id, stored, NewOpening(oid, m)); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("disclosed: %v", err)
	}
	garbage := bytes.Clone(stored)
	garbage[HeaderSize] ^= 1
	l, err := Measure(garbage)
	if err != nil {
		t.Fatal(err)
	}
	gid, err := l.ID()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(nil, gid, garbage, s.Opening(oid)); !errors.Is(err, ErrOpening) || errors.Is(err, ErrMismatch) {
		t.Errorf("committed garbage: %v, want ErrOpening", err)
	}
	o, err := NewOpener(gid, l, s.Opening(oid))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.OpenSegment(nil, 0, garbage[HeaderSize:]); !errors.Is(err, ErrOpening) {
		t.Errorf("committed garbage: %v, want ErrOpening", err)
	}
}

func TestSealPanics(t *testing.T) {
	t.Parallel()
	s := NewUplink(filled(1), Digest(filled(2)), 3)
	mustPanic(t, func() { Seal(nil, s, object.Sum([]byte("x")), []byte("y")) })
	mustPanic(t, func() { Seal(nil, s, object.ID{}, make([]byte, MaxPlain+1)) })
}

// TestSecretsDoNotPrint tries every verb on keys, alone and inside other values.
func TestSecretsDoNotPrint(t *testing.T) {
	t.Parallel()
	s := NewUplink(filled(1), Digest(filled(2)), 3)
	o := s.Opening(object.Sum(nil))
	m := o.Disclose()
	type holder struct {
		Key    *Secret
		secret *Secret
		value  Secret
		open   Opening
	}
	var out strings.Builder
	for _, v := range []any{s, *s, o, &o, holder{s, s, *s, o}, &holder{s, s, *s, o}, []any{s, o}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%d", "%q"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		if b, err := json.Marshal(v); err == nil {
			out.Write(b)
		}
	}
	text := strings.ToLower(out.String())
	for name, key := range map[string][32]byte{"key": s.k(), "opening": m, "object id": object.Sum(nil)} {
		for _, form := range []string{hex.EncodeToString(key[:4]), fmt.Sprint(key[:4])[1:10], fmt.Sprintf("%q", key[:4])} {
			if strings.Contains(text, strings.ToLower(form)) {
				t.Errorf("%s is printed as %s", name, form)
			}
		}
	}
}

func TestParseID(t *testing.T) {
	t.Parallel()
	id, _ := Seal(nil, NewUplink(filled(1), Digest(filled(2)), 3), object.Sum(nil), nil)
	if got, err := ParseID(id.String()); err != nil || got != id {
		t.Errorf("%v, %v", got, err)
	}
	for _, s := range []string{"", id.String()[1:], id.String() + "0", strings.ToUpper(id.String()), strings.Repeat("g", 64)} {
		if _, err := ParseID(s); err == nil {
			t.Errorf("%q is an id", s)
		}
	}
}

func BenchmarkSeal(b *testing.B) {
	s := NewUplink(filled(1), Digest(filled(2)), 3)
	for _, n := range []int{64 << 10, 1 << 20, 5 << 20} {
		plain := pattern(n)
		oid := object.Sum(plain)
		b.Run(fmt.Sprintf("%dKiB", n>>10), func(b *testing.B) {
			b.SetBytes(int64(n))
			b.ReportAllocs()
			var dst []byte
			for b.Loop() {
				_, dst = Seal(dst[:0], s, oid, plain)
			}
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	s := NewUplink(filled(1), Digest(filled(2)), 3)
	plain := pattern(1 << 20)
	oid := object.Sum(plain)
	id, stored := Seal(nil, s, oid, plain)
	b.Run("1024KiB", func(b *testing.B) {
		b.SetBytes(1 << 20)
		b.ReportAllocs()
		var dst []byte
		for b.Loop() {
			var err error
			if dst, err = Open(dst[:0], id, stored, s.Opening(oid)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("segments", func(b *testing.B) {
		l, err := Measure(stored)
		if err != nil {
			b.Fatal(err)
		}
		o, err := NewOpener(id, l, s.Opening(oid))
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(1 << 20)
		b.ReportAllocs()
		var dst []byte
		for b.Loop() {
			for i := range o.Segments() {
				off, size := o.SegmentSpan(i)
				if dst, err = o.OpenSegment(dst[:0], i, stored[off:off+int64(size)]); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}

func BenchmarkRoot(b *testing.B) {
	ids := make([]ID, 10_000)
	for i := range ids {
		ids[i] = ID{byte(i), byte(i >> 8)}
	}
	b.Run("10000", func(b *testing.B) {
		for b.Loop() {
			Root(ids)
		}
	})
}
