package receipt

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

func sampleItems(t testing.TB) []Item {
	var entries [][]byte
	for _, s := range samples(t)[3:5] {
		raw, err := Sign(s, nodeKey(t, 1))
		if err != nil { // an enclave's: any bytes do here
			raw = []byte("entry")
		}
		entries = append(entries, raw)
	}
	return []Item{
		{Section: SectionPolicy, Data: []byte("chain")},
		{Section: SectionCheckpoint, Index: 1, Data: []byte("note of 1")},
		{Section: SectionCheckpoint, Index: 2, Data: []byte("note of 2")},
		{Section: SectionBlob, Role: RoleCohort, Subject: Digest{9}, Data: []byte("cohort")},
		{Section: SectionBlob, Role: RoleInputs, Subject: Digest{1}, Data: EncodeList(entries[:1])},
		{Section: SectionBlob, Role: RoleInputs, Subject: Digest{2}, Data: EncodeList(nil)},
		{Section: SectionEndorsement, Role: "amd-vcek", Subject: Digest{3}, Data: []byte("document")},
		{Section: SectionReceipt, Role: RoleLog, Subject: Digest{4}, Data: []byte("receipt")},
		{Section: SectionEntry, Index: 0, Data: entries[0]},
		{Section: SectionEntry, Index: 1, Data: entries[1]},
	}
}

func writeBundle(t testing.TB, items []Item) []byte {
	t.Helper()
	var buf bytes.Buffer
	w, err := NewBundleWriter(&buf, federation, []Digest{{1}, {2}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range items {
		if err := w.Add(&items[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func readBundle(r io.Reader) (items []Item, err error) {
	b, err := NewBundleReader(r)
	if err != nil {
		return nil, err
	}
	for {
		i, err := b.Next()
		if err == io.EOF {
			return items, nil
		}
		if err != nil {
			if _, again := b.Next(); again != err {
				return nil, errors.New("an error is not kept")
			}
			return nil, err
		}
		items = append(items, *i)
	}
}

func TestBundle(t *testing.T) {
	items := sampleItems(t)
	b := writeBundle(t, items)
	if want := goldenFile(t, "bundle.cbor", b); !bytes.Equal(b, want) {
		t.Errorf("encoding changed:\n%x\n%x", want, b)
	}
	got, err := readBundle(iotest.OneByteReader(bytes.NewReader(b)))
	if err != nil {
		t.Fatal(err)
	}
	if again := writeBundle(t, got); !bytes.Equal(again, b) {
		t.Error("the same content has other bytes")
	}
	r, err := NewBundleReader(bytes.NewReader(b))
	if err != nil || r.Federation() != federation || len(r.Runs()) != 2 {
		t.Errorf("header: %v", err)
	}
	for n := range b {
		if _, err := readBundle(bytes.NewReader(b[:n])); err == nil {
			t.Fatalf("cut to %d of %d bytes: complete", n, len(b))
		}
	}
	if _, err := readBundle(bytes.NewReader(append(bytes.Clone(b), 0))); err == nil {
		t.Error("trailing byte: accepted")
	}
	if _, err := readBundle(io.MultiReader(bytes.NewReader(b[:100]), iotest.ErrReader(io.ErrClosedPipe))); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("error of the reader: %v", err)
	}
}

func TestBundleOrder(t *testing.T) {
	good := sampleItems(t)
	for name, bad := range map[string][]Item{
		"twice":          {good[1], good[1]},
		"back":           {good[2], good[1]},
		"section back":   {good[8], good[0]},
		"two policies":   {good[0], {Section: SectionPolicy, Data: []byte("other")}},
		"no section":     {{Data: []byte("x")}},
		"section 7":      {{Section: 7, Data: []byte("x")}},
		"no data":        {{Section: SectionPolicy}},
		"no role":        {{Section: SectionBlob, Subject: Digest{1}, Data: []byte("x")}},
		"no subject":     {{Section: SectionBlob, Role: RoleAcks, Data: []byte("x")}},
		"index of blob":  {{Section: SectionBlob, Role: RoleAcks, Subject: Digest{1}, Index: 1, Data: []byte("x")}},
		"role of entry":  {{Section: SectionEntry, Role: "x", Data: []byte("x")}},
		"long entry":     {{Section: SectionEntry, Data: make([]byte, MaxStatement+1)}},
		"long blob":      {{Section: SectionBlob, Role: RoleAcks, Subject: Digest{1}, Data: make([]byte, MaxItem+1)}},
		"run as subject": {{Section: SectionEntry, Subject: Digest{1}, Data: []byte("x")}},
	} {
		w, err := NewBundleWriter(io.Discard, federation, nil)
		if err != nil {
			t.Fatal(err)
		}
		var last error
		for i := range bad {
			last = w.Add(&bad[i])
		}
		if last == nil {
			t.Errorf("%s: written", name)
		}
	}
	for name, runs := range map[string][]Digest{"unsorted": {{2}, {1}}, "twice": {{1}, {1}}, "none": {{}}} {
		if _, err := NewBundleWriter(io.Discard, federation, runs); err == nil {
			t.Errorf("runs %s: written", name)
		}
	}
	if _, err := NewBundleWriter(io.Discard, Digest{}, nil); err == nil {
		t.Error("no federation: written")
	}
	w, _ := NewBundleWriter(io.Discard, federation, nil)
	w.Close()
	if w.Add(&good[0]) == nil {
		t.Error("item after Close: written")
	}
	full, _ := NewBundleWriter(failingWriter{}, federation, nil)
	if full != nil && full.Close() == nil {
		t.Error("a write error is lost")
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

// TestBundleStreams reads a large bundle in memory of an item.
func TestBundleStreams(t *testing.T) {
	pr, pw := io.Pipe()
	const n = 2000
	go func() {
		w, err := NewBundleWriter(pw, federation, nil)
		data := make([]byte, 10<<10)
		for i := uint64(0); i < n && err == nil; i++ {
			err = w.Add(&Item{Section: SectionEntry, Index: i, Data: data})
		}
		if err == nil {
			err = w.Close()
		}
		pw.CloseWithError(err)
	}()
	b, err := NewBundleReader(pr)
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for {
		_, err := b.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		count++
	}
	if count != n {
		t.Errorf("%d items", count)
	}
}

func FuzzBundle(f *testing.F) {
	f.Add(writeBundle(f, sampleItems(f)))
	f.Add(writeBundle(f, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		items, err := readBundle(bytes.NewReader(b))
		if err != nil {
			return
		}
		r, _ := NewBundleReader(bytes.NewReader(b))
		var buf bytes.Buffer
		w, err := NewBundleWriter(&buf, r.Federation(), r.Runs())
		if err != nil {
			t.Fatal(err)
		}
		for i := range items {
			if err := w.Add(&items[i]); err != nil {
				t.Fatal(err)
			}
		}
		w.Close()
		if !bytes.Equal(buf.Bytes(), b) {
			t.Error("bundle has two encodings")
		}
	})
}
