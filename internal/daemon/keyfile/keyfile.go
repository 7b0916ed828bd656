// Package keyfile keeps private keys in files: made once, never overwritten,
// readable by their owner alone.
//
// Start with [CreateSigner] and [ReadSigner], for a witness [CreateWitness] and [ReadWitness]. It encrypts nothing: whoever wants keys
// encrypted at rest puts them on a volume that is. On systems without Unix
// permissions it cannot tell who else may read a file, and says so by an error.
package keyfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/concordat/concordat/internal/cose"
)

// MaxSize bounds a key file, in bytes: an Ed25519 key in PEM has 119.
const MaxSize = 4096

// ErrPermissions is wrapped by the error for a key file that others can read or
// write.
var ErrPermissions = errors.New("key file is open to others")

// Create writes a new file with mode 0600, durably. It never overwrites: the
// error for a file that exists wraps [fs.ErrExist]. On another error nothing of
// the file stays.
func Create(path string, secret []byte) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s: %w, and keys are never overwritten", path, fs.ErrExist)
	}
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(path))
		}
	}()
	_, err = f.Write(secret)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// CreateSigner is [Create] for a signer's PKCS #8 key in PEM.
func CreateSigner(path string, s *cose.Signer) error {
	b, err := s.MarshalPEM()
	if err != nil {
		return err
	}
	return Create(path, b)
}

// Read returns the file's bytes. It refuses a file that group or others can read
// or write (the error wraps [ErrPermissions]), one that is no regular file, and
// one longer than [MaxSize]. Its errors never contain bytes of the file.
func Read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", path)
	}
	if runtime.GOOS == "windows" {
		return nil, fmt.Errorf("%s: permissions cannot be checked on %s", path, runtime.GOOS)
	}
	if p := info.Mode().Perm(); p&0o077 != 0 {
		return nil, fmt.Errorf("%s: %w: mode is %04o, want 0600; run \"chmod 600 %s\", and replace the key if others may have read it", path, ErrPermissions, p, path)
	}
	b, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(b) > MaxSize {
		return nil, fmt.Errorf("%s: more than %d bytes, not a key file", path, MaxSize)
	}
	return b, nil
}

// ReadSigner is [Read] for what [CreateSigner] wrote.
func ReadSigner(path string) (*cose.Signer, error) {
	b, err := Read(path)
	if err != nil {
		return nil, err
	}
	s, err := cose.ParsePEM(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}
