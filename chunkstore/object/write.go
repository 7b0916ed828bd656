package object

// ChunkWriter cuts an array's npy bytes into chunks as Flower does ([ChunkSize]), holding
// one of them. It is not safe for concurrent use.
type ChunkWriter struct {
	add    func(raw []byte) (ID, error)
	buf    []byte // room for a chunk's head, and its data so far
	chunks []Chunk
}

// headRoom is more than the head of a chunk is long.
const headRoom = 32

// NewChunkWriter returns a writer that hands every chunk, encoded, to add, which returns
// its [Sum] and must not keep the bytes.
func NewChunkWriter(add func(raw []byte) (ID, error)) *ChunkWriter {
	return &ChunkWriter{add: add, buf: make([]byte, headRoom)}
}

// Write takes bytes of the array. Its errors are those of add.
func (w *ChunkWriter) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		k := min(len(b), headRoom+ChunkSize-len(w.buf))
		w.grow(k)
		w.buf = append(w.buf, b[:k]...)
		b = b[k:]
		if len(w.buf) == headRoom+ChunkSize {
			if err := w.flush(); err != nil {
				return 0, err
			}
		}
	}
	return n, nil
}

// grow makes room for n bytes more, and never for more than a chunk.
func (w *ChunkWriter) grow(n int) {
	if need := len(w.buf) + n; need > cap(w.buf) {
		w.buf = append(make([]byte, 0, min(max(need, 2*cap(w.buf)), headRoom+ChunkSize)), w.buf...)
	}
}

func (w *ChunkWriter) flush() error {
	if len(w.buf) == headRoom {
		return nil
	}
	head := Head{Kind: KindArrayChunk}.appendStart(nil, len(w.buf)-headRoom)
	raw := w.buf[headRoom-len(head):]
	copy(raw, head)
	id, err := w.add(raw)
	w.chunks = append(w.chunks, Chunk{ID: id})
	w.buf = w.buf[:headRoom]
	return err
}

// Close hands over what is left and returns the chunks in outline, for [Array.Chunks].
func (w *ChunkWriter) Close() ([]Chunk, error) {
	err := w.flush()
	return w.chunks, err
}
