package object

import "strconv"

// EncodeChunk returns the ArrayChunk object around one piece of an array's bytes:
// for writers that stream an array and keep only the ids ([Chunk.ID]).
func EncodeChunk(data []byte) []byte { return Head{Kind: KindArrayChunk, Body: data}.encode() }

// ChunkData returns the piece of an array's bytes that an ArrayChunk object holds.
// It aliases raw. The error wraps [ErrInvalid].
func ChunkData(raw []byte) ([]byte, error) {
	h, err := ParseHead(raw)
	if err != nil {
		return nil, err
	}
	if h.Kind != KindArrayChunk {
		return nil, invalid("a %v is no ArrayChunk", h.Kind)
	}
	return h.Body, nil
}

// ChunkHead returns what an ArrayChunk object of so many bytes begins with, its head: the
// piece of the array is all that follows. It is nil if no such object has that size.
func ChunkHead(size int64) []byte {
	for digits := 1; digits <= 8; digits++ { // 64 MiB have eight
		head := []byte(KindArrayChunk.String() + "  ")
		body := size - int64(len(head)+digits+1)
		if body < 0 || len(strconv.FormatInt(body, 10)) != digits {
			continue
		}
		return append(strconv.AppendInt(head, body, 10), 0)
	}
	return nil
}
