// Package mailbox moves sealed payloads between the parties of one federation:
// durable before the sender hears of it, at least once until the receiver says
// so, in the order of sending per pair of addresses.
//
// Start with [New], one [Exchange] a federation. A party that attaches opens a
// [Box] and reads it with [Box.Next], which waits without polling; [Exchange.Post]
// puts a payload into anybody's box, attached or not.
//
// It reads no payload, judges nobody and keeps nothing in memory but who is
// attached: what waits is in the [Store]. A receiver must expect a payload twice.
package mailbox

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/concordat/concordat/internal/cose"
)

// Store keeps payloads; link/state has it in SQL. Addresses are the strings of
// [Address.String]. Its methods are safe for concurrent use, and what they did is
// durable when they return.
type Store interface {
	// Enqueue adds n payloads of one sender to their recipients' queues, in this
	// order, and returns the outcome of each. The same again is no error.
	Enqueue(ctx context.Context, federation cose.Digest, sender string, n int, at func(i int) (handle [16]byte, recipient string, payload []byte)) []error
	// Pending calls each for what waits after the sequence number, in order, until
	// it returns false.
	Pending(ctx context.Context, federation cose.Digest, recipient string, after int64, each func(seq int64, handle [16]byte, sender string, payload []byte) bool) error
	// Remove forgets payloads of the recipients; unknown handles are ignored.
	Remove(ctx context.Context, federation cose.Digest, handles [][16]byte, recipients ...string) error
}

// Role says what a party is.
type Role byte

// The roles, numbered as in api/concordat/v1.
const (
	Node    Role = 1
	Enclave Role = 2
)

// Address names a party of the federation: a node by its 32-byte id, an enclave
// by its 16-byte instance, or by none: whichever enclave is the newest.
type Address struct {
	Role Role
	ID   string // raw bytes
}

// NewestEnclave is the address whose payloads go to the attached enclave with the
// highest rank, and wait while there is none.
var NewestEnclave = Address{Role: Enclave}

// Valid reports whether a has a known role and an id of its length. The newest
// enclave is valid to send to, and nobody's own address.
func (a Address) Valid() bool {
	return a.Role == Node && len(a.ID) == 32 || a.Role == Enclave && (len(a.ID) == 16 || a.ID == "")
}

// String returns the form in which a [Store] knows a: the role's byte and the id.
func (a Address) String() string { return string(rune(a.Role)) + a.ID }

// parse is the inverse of [Address.String].
func parse(s string) (Address, error) {
	if s == "" || s[0] > 0x7f {
		return Address{}, errors.New("mailbox: malformed address in the store")
	}
	a := Address{Role(s[0]), s[1:]}
	if !a.Valid() {
		return Address{}, errors.New("mailbox: malformed address in the store")
	}
	return a, nil
}

// ErrMalformed is wrapped by errors about addresses and payloads that nobody can
// have.
var ErrMalformed = errors.New("malformed")

var errAddress = fmt.Errorf("mailbox: %w: address", ErrMalformed)

// MaxPayload bounds one payload: an offer of 1 MiB in its record.
const MaxPayload = 1<<20 + 64<<10

// Exchange is the post office of one federation. Its methods are safe for
// concurrent use.
type Exchange struct {
	store      Store
	federation cose.Digest

	mu     sync.Mutex
	boxes  map[Address]*Box
	newest *Box // of the attached enclaves, the one with the highest rank
}

// New returns the exchange of the federation.
func New(s Store, federation cose.Digest) *Exchange {
	return &Exchange{store: s, federation: federation, boxes: make(map[Address]*Box)}
}

// Letter is one payload to send. Handle is the sender's choice and makes a
// repeated Post of the same payload one.
type Letter struct {
	Handle  [16]byte
	To      Address
	Payload []byte
}

// Post puts one sender's payloads into boxes, in this order, and returns for each
// nil, when it is durable, or why it was not stored. Many in one call cost about
// as much as one.
func (x *Exchange) Post(ctx context.Context, from Address, letters ...Letter) []error {
	errs := make([]error, len(letters))
	if !from.Valid() || from == NewestEnclave {
		for i := range errs {
			errs[i] = errAddress
		}
		return errs
	}
	var good []int
	for i, l := range letters {
		switch {
		case !l.To.Valid():
			errs[i] = errAddress
		case len(l.Payload) == 0 || len(l.Payload) > MaxPayload:
			errs[i] = fmt.Errorf("mailbox: %w: payload of %d bytes, want 1 to %d", ErrMalformed, len(l.Payload), MaxPayload)
		default:
			good = append(good, i)
		}
	}
	outcome := x.store.Enqueue(ctx, x.federation, from.String(), len(good), func(i int) ([16]byte, string, []byte) {
		l := &letters[good[i]]
		return l.Handle, l.To.String(), l.Payload
	})
	x.mu.Lock()
	defer x.mu.Unlock()
	for j, i := range good {
		if errs[i] = outcome[j]; errs[i] != nil {
			continue
		}
		if b := x.boxes[letters[i].To]; b != nil {
			b.wakeUp()
		}
		if letters[i].To == NewestEnclave && x.newest != nil {
			x.newest.wakeUp()
		}
	}
	return errs
}

// Attached returns how many boxes are open.
func (x *Exchange) Attached() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.boxes)
}

// Open opens a's box and ends one that was open before. rank orders enclaves by
// age, the newest highest; nodes have none. The caller closes the box.
func (x *Exchange) Open(a Address, rank int64) (*Box, error) {
	if !a.Valid() || a == NewestEnclave {
		return nil, errAddress
	}
	b := &Box{x: x, addr: a, rank: rank, wake: make(chan struct{}, 1), ended: make(chan struct{})}
	x.mu.Lock()
	defer x.mu.Unlock()
	if old := x.boxes[a]; old != nil {
		old.end()
	}
	x.boxes[a] = b
	if a.Role == Enclave {
		x.elect()
	}
	return b, nil
}

// elect finds the newest enclave again. x.mu is held.
func (x *Exchange) elect() {
	var newest *Box
	for a, b := range x.boxes {
		if a.Role == Enclave && (newest == nil || b.rank > newest.rank) {
			newest = b
		}
	}
	if newest != x.newest {
		x.newest = newest
		if newest != nil {
			newest.wakeUp() // what waits for the newest enclave is now its
		}
	}
}

// isNewest reports whether b takes what is sent to the newest enclave.
func (x *Exchange) isNewest(b *Box) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.newest == b
}
