package object

import (
	"bytes"
	"testing"
)

// TestChunkHead: the head that an ArrayChunk object of a size has is the one that is
// written, and there is none for sizes that no such object has.
func TestChunkHead(t *testing.T) {
	sizes := map[int64]bool{}
	for _, n := range []int{0, 1, 9, 10, 11, 99, 100, 101, 999, 1000, 9999, 10000, 1<<20 - 1, ChunkSize, MaxSize - 21} {
		raw := EncodeChunk(make([]byte, n))
		head := ChunkHead(int64(len(raw)))
		if len(head) != len(raw)-n || !bytes.HasPrefix(raw, head) {
			t.Errorf("%d bytes of data: head %q of %.30q", n, head, raw)
		}
	}
	for n := range 2000 {
		sizes[int64(len(EncodeChunk(make([]byte, n))))] = true
	}
	for size := int64(-1); size < 2000; size++ {
		if head := ChunkHead(size); (head != nil) != sizes[size] {
			t.Errorf("an object of %d bytes has head %q", size, head)
		}
	}
}
