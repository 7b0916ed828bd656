package collect

import (
	"fmt"
	"io"
	"os"

	"github.com/concordat/concordat/attestation"
	"github.com/google/go-configfs-tsm/configfs/configfsi"
)

// kernelFiles is the kernel's own tree. Unlike the client of go-configfs-tsm it reads
// no more than a report can have, creates no file, and keeps the kernel's errors.
type kernelFiles struct{}

var _ configfsi.Client = kernelFiles{}

// MkdirTemp creates an entry: the kernel fills it with attributes.
func (kernelFiles) MkdirTemp(dir, pattern string) (string, error) { return os.MkdirTemp(dir, pattern) }

// ReadDir lists a directory.
func (kernelFiles) ReadDir(dir string) ([]os.DirEntry, error) { return os.ReadDir(dir) }

// ReadFile reads an attribute of at most attestation.MaxCPUItem bytes. The host
// decides what is in a blob of certificates, and how long it is.
func (kernelFiles) ReadFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, attestation.MaxCPUItem+1))
	if err != nil {
		return nil, err
	}
	if len(b) > attestation.MaxCPUItem {
		return nil, fmt.Errorf("more than %d bytes", attestation.MaxCPUItem)
	}
	return b, nil
}

// WriteFile sets an attribute, in one write.
func (kernelFiles) WriteFile(name string, value []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(value)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// RemoveAll removes an entry. Its attributes are the kernel's and go with it.
func (kernelFiles) RemoveAll(dir string) error { return os.Remove(dir) }
