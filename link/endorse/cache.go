package endorse

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/durable"
)

// Cache keeps answers in a folder: each under the SHA-256 of its bytes, and an
// index that says which answer an address gave last. A damaged entry is none. It
// is safe for concurrent use, also by several programs.
type Cache struct{ dir string }

// OpenCache returns the cache in dir, which it creates if need be.
func OpenCache(dir string) (*Cache, error) {
	for _, d := range []string{"answers", "index"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return nil, fmt.Errorf("endorsement cache: %w", err)
		}
	}
	return &Cache{dir}, nil
}

type cachedAnswer struct {
	_     struct{} `cbor:",toarray"`
	Body  []byte
	Chain string
}

type cachedIndex struct {
	_      struct{} `cbor:",toarray"`
	Key    string   // address and body of the request
	Answer cose.Digest
	At     int64 // Unix seconds
}

func (c *Cache) answer(d cose.Digest) string { return filepath.Join(c.dir, "answers", d.String()) }

func (c *Cache) index(key string) string {
	d := cose.Sum([]byte(key))
	return filepath.Join(c.dir, "index", hex.EncodeToString(d[:]))
}

// get returns the last answer for key and when it was given.
func (c *Cache) get(key string) (*answer, time.Time, bool) {
	if c == nil {
		return nil, time.Time{}, false
	}
	b, err := durable.ReadFile(durable.OS{}, c.index(key), maxBody)
	var i cachedIndex
	if err != nil || cose.Unmarshal(b, &i) != nil || i.Key != key {
		return nil, time.Time{}, false
	}
	b, err = durable.ReadFile(durable.OS{}, c.answer(i.Answer), 2*maxBody)
	var a cachedAnswer
	if err != nil || cose.Sum(b) != i.Answer || cose.Unmarshal(b, &a) != nil {
		return nil, time.Time{}, false
	}
	return &answer{a.Body, a.Chain}, time.Unix(i.At, 0), true
}

func (c *Cache) put(key string, a *answer, at time.Time) error {
	if c == nil {
		return nil
	}
	b := cose.Marshal(cachedAnswer{Body: a.Body, Chain: a.Chain})
	d := cose.Sum(b)
	if _, err := os.Lstat(c.answer(d)); errors.Is(err, fs.ErrNotExist) {
		if err := durable.WriteFile(durable.OS{}, c.answer(d), b, 0o600); err != nil {
			return fmt.Errorf("endorsement cache: %w", err)
		}
	}
	if err := durable.WriteFile(durable.OS{}, c.index(key), cose.Marshal(cachedIndex{Key: key, Answer: d, At: at.Unix()}), 0o600); err != nil {
		return fmt.Errorf("endorsement cache: %w", err)
	}
	return nil
}
