package hostile

import (
	"sync"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/chunkstore/transfer"
)

// Read is one answer to a party that reads a chunk.
type Read struct {
	Party string
	Scope chunkstore.Scope
	ID    chunkstore.ID
	Times int    // how often the party has read this chunk, this time included
	Data  []byte // the stored bytes: all, of a chunk below 256 KiB
}

// Substitute serves what f returns in place of what is read, until stop is called. f
// may return r.Data, and must not change it.
func (l *Link) Substitute(f func(r Read) []byte) (stop func()) {
	type key struct {
		party string
		scope chunkstore.Scope
		id    chunkstore.ID
	}
	var mu sync.Mutex
	times := map[key]int{}
	return l.Add(func(m Message) []Message {
		q, ok := m.Request.(*concordatv1.GetChunksRequest)
		if !ok {
			return []Message{m}
		}
		scope, err := transfer.ParseScope(q.GetScope())
		a := m.Body.(*concordatv1.GetChunksResponse)
		if err != nil || int(a.GetRange()) >= len(q.GetRanges()) {
			return []Message{m}
		}
		id := chunkstore.ID(q.GetRanges()[a.GetRange()].GetId())
		mu.Lock()
		k := key{m.Party, scope, id}
		if a.GetSize() > 0 { // the first message of a range
			times[k]++
		}
		n := times[k]
		mu.Unlock()
		data := f(Read{m.Party, scope, id, n, a.GetData()})
		if len(data) != len(a.GetData()) {
			a.Size = uint64(len(data))
		}
		a.Data = data
		return []Message{m}
	})
}
