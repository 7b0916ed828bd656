package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/policy/source"
)

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

// createFile writes a new file and never overwrites one.
func createFile(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return hinted(exitFail, fmt.Errorf("%s exists", path), "move it away, or write to another file with --out")
	}
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(fmt.Errorf("%s: %w", path, err), os.Remove(path))
	}
	return nil
}

// replaceFile writes a file so that a reader finds the old or the new one, whole.
func replaceFile(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("%s: %w", path, err), os.Remove(f.Name()))
	}
	return nil
}

// absent checks, before anything is made, that none of the files exists.
func absent(paths ...string) error {
	for _, p := range paths {
		switch _, err := os.Lstat(p); {
		case err == nil:
			return hinted(exitFail, fmt.Errorf("%s exists, and keys are never overwritten", p), "choose another directory with --out")
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	return nil
}

// policyFile is a policy in any of its three forms.
type policyFile struct {
	form   string // "yaml", "canonical" or "chain"
	policy *policy.Policy
	chain  *policy.Chain // of form "chain": policy is its head
}

// loadPolicy reads a policy in any form and checks it. The forms cannot be
// mistaken: a CBOR map starts with a byte that starts no UTF-8 text.
func loadPolicy(path string) (*policyFile, error) {
	b, err := readFile(path, policy.MaxChain)
	if err != nil {
		return nil, err
	}
	if len(b) == 0 || b[0] < 0xa0 || b[0] > 0xbf {
		p, err := source.Parse(b)
		if err != nil {
			return nil, located(path, err)
		}
		return &policyFile{"yaml", p, nil}, nil
	}
	if b[0] == 0xa2 { // a policy has more than two fields
		c, err := policy.ParseChain(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return &policyFile{"chain", c.Head(), c}, nil
	}
	p, err := policy.Decode(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &policyFile{"canonical", p, nil}, nil
}

// loadChain reads a signed chain and no other form.
func loadChain(path string) (*policy.Chain, error) {
	b, err := readFile(path, policy.MaxChain)
	if err != nil {
		return nil, err
	}
	c, err := policy.ParseChain(b)
	if err != nil {
		return nil, hinted(exitFail, fmt.Errorf("%s: %w", path, err), "give the signed chain that \"concordat policy adopt\" wrote")
	}
	return c, nil
}

// fileProblems are problems with the file that they are in.
type fileProblems struct {
	path string
	source.Problems
}

// located puts the file's name before every problem in it.
func located(path string, err error) error {
	var ps source.Problems
	if !errors.As(err, &ps) {
		return fmt.Errorf("%s: %w", path, err)
	}
	return &fileProblems{path, ps}
}

func (e *fileProblems) Unwrap() error { return e.Problems }

func (e *fileProblems) Error() string {
	s := ""
	for i, p := range e.Problems {
		sep := ": "
		if p.Line > 0 {
			sep = ":"
		}
		if i > 0 {
			s += "\n"
		}
		s += e.path + sep + p.String()
	}
	return s
}
