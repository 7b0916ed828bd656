package attestation

import (
	"encoding/binary"

	"github.com/concordat/concordat/internal/cose"
)

// GPUNonce returns the nonce that GPU index i (from 0, in envelope order) must
// have signed for an enclave with these claims:
//
//	H("concordat/gpu/1", federation, policy digest, instance, u64be epoch,
//	  sign_pub, checkpoint root, u32be i)
//
// with H of protocol part 2. It reads neither the GPU digest nor the nonce tree
// of c: GPU evidence comes before both (protocol F19). A root that is none is
// hashed as 32 zeros.
func GPUNonce(c *Claims, i int) [32]byte {
	epoch := binary.BigEndian.AppendUint64(nil, c.Epoch)
	index := binary.BigEndian.AppendUint32(nil, uint32(i))
	return cose.Hash("concordat/gpu/1", c.Federation[:], c.Policy[:], c.Instance[:], epoch,
		c.SignPub.Encode(), c.Checkpoint.Root[:], index)
}

// GPUDigest returns the digest of the GPU items among items, in their order, as
// the claims name it: H("concordat/gpu-evidence/1", raw…). It is none if there
// is no GPU item.
func GPUDigest(items []Item) Digest {
	var raw [][]byte
	for _, it := range items {
		if it.Kind == KindGPU {
			raw = append(raw, it.Raw)
		}
	}
	if raw == nil {
		return Digest{}
	}
	return cose.Hash("concordat/gpu-evidence/1", raw...)
}
