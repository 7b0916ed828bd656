package lanes

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"math/rand/v2"
	"slices"
	"testing"
)

// check compares Sum of msgs with crypto/sha256.
func check(t *testing.T, prefix byte, msgs [][]byte) {
	t.Helper()
	sums := make([][32]byte, len(msgs))
	Sum(sums, prefix, msgs)
	for i, m := range msgs {
		if want := sha256.Sum256(append([]byte{prefix}, m...)); sums[i] != want {
			t.Fatalf("message %d of %d, %d bytes: %x, want %x", i, len(msgs), len(m), sums[i], want)
		}
	}
}

// TestLengths goes through every length around the edges of blocks and padding, alike and
// not, at every alignment.
func TestLengths(t *testing.T) {
	t.Parallel()
	if !interleaves {
		t.Log("NOT TESTED: this processor has no SHA extensions; crypto/sha256 stands in")
	}
	r := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, 1<<17)
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	for n := range 300 {
		check(t, byte(n), [][]byte{data[n : 2*n], data[1000+n%17 : 1000+n%17+n], data[:n], data[2001 : 2001+n]})
		check(t, 0, [][]byte{data[:n], data[5 : 5+n+1], data[3 : 3+n], data[:n], data[1 : n+1], data[2 : n+2], data[3 : n+3]})
		check(t, 0xff, [][]byte{data[:n], data[:n], data[:n+1], data[7 : 7+n+1], data[9 : 9+n]})
	}
	for _, n := range []int{4096, 65535, 65536, 65552, 65553} {
		check(t, 0, [][]byte{data[:n], data[17 : 17+n], data[33 : 33+n], data[49 : 49+n], data[:n-1]})
	}
	check(t, 0, nil)
}

// TestKnown are the messages of FIPS 180-4's examples ("abc" and 448 bits), and of
// RFC 6962's empty leaf.
func TestKnown(t *testing.T) {
	t.Parallel()
	long := "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"
	for msg, want := range map[string]string{
		"abc": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
		long:  "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
		"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu": "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1",
	} {
		sums := make([][32]byte, 4)
		Sum(sums, msg[0], slices.Repeat([][]byte{[]byte(msg[1:])}, 4))
		for _, s := range sums {
			if hex.EncodeToString(s[:]) != want {
				t.Errorf("%q: %x, want %s", msg, s, want)
			}
		}
	}
}

func TestNumbersDiffer(t *testing.T) {
	t.Parallel()
	defer func() {
		if recover() == nil {
			t.Error("more sums than messages")
		}
	}()
	Sum(make([][32]byte, 2), 0, make([][]byte, 1))
}

func FuzzSum(f *testing.F) {
	f.Add([]byte{}, []byte{}, byte(0))
	f.Add(bytes.Repeat([]byte{1}, 63), bytes.Repeat([]byte{2}, 63), byte(0))
	f.Add(bytes.Repeat([]byte{1}, 64), bytes.Repeat([]byte{2}, 64), byte(1))
	f.Add(bytes.Repeat([]byte{1}, 119), bytes.Repeat([]byte{2}, 119), byte(0))
	f.Add(bytes.Repeat([]byte{1}, 200), bytes.Repeat([]byte{2}, 199), byte(0))
	f.Fuzz(func(t *testing.T, a, b []byte, prefix byte) {
		n := min(len(a), len(b))
		check(t, prefix, [][]byte{a[:n], b[:n], a[:n], b[:n], a, b})
	})
}

func BenchmarkSum(b *testing.B) {
	const n = 64<<10 + 16
	msgs := [][]byte{make([]byte, n), make([]byte, n), make([]byte, n), make([]byte, n)}
	sums := make([][32]byte, len(msgs))
	b.Run("lanes", func(b *testing.B) {
		b.SetBytes(4 * n)
		for b.Loop() {
			Sum(sums, 0, msgs)
		}
	})
	b.Run("crypto-sha256", func(b *testing.B) {
		b.SetBytes(4 * n)
		for b.Loop() {
			for i, m := range msgs {
				sums[i] = one(0, m)
			}
		}
	})
}
