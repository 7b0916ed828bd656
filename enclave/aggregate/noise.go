package aggregate

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"math"
)

// noise is a source of normal deviates that nobody can tell without the secret, and that
// gives the same ones again to who has it: what is named first and made again once it may
// leave must be the same.
//
// Each deviate is half the sum of four of Box and Muller's (1958): one alone has so few
// possible values near a float that its low bits would tell what it was added to (Mironov
// 2012, doi:10.1145/2382196.2382264; Holohan and Braghin 2021, arXiv:2107.10138).
type noise struct {
	stream cipher.Stream
	buf    []byte
	rest   []byte
}

// newNoise returns the noise of one array.
func newNoise(secret [32]byte, array string) *noise {
	mac := hmac.New(sha256.New, secret[:])
	mac.Write([]byte("concordat/noise/v1\x00" + array))
	block, err := aes.NewCipher(mac.Sum(nil))
	if err != nil {
		panic(err) // 32 bytes are a key
	}
	return &noise{stream: cipher.NewCTR(block, make([]byte, aes.BlockSize)), buf: make([]byte, 8<<10)}
}

func (n *noise) uint64() uint64 {
	if len(n.rest) == 0 {
		clear(n.buf)
		n.stream.XORKeyStream(n.buf, n.buf)
		n.rest = n.buf
	}
	u := binary.LittleEndian.Uint64(n.rest)
	n.rest = n.rest[8:]
	return u
}

// next returns the next standard normal deviate.
func (n *noise) next() float64 {
	var sum float64
	for range 2 {
		u := float64(n.uint64()>>11+1) * 0x1p-53 // above 0, at most 1
		v := float64(n.uint64()>>11) * 0x1p-53
		sin, cos := math.Sincos(2 * math.Pi * v)
		sum += float64(math.Sqrt(-2*math.Log(u)) * (sin + cos)) // not fused
	}
	return sum / 2
}

// disturb adds noise of a standard deviation to x.
func disturb[F float](x []F, n *noise, sigma float64) {
	for i := range x {
		x[i] += F(float64(sigma * n.next()))
	}
}
