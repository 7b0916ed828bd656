package chunkstore

import (
	"bytes"
	"crypto/aes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/internal/merkle"
)

// element is one of GF(2^128) as GCM writes it (NIST SP 800-38D 6.3): the first
// bit is the coefficient of x^0.
type element struct{ hi, lo uint64 }

func toElement(b []byte) element {
	var full [16]byte
	copy(full[:], b)
	return element{binary.BigEndian.Uint64(full[:]), binary.BigEndian.Uint64(full[8:])}
}

func (x element) bytes() []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, x.hi), x.lo)
}

func (x element) add(y element) element { return element{x.hi ^ y.hi, x.lo ^ y.lo} }

func (x element) mul(y element) (z element) {
	for range 128 {
		bit := x.hi >> 63
		if bit == 1 {
			z = z.add(y)
		}
		x = element{x.hi<<1 | x.lo>>63, x.lo << 1}
		carry := y.lo & 1
		y = element{y.hi >> 1, y.lo>>1 | y.hi<<63}
		if carry == 1 {
			y.hi ^= 0xe1 << 56
		}
	}
	return z
}

// inverse is x^(2^128 - 2).
func (x element) inverse() element {
	r := element{hi: 1 << 63}
	for range 127 {
		x = x.mul(x)
		r = r.mul(x)
	}
	return r
}

// gcmParts is what of GCM depends on the key: H, the mask of the tag, and the
// key stream.
type gcmParts struct{ h, mask element }

func partsOf(o Opening, nonce [12]byte, stream []byte) gcmParts {
	key := expand(o.m(), labelAEAD)
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err)
	}
	var zero, out [16]byte
	block.Encrypt(out[:], zero[:])
	p := gcmParts{h: toElement(out[:])}
	for i := uint32(1); int(i-2)*16 < len(stream) || i == 1; i++ {
		counter := binary.BigEndian.AppendUint32(nonce[:12:12], i)
		block.Encrypt(out[:], counter)
		if i == 1 {
			p.mask = toElement(out[:])
		} else {
			copy(stream[(i-2)*16:], out[:])
		}
	}
	return p
}

func (p gcmParts) tag(aad, ciphertext []byte) element {
	var y element
	for _, part := range [][]byte{aad, ciphertext} {
		for ; len(part) > 0; part = part[min(16, len(part)):] {
			y = y.add(toElement(part[:min(16, len(part))])).mul(p.h)
		}
	}
	return y.add(element{uint64(len(aad)) * 8, uint64(len(ciphertext)) * 8}).mul(p.h).add(p.mask)
}

// TestDisclosureEquivocation: one AES-GCM ciphertext with its tag can be made to
// open under two keys to two texts, by one free block and one inversion in the
// field. Whoever sealed it may therefore not choose later what it holds: the
// header commits to one opening, and the second is refused.
func TestDisclosureEquivocation(t *testing.T) {
	t.Parallel()
	var oid object.ID // the cheat's: nothing is checked against it before Open
	first, second := NewOpening(oid, filled(0xa1)), NewOpening(oid, filled(0xb2))
	const n = 64 // blocks: the first text's, the second text's, a free one, the first's again
	header := newHeader(n, first.commitment())
	nonce := segmentNonce(0, true)
	var stream1, stream2 [n]byte
	p1, p2 := partsOf(first, nonce, stream1[:]), partsOf(second, nonce, stream2[:])

	ciphertext := make([]byte, n)
	xor := func(at int, text string, stream []byte) {
		for i := range text {
			ciphertext[at+i] = text[i] ^ stream[at+i]
		}
	}
	xor(0, "we found nothing", stream1[:])
	xor(16, "we found a leak!", stream2[:])
	xor(48, "signed: hospital", stream1[:])
	// The free block X is third of four, so it enters the tag as X·H³: one block
	// and the lengths follow it. Both tags are to be equal.
	h1, h2 := p1.h.mul(p1.h).mul(p1.h), p2.h.mul(p2.h).mul(p2.h)
	difference := p1.tag(header[:], ciphertext).add(p2.tag(header[:], ciphertext))
	x := difference.mul(h1.add(h2).inverse())
	copy(ciphertext[32:], x.bytes())
	tag := p1.tag(header[:], ciphertext)
	sealed := append(ciphertext, tag.bytes()...)

	text1, err := first.aead().Open(nil, nonce[:], sealed, header[:])
	if err != nil || !bytes.HasPrefix(text1, []byte("we found nothing")) {
		t.Fatalf("GCM under the first key: %q, %v", text1, err)
	}
	text2, err := second.aead().Open(nil, nonce[:], sealed, header[:])
	if err != nil || string(text2[16:32]) != "we found a leak!" {
		t.Fatalf("GCM under the second key: %q, %v", text2, err)
	}

	l := &Layout{header, []merkle.Hash{merkle.LeafHash(sealed)}}
	id, err := l.ID()
	if err != nil {
		t.Fatal(err)
	}
	o, err := NewOpener(id, l, first)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := o.OpenSegment(nil, 0, sealed); err != nil || !bytes.Equal(got, text1) {
		t.Errorf("the opening that was committed to: %q, %v", got, err)
	}
	if _, err := NewOpener(id, l, second); !errors.Is(err, ErrOpening) {
		t.Errorf("a second opening: %v, want ErrOpening", err)
	}
	stored := append(header[:], sealed...)
	if _, err := Open(nil, id, stored, NewOpening(object.Sum(text1), filled(0xa1))); err != nil {
		t.Errorf("the whole object: %v", err)
	}
	if _, err := Open(nil, id, stored, NewOpening(object.Sum(text2), filled(0xb2))); !errors.Is(err, ErrOpening) {
		t.Errorf("the whole object, a second time otherwise: %v, want ErrOpening", err)
	}
	// Moving the commitment moves the id, which somebody signed.
	moved := &Layout{newHeader(n, second.commitment()), l.Leaves}
	if _, err := NewOpener(id, moved, second); !errors.Is(err, ErrMismatch) {
		t.Errorf("a header for the second opening: %v, want ErrMismatch", err)
	}
}
