package pack

import (
	"container/list"
	"io/fs"
	"os"
	"sync"

	"github.com/concordat/concordat/internal/durable"
)

// maxOpen is how many packs stay open that nobody uses. A process may have 1024
// files open by default on Linux, and the link needs most of them for
// connections.
const maxOpen = 128

// files keeps the packs that were used last open.
type files struct {
	fsys durable.FS

	mu     sync.Mutex
	open   map[*pack]*list.Element // of *handle
	recent *list.List              // of *handle, the one used last in front
	closed bool
}

// handle is an open pack. Its users give it back with put.
type handle struct {
	durable.File
	pack  *pack
	users int
	stale bool // not in the list: whoever uses it last closes it
}

func newFiles(fsys durable.FS) *files {
	return &files{fsys: fsys, open: make(map[*pack]*list.Element), recent: list.New()}
}

// get opens a pack, or uses the descriptor that is open.
func (c *files) get(p *pack) (*handle, error) {
	if h := c.find(p); h != nil {
		return h, nil
	}
	f, err := c.fsys.OpenFile(p.path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return c.add(p, f)
}

func (c *files) find(p *pack) *handle {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.open[p]
	if e == nil {
		return nil
	}
	c.recent.MoveToFront(e)
	h := e.Value.(*handle)
	h.users++
	return h
}

// add takes over an open pack, and returns it as get does.
func (c *files) add(p *pack, f durable.File) (*handle, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		f.Close()
		return nil, fs.ErrClosed
	}
	if e := c.open[p]; e != nil { // opened by another in between
		f.Close()
		h := e.Value.(*handle)
		h.users++
		return h, nil
	}
	h := &handle{File: f, pack: p, users: 1, stale: p.gone}
	if p.gone { // since it was opened: to keep it open would keep its space
		return h, nil
	}
	c.open[p] = c.recent.PushFront(h)
	if c.recent.Len() > maxOpen {
		c.drop(c.recent.Back())
	}
	return h, nil
}

// put gives h back. Nothing depends on whether closing succeeds: what must last
// was synced.
func (c *files) put(h *handle) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h.users--; h.users == 0 && h.stale {
		h.Close()
	}
}

// forget closes a pack that was removed, once nobody uses it.
func (c *files) forget(p *pack) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p.gone = true
	if e := c.open[p]; e != nil {
		c.drop(e)
	}
}

// drop is called with the lock.
func (c *files) drop(e *list.Element) {
	h := c.recent.Remove(e).(*handle)
	delete(c.open, h.pack)
	if h.stale = true; h.users == 0 {
		h.Close()
	}
}

func (c *files) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for c.recent.Len() > 0 {
		c.drop(c.recent.Front())
	}
}
