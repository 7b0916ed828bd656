package sim

import (
	"crypto/rsa"
	"fmt"
	"math/big"
	"sync"
)

// Sizes of AMD's ARK, ASK and ASVK (AMD 57230).
const (
	amdKeyBits  = 4096
	rsaExponent = 65537
)

// The labels of AMD's keys. All product lines of one Vendor share them.
const (
	keyARK  = "ark"
	keyASK  = "ask"  // above VCEKs
	keyASVK = "asvk" // above VLEKs
)

// amdKey returns AMD's RSA key with the given label.
func (v *Vendor) amdKey(label string) *rsa.PrivateKey {
	v.mu.Lock()
	defer v.mu.Unlock()
	if k, ok := v.rsa[label]; ok {
		return k
	}
	k, err := v.rsaKey(label)
	if err != nil {
		panic("sim: internal error: " + err.Error()) // of two primes there is a key
	}
	if v.rsa == nil {
		v.rsa = make(map[string]*rsa.PrivateKey)
	}
	v.rsa[label] = k
	return k
}

// rsaKey derives the RSA key with the given label from the seed. It takes some
// tenths of a second. crypto/rsa makes keys from fresh randomness alone, which
// would give every start of a simulation another vendor.
func (v *Vendor) rsaKey(label string) (*rsa.PrivateKey, error) {
	p, q := v.prime("rsa/"+label+"/p"), v.prime("rsa/"+label+"/q")
	one := big.NewInt(1)
	phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
	k := &rsa.PrivateKey{
		PublicKey: rsa.PublicKey{N: new(big.Int).Mul(p, q), E: rsaExponent},
		D:         new(big.Int).ModInverse(big.NewInt(rsaExponent), phi),
		Primes:    []*big.Int{p, q},
	}
	k.Precompute()
	if err := k.Validate(); err != nil {
		return nil, fmt.Errorf("key %s: %w", label, err)
	}
	return k, nil
}

// prime returns the first prime p at or above a derived number of half the bits
// of a key, both top bits set, for which rsaExponent has an inverse modulo p-1.
func (v *Vendor) prime(label string) *big.Int {
	const bits = amdKeyBits / 2
	p := new(big.Int).SetBytes(v.bytes(label, bits/8))
	p.SetBit(p, bits-1, 1).SetBit(p, bits-2, 1).SetBit(p, 0, 1)
	// Steps over multiples of small primes cost a division each, not a power.
	small := smallPrimes()
	rest := make([]uint64, len(small))
	for i, s := range small {
		rest[i] = new(big.Int).Mod(p, new(big.Int).SetUint64(s)).Uint64()
	}
	start := new(big.Int).Set(p)
	for step := uint64(0); ; step += 2 {
		if divisible(rest, small, step) {
			continue
		}
		p.Add(start, new(big.Int).SetUint64(step))
		usable := new(big.Int).Mod(p, big.NewInt(rsaExponent)).Cmp(big.NewInt(1)) != 0
		if usable && p.ProbablyPrime(16) {
			return p
		}
	}
}

func divisible(rest, small []uint64, step uint64) bool {
	for i, s := range small {
		if (rest[i]+step)%s == 0 {
			return true
		}
	}
	return false
}

// smallPrimes are the odd primes below 2^13.
var smallPrimes = sync.OnceValue(func() (out []uint64) {
next:
	for n := uint64(3); n < 1<<13; n += 2 {
		for _, p := range out {
			if n%p == 0 {
				continue next
			}
		}
		out = append(out, n)
	}
	return out
})
