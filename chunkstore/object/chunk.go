package object

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
