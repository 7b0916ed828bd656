package object

import "testing"

// TestChunkWriter cuts a stream as Flower cuts an array, however it is written.
func TestChunkWriter(t *testing.T) {
	data := make([]byte, 2*ChunkSize+17)
	for i := range data {
		data[i] = byte(i * 31)
	}
	var want []ID
	for _, part := range [][]byte{data[:ChunkSize], data[ChunkSize : 2*ChunkSize], data[2*ChunkSize:]} {
		want = append(want, Sum(EncodeChunk(part)))
	}
	for _, step := range []int{1 << 20, ChunkSize, len(data), 4097} {
		var got []ID
		w := NewChunkWriter(func(raw []byte) (ID, error) { got = append(got, Sum(raw)); return Sum(raw), nil })
		for rest := data; len(rest) > 0; {
			n := min(step, len(rest))
			if k, err := w.Write(rest[:n]); k != n || err != nil {
				t.Fatalf("Write: %d, %v", k, err)
			}
			rest = rest[n:]
		}
		chunks, err := w.Close()
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(want) || len(chunks) != len(want) {
			t.Fatalf("writes of %d: %d chunks, want %d", step, len(got), len(want))
		}
		for i := range want {
			if got[i] != want[i] || chunks[i].ID != want[i] {
				t.Errorf("writes of %d: chunk %d is another", step, i)
			}
		}
	}
	empty := NewChunkWriter(func([]byte) (ID, error) { t.Error("a chunk of nothing"); return ID{}, nil })
	if chunks, err := empty.Close(); err != nil || len(chunks) != 0 {
		t.Errorf("nothing: %v, %d chunks", err, len(chunks))
	}
}
