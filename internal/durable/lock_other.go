//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package durable

import (
	"errors"
	"fmt"
	"os"
	"runtime"
)

// Without a lock that dies with its process, two of them could write the same
// file: no lock is a refusal, never a silent success.
func lock(f *os.File) error {
	return fmt.Errorf("durable: lock %s on %s: %w", f.Name(), runtime.GOOS, errors.ErrUnsupported)
}

func unlock(*os.File) error { return nil }
