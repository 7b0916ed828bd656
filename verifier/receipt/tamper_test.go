package receipt

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/concordat/concordat/internal/cose"
)

// tamperFields walks the CBOR of a message down through byte strings that hold
// CBOR, changes every value in turn, keeps all lengths right, and demands that no
// change verifies. It finds what a bit flip cannot: a field that is well-formed
// after the change, and not under the signature.
func tamperFields(t *testing.T, raw []byte, k *cose.Signer) {
	t.Helper()
	n := 0
	for _, m := range mutations(raw[1:]) { // past tag 18
		bad := append([]byte{raw[0]}, m.bytes...)
		if bytes.Equal(bad, raw) {
			continue
		}
		n++
		u, err := Parse(bad)
		if err != nil {
			continue
		}
		if _, err := u.Verify(k.Public()); err == nil {
			t.Errorf("%s: verifies", m.where)
		}
	}
	if n < 20 {
		t.Fatalf("only %d changes of %d bytes: the walker does not walk", n, len(raw))
	}
}

type mutation struct {
	where string
	bytes []byte
}

// mutations returns b, one CBOR item, with one leaf changed each.
func mutations(b []byte) []mutation {
	major, n, head, _ := readHead(b)
	var out []mutation
	add := func(where string, b []byte) { out = append(out, mutation{where, b}) }
	switch major {
	case 0, 1:
		add("integer+1", writeHead(major, n+1))
		if n > 0 {
			add("integer-1", writeHead(major, n-1))
		}
	case 2, 3:
		s := b[head : head+int(n)]
		if len(s) > 0 {
			c := bytes.Clone(s)
			c[len(c)/2] ^= 1
			add("string", append(writeHead(major, n), c...))
		}
		add("longer string", append(append(writeHead(major, n+1), s...), 'a'))
		if major == 2 && wellFormed(s) {
			for _, m := range mutations(s) {
				add("<"+m.where+">", append(writeHead(2, uint64(len(m.bytes))), m.bytes...))
			}
		}
	case 4, 5:
		items := int(n)
		if major == 5 {
			items *= 2
		}
		rest, before := b[head:], b[:head]
		for i := range items {
			size := itemSize(rest)
			for _, m := range mutations(rest[:size]) {
				after := rest[size:itemsSize(rest, items-i)]
				add(fmt.Sprintf("[%d].%s", i, m.where), append(append(bytes.Clone(before), m.bytes...), after...))
			}
			before, rest = b[:len(before)+size], rest[size:]
		}
	case 7:
		add("simple", []byte{0xf5})
	}
	return out
}

func readHead(b []byte) (major byte, n uint64, size int, ok bool) {
	if len(b) == 0 {
		return 0, 0, 0, false
	}
	major, low := b[0]>>5, b[0]&31
	if low < 24 {
		return major, uint64(low), 1, true
	}
	l := 1 << (low - 24)
	if low > 27 || len(b) < 1+l {
		return 0, 0, 0, false
	}
	var buf [8]byte
	copy(buf[8-l:], b[1:1+l])
	return major, binary.BigEndian.Uint64(buf[:]), 1 + l, true
}

func writeHead(major byte, n uint64) []byte {
	b := cose.Marshal(n) // the shortest head
	b[0] |= major << 5
	return b
}

func itemSize(b []byte) int {
	major, n, size, ok := readHead(b)
	if !ok {
		return -1
	}
	switch major {
	case 2, 3:
		if n > uint64(len(b)-size) {
			return -1
		}
		return size + int(n)
	case 4, 5:
		if major == 5 {
			n *= 2
		}
		if n > 1000 {
			return -1
		}
		rest := itemsSize(b[size:], int(n))
		if rest < 0 {
			return -1
		}
		return size + rest
	case 6:
		return -1
	}
	return size
}

func itemsSize(b []byte, n int) int {
	total := 0
	for range n {
		size := itemSize(b[total:])
		if size < 0 {
			return -1
		}
		total += size
	}
	return total
}

// wellFormed reports whether b is one map or array: a byte string that holds CBOR.
func wellFormed(b []byte) bool {
	return len(b) > 1 && (b[0]>>5 == 4 || b[0]>>5 == 5) && itemSize(b) == len(b)
}
