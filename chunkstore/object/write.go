package object

// ChunkWriter cuts an array's npy bytes into chunks as Flower does ([ChunkSize]), holding
// one of them. It is not safe for concurrent use.
type ChunkWriter struct {
	add    func(raw []byte) error
	buf    []byte
	raw    []byte // the last chunk, encoded
	chunks []Chunk
}

// NewChunkWriter returns a writer that hands every chunk, encoded, to add, which must not
// keep the bytes.
func NewChunkWriter(add func(raw []byte) error) *ChunkWriter { return &ChunkWriter{add: add} }

// Write takes bytes of the array. Its errors are those of add.
func (w *ChunkWriter) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		k := min(len(b), ChunkSize-len(w.buf))
		w.buf = append(w.buf, b[:k]...)
		b = b[k:]
		if len(w.buf) == ChunkSize {
			if err := w.flush(); err != nil {
				return 0, err
			}
		}
	}
	return n, nil
}

func (w *ChunkWriter) flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	w.raw = Head{Kind: KindArrayChunk, Body: w.buf}.append(w.raw[:0])
	w.chunks = append(w.chunks, Chunk{ID: Sum(w.raw)})
	w.buf = w.buf[:0]
	return w.add(w.raw)
}

// Close hands over what is left and returns the chunks in outline, for [Array.Chunks].
func (w *ChunkWriter) Close() ([]Chunk, error) {
	err := w.flush()
	return w.chunks, err
}
