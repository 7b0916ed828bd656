package boot

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/concordat/concordat/internal/cose"
)

// Config is the file that --config names: all that a host may choose beside the
// policy. Its SHA-256 stands in the claims, so that whoever reads evidence knows which
// it was; the digest of no file is that of no bytes.
type Config struct {
	Link     string `json:"link,omitempty"`      // where --link does not say
	LogLevel string `json:"log_level,omitempty"` // "debug", "info" (default), "warn" or "error"

	digest cose.Digest
}

// maxConfig bounds the config file; a real one has a hundred bytes.
const maxConfig = 64 << 10

// readConfig reads the file strictly: a field that it does not know is an error.
func readConfig(path string) (*Config, error) {
	c := &Config{digest: cose.Sum(nil)}
	if path == "" {
		return c, nil
	}
	b, err := readFile(path, maxConfig)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(c); err != nil {
		return nil, usageError{fmt.Errorf("%s: %w", path, err)}
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, usageError{fmt.Errorf("%s: bytes after the object", path)}
	}
	c.digest = cose.Sum(b)
	return c, nil
}

// imageFile holds the digest of the measured image, in hex, put there when the image
// was built.
const imageFile = "/etc/concordat/image"

// imageDigest is what the claims name as the image: what the file says or, where
// there is none, the SHA-256 of this program. It is a name for people and decides
// nothing: a program could claim any. What runs is told by the launch measurement in
// the hardware's evidence, and that is what the policy lists.
func imageDigest(file string, executable func() (string, error)) (cose.Digest, error) {
	b, err := readFile(file, 128)
	if err == nil {
		d, err := cose.ParseDigest(strings.TrimSpace(string(b)))
		if err != nil {
			return cose.Digest{}, fmt.Errorf("%s: %w", file, err)
		}
		return d, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return cose.Digest{}, err
	}
	path, err := executable()
	if err != nil {
		return cose.Digest{}, fmt.Errorf("own executable: %w", err)
	}
	f, err := os.Open(path)
	if err != nil {
		return cose.Digest{}, fmt.Errorf("own executable: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return cose.Digest{}, fmt.Errorf("own executable: %w", err)
	}
	return cose.Digest(h.Sum(nil)), nil
}

// readFile reads a file of at most limit bytes.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s: more than %d bytes", path, limit)
	}
	return b, nil
}
