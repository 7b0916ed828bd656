package merkle

import (
	"bytes"
	"errors"
	"testing"
)

// TestEntriesAreDistinct: no entry of one kind is an entry of another, and none is
// a log entry.
func TestEntriesAreDistinct(t *testing.T) {
	h := Hash{1}
	entries := map[string][]byte{
		"concordat/chunk-leaf/1\x00":    ChunkEntry(h),
		"concordat/input-leaf/1\x00":    InputEntry(h),
		"concordat/ack-leaf/1\x00":      AckEntry(h),
		"concordat/excluded-leaf/1\x00": ExcludedEntry(h, 3),
	}
	for tag, e := range entries {
		want := append([]byte(tag), h[:]...)
		if tag == "concordat/excluded-leaf/1\x00" {
			want = append(want, 3)
		}
		if !bytes.Equal(e, want) {
			t.Errorf("%q: %x", tag, e)
		}
		for other, f := range entries {
			if other != tag && (bytes.HasPrefix(e, []byte(other)) || bytes.Equal(e, f)) {
				t.Errorf("%q looks like %q", tag, other)
			}
		}
	}
}

func TestRootFromConsistency(t *testing.T) {
	var leaves []Hash
	for i := range 40 {
		leaves = append(leaves, LeafHash([]byte{byte(i)}))
	}
	for size := 1; size <= len(leaves); size++ {
		for old := 1; old <= size; old++ {
			proof := Consistency(leaves[:size], old)
			got, err := RootFromConsistency(uint64(old), uint64(size), proof, Root(leaves[:old]))
			if err != nil || got != Root(leaves[:size]) {
				t.Fatalf("from %d to %d: %v", old, size, err)
			}
			if old < size {
				// From another root it leads nowhere, or to another root.
				if got, err := RootFromConsistency(uint64(old), uint64(size), proof, Hash{1}); err == nil && got == Root(leaves[:size]) {
					t.Errorf("from %d to %d: another root leads to the same", old, size)
				}
				if _, err := RootFromConsistency(uint64(old), uint64(size), append(proof, Hash{}), Root(leaves[:old])); !errors.Is(err, ErrProof) {
					t.Errorf("from %d to %d, a hash too many: %v", old, size, err)
				}
			}
		}
	}
	for name, c := range map[string][2]uint64{"from nothing": {0, 5}, "shrinks": {5, 4}, "no proof": {4, 5}} {
		if _, err := RootFromConsistency(c[0], c[1], nil, Hash{1}); !errors.Is(err, ErrProof) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := RootFromConsistency(5, 5, []Hash{{}}, Hash{1}); !errors.Is(err, ErrProof) {
		t.Errorf("equal sizes with a proof: %v", err)
	}
}
