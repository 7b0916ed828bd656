package merkle

import (
	"fmt"
)

// RootFromConsistency recomputes the root of the newer tree that proof leads to
// from the older one, which must not be empty. It is for receipts whose signature
// covers the newer root (RFC 9942): check the result against it, for where
// oldSize is a power of two another oldRoot leads to another root, without an
// error. Where both roots are known use [VerifyConsistency]. The sizes are not fixed by the roots: compare them with
// signed bytes. The error wraps [ErrProof].
func RootFromConsistency(oldSize, newSize uint64, proof []Hash, oldRoot Hash) (Hash, error) {
	switch {
	case oldSize == 0 || oldSize > newSize:
		return Hash{}, fmt.Errorf("%w: consistency from %d to %d leaves", ErrProof, oldSize, newSize)
	case oldSize == newSize:
		if len(proof) != 0 {
			return Hash{}, fmt.Errorf("%w: consistency proof is too long", ErrProof)
		}
		return oldRoot, nil
	case len(proof) == 0 || len(proof) > MaxProof+1:
		return Hash{}, fmt.Errorf("%w: consistency proof of %d elements", ErrProof, len(proof))
	}
	from, to, err := consistencyRoots(oldSize, newSize, proof, oldRoot)
	if err != nil {
		return Hash{}, err
	}
	if from != oldRoot {
		return Hash{}, fmt.Errorf("%w: proof starts from root %x, not %x", ErrProof, from[:8], oldRoot[:8])
	}
	return to, nil
}

// consistencyRoots returns both roots that proof leads to (RFC 9162 2.1.4.2,
// steps 1 to 7), for 0 < oldSize < newSize and a proof that is not empty.
func consistencyRoots(oldSize, newSize uint64, proof []Hash, oldRoot Hash) (from, to Hash, err error) {
	if oldSize&(oldSize-1) == 0 {
		proof = append([]Hash{oldRoot}, proof...)
	}
	fn, sn := oldSize-1, newSize-1
	for fn&1 == 1 {
		fn, sn = fn>>1, sn>>1
	}
	fr, sr := proof[0], proof[0]
	for _, c := range proof[1:] {
		if sn == 0 {
			return Hash{}, Hash{}, fmt.Errorf("%w: consistency proof is too long", ErrProof)
		}
		if fn&1 == 1 || fn == sn {
			fr, sr = NodeHash(c, fr), NodeHash(c, sr)
			for fn&1 == 0 && fn != 0 {
				fn, sn = fn>>1, sn>>1
			}
		} else {
			sr = NodeHash(sr, c)
		}
		fn, sn = fn>>1, sn>>1
	}
	if sn != 0 {
		return Hash{}, Hash{}, fmt.Errorf("%w: consistency proof is too short", ErrProof)
	}
	return fr, sr, nil
}
