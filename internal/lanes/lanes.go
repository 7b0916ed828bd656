// Package lanes computes SHA-256 of several messages at once on one core, where the
// processor has instructions for it: four messages are interleaved, so that each fills the
// gaps in which the others wait. [Sum] is the only door. Results are crypto/sha256's, for
// every input, on every machine; where the instructions are missing, crypto/sha256
// computes them.
package lanes

import (
	"crypto/sha256"
	"encoding/binary"
)

// width is how many messages are interleaved.
const width = 4

// Sum sets sums[i] to SHA-256(prefix || msgs[i]). It panics unless both have one length.
// Four neighbours of equal length, at least a block, are hashed together; others one after
// another. Fewer gain nothing.
func Sum[H ~[sha256.Size]byte](sums []H, prefix byte, msgs [][]byte) {
	if len(sums) != len(msgs) {
		panic("lanes: internal error: sums and messages differ in number")
	}
	for i := 0; i < len(msgs); {
		if m := msgs[i:]; interleaves && len(m) >= width && alike(m[:width]) {
			for k, s := range four(prefix, (*[width][]byte)(m)) {
				sums[i+k] = H(s)
			}
			i += width
			continue
		}
		sums[i] = H(one(prefix, msgs[i]))
		i++
	}
}

func alike(msgs [][]byte) bool {
	for _, m := range msgs {
		if len(m) != len(msgs[0]) || len(m) < sha256.BlockSize {
			return false
		}
	}
	return true
}

// Interleaves reports whether this machine hashes several messages at once.
func Interleaves() bool { return interleaves }

func one(prefix byte, msg []byte) (sum [sha256.Size]byte) {
	h := sha256.New()
	h.Write([]byte{prefix})
	h.Write(msg)
	h.Sum(sum[:0])
	return sum
}

// start is the initial hash value (FIPS 180-4, 5.3.3).
var start = [8]uint32{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19}

// four hashes messages of one length, a block at least. The first block holds the prefix
// and is put together here, as is what is left behind the last whole block, with its
// padding (FIPS 180-4, 5.1.1).
func four(prefix byte, msgs *[width][]byte) (sums [width][sha256.Size]byte) {
	const block = sha256.BlockSize
	var (
		states [width][8]uint32
		edges  [width][2 * block]byte
		data   [width]*byte
	)
	size := len(msgs[0])
	for k, m := range msgs {
		states[k] = start
		edges[k][0] = prefix
		copy(edges[k][1:block], m)
		data[k] = &edges[k][0]
	}
	blocks(&states, &data, 1)
	at := block - 1
	if whole := (size - at) / block; whole > 0 {
		for k, m := range msgs {
			data[k] = &m[at]
		}
		blocks(&states, &data, whole)
		at += whole * block
	}
	left := size - at
	last := 1
	if left+1+8 > block {
		last = 2
	}
	for k, m := range msgs {
		e := edges[k][:last*block]
		clear(e[copy(e, m[at:]):])
		e[left] = 0x80
		binary.BigEndian.PutUint64(e[len(e)-8:], uint64(size+1)*8)
		data[k] = &edges[k][0]
	}
	blocks(&states, &data, last)
	for k := range states {
		for i, w := range states[k] {
			binary.BigEndian.PutUint32(sums[k][4*i:], w)
		}
	}
	return sums
}
