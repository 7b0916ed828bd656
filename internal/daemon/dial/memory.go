package dial

import "sync"

// frames is where transports put what they read. gRPC's own pool clears memory each time,
// a tenth of what moving chunks costs. Whoever gets memory from it writes to all that they
// read of it, as gRPC's transport does.
var frames = framePool{sync.Pool{New: func() any { b := make([]byte, frameBytes); return &b }}}

// frameBytes is as much as gRPC puts into one DATA frame.
const frameBytes = 16 << 10

// framePool is a mem.BufferPool of gRPC's for what fits into a frame.
type framePool struct{ pool sync.Pool }

func (p *framePool) Get(n int) *[]byte {
	if n > frameBytes {
		b := make([]byte, n)
		return &b
	}
	b := p.pool.Get().(*[]byte)
	*b = (*b)[:n]
	return b
}

func (p *framePool) Put(b *[]byte) {
	if cap(*b) == frameBytes {
		p.pool.Put(b)
	}
}
