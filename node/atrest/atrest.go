// Package atrest keeps a node's at-rest key: what closes the secrets on its disk. The key
// lies in a file of its own; whoever deletes that closes all of them for ever.
//
// Start with [Open]. [Key.Seal] closes one file's content, [Key.AEAD] many small secrets
// in one file. The key itself leaves neither this package nor the file.
package atrest

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/concordat/concordat/internal/durable"
)

// File is the key's file, within the node's directory.
const File = "at-rest.key"

const (
	keySize  = 32
	saltSize = 32
	tagSize  = 16
)

// Overhead is by how many bytes a sealed content is longer than the content.
const Overhead = saltSize + tagSize

// ErrSealed is wrapped by [Key.Open]: the content is not what this key has sealed in that
// domain and with that binding.
var ErrSealed = errors.New("does not open: it was changed, belongs elsewhere, or " + File + " was replaced")

// Key is an at-rest key. It is safe for concurrent use.
type Key struct {
	secret [keySize]byte
	aead   cipher.AEAD
}

// String tells nothing: a key does not reach a log.
func (*Key) String() string { return "at-rest key" }

// GoString is String.
func (k *Key) GoString() string { return k.String() }

// Open reads the key of the node's directory dir, and makes one, durably, where there is
// none. Nobody else may be doing so.
func Open(fsys durable.FS, dir string) (*Key, error) {
	name := filepath.Join(dir, File)
	raw, err := durable.ReadFile(fsys, name, keySize)
	if errors.Is(err, fs.ErrNotExist) {
		raw = make([]byte, keySize)
		rand.Read(raw) // never fails: Go crashes the program instead
		err = durable.WriteFile(fsys, name, raw, 0o600)
	}
	if err != nil {
		return nil, err
	}
	if len(raw) != keySize {
		return nil, fmt.Errorf("%s is not %d bytes", name, keySize)
	}
	k := &Key{secret: [keySize]byte(raw)}
	block, err := aes.NewCipher(raw)
	if err != nil {
		return nil, err
	}
	k.aead, err = cipher.NewGCMWithRandomNonce(block)
	return k, err
}

// AEAD is AES-256-GCM under the key itself, with a random nonce for each secret: for fewer
// than 2^32 of them.
func (k *Key) AEAD() cipher.AEAD { return k.aead }

// Seal closes a content, under a key that it never has again: any number of contents, of
// any size up to 64 GiB, may be sealed. Only what is told the same domain and binding opens
// it. The domain names the format, with its version; the binding, what the content
// belongs to.
//
//	sealed = salt || AES-256-GCM(K, nonce 0, content, domain || 00 || binding)
//	K      = HKDF-SHA-256(at-rest key, salt, domain, 32)
//
// salt is 32 random bytes.
func (k *Key) Seal(domain string, binding, content []byte) []byte {
	var salt [saltSize]byte
	rand.Read(salt[:]) // never fails: Go crashes the program instead
	return k.seal(salt, domain, binding, content)
}

func (k *Key) seal(salt [saltSize]byte, domain string, binding, content []byte) []byte {
	aead := k.derive(salt[:], domain)
	out := append(make([]byte, 0, Overhead+len(content)), salt[:]...)
	return aead.Seal(out, make([]byte, aead.NonceSize()), content, associated(domain, binding))
}

// Open returns the content of what [Key.Seal] made, or an error that wraps [ErrSealed].
func (k *Key) Open(domain string, binding, sealed []byte) ([]byte, error) {
	if len(sealed) < Overhead {
		return nil, ErrSealed
	}
	aead := k.derive(sealed[:saltSize], domain)
	content, err := aead.Open(nil, make([]byte, aead.NonceSize()), sealed[saltSize:], associated(domain, binding))
	if err != nil {
		return nil, ErrSealed
	}
	return content, nil
}

func associated(domain string, binding []byte) []byte {
	return append(append([]byte(domain), 0), binding...)
}

// derive makes the cipher of one content. Its errors are about sizes, which are fixed here.
func (k *Key) derive(salt []byte, domain string) cipher.AEAD {
	key, err := hkdf.Key(sha256.New, k.secret[:], salt, domain, keySize)
	if err != nil {
		panic(fmt.Sprintf("atrest: %v", err))
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(fmt.Sprintf("atrest: %v", err))
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(fmt.Sprintf("atrest: %v", err))
	}
	return aead
}
