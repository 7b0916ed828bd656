package chunkstore

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"

	"github.com/concordat/concordat/chunkstore/object"
)

// The labels of the key schedule. Each is followed by 00 and its context.
const (
	labelUp     = "concordat/chunk/1/up"
	labelDown   = "concordat/chunk/1/down"
	labelOne    = "concordat/chunk/1/one"
	labelObject = "concordat/chunk/1/object"
	labelAEAD   = "concordat/chunk/1/aead"
	labelCommit = "concordat/chunk/1/commit"
	labelRun    = "concordat/run/1/commit"
)

// expand is HKDF-Expand with SHA-256 (RFC 5869 2.3) to 32 bytes.
func expand(prk [32]byte, info string) [32]byte {
	b, err := hkdf.Expand(sha256.New, prk[:], info, 32)
	if err != nil {
		panic("chunkstore: internal error: " + err.Error()) // only for lengths over 255 hashes
	}
	return [32]byte(b)
}

// Secret is K, the key of one contribution, of a run's downlink, or of what the
// enclave sends to one node in one step. It has no form that prints or encodes
// it. It is safe for concurrent use.
type Secret struct{ k hidden }

// hidden is a key or plaintext id that no fmt verb reaches, not even as an unexported field of
// a value that somebody else prints: fmt follows pointers, but calls no
// functions.
type hidden func() [32]byte

func hide(k [32]byte) hidden { return func() [32]byte { return k } }

// NewUplink returns the key of a node's contribution that answers step seq:
// HKDF-Expand(u, "concordat/chunk/1/up" || 00 || run || u64be seq). u is the
// node's secret of this run; run is the digest of the run statement.
func NewUplink(u [32]byte, run Digest, seq uint64) *Secret {
	return newSecret(u, labelUp, run, binary.BigEndian.AppendUint64(nil, seq))
}

// NewDownlink returns the key of what the enclave sends to every node of a run:
// HKDF-Expand(d, "concordat/chunk/1/down" || 00 || run || u32be generation).
// Every node of the run has it, so it proves nothing about who sealed.
func NewDownlink(d [32]byte, run Digest, generation uint32) *Secret {
	return newSecret(d, labelDown, run, binary.BigEndian.AppendUint32(nil, generation))
}

// NewOne returns the key of what the enclave sends to one node in step seq:
// HKDF-Expand(u, "concordat/chunk/1/one" || 00 || run || u64be seq).
func NewOne(u [32]byte, run Digest, seq uint64) *Secret {
	return newSecret(u, labelOne, run, binary.BigEndian.AppendUint64(nil, seq))
}

func newSecret(root [32]byte, label string, run Digest, counter []byte) *Secret {
	return &Secret{hide(expand(root, label+"\x00"+string(run[:])+string(counter)))}
}

// DownlinkCommit returns what the step statement that introduces a downlink
// secret says of it: HKDF-Expand(d, "concordat/run/1/commit"). It does not
// reveal d.
func DownlinkCommit(d [32]byte) Digest { return expand(d, labelRun) }

// String shows nothing of the key.
func (s *Secret) String() string { return "chunk secret" }

// GoString shows nothing of the key.
func (s *Secret) GoString() string { return "chunk secret" }

// Opening opens one object and no other: m, from which both its AEAD key and
// its commitment follow. Given to a reader it discloses that object; the bare
// AEAD key would not do, since the reader could not tell it from a second one.
type Opening struct {
	oid hidden
	m   hidden
}

// Opening returns the opening of the object oid:
// HKDF-Expand(K, "concordat/chunk/1/object" || 00 || oid).
func (s *Secret) Opening(oid object.ID) Opening {
	return Opening{hide(oid), hide(expand(s.k(), labelObject+"\x00"+string(oid[:])))}
}

// NewOpening returns an opening that somebody disclosed. Neither oid nor m is
// trusted: [Open] checks both against the chunk.
func NewOpening(oid object.ID, m [32]byte) Opening { return Opening{hide(oid), hide(m)} }

// Disclose returns m. Whoever has it reads the object.
func (o Opening) Disclose() [32]byte { return o.m() }

// String shows nothing of the key, nor of the object's id.
func (o Opening) String() string { return "chunk opening" }

// GoString shows nothing of the key, nor of the object's id.
func (o Opening) GoString() string { return "chunk opening" }

func (o Opening) commitment() [32]byte { return expand(o.m(), labelCommit) }

func (o Opening) aead() cipher.AEAD {
	key := expand(o.m(), labelAEAD)
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic("chunkstore: internal error: " + err.Error())
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		panic("chunkstore: internal error: " + err.Error())
	}
	return gcm
}
