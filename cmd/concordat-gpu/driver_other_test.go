//go:build !cgo || !linux

package main

import (
	"errors"
	"strings"
	"testing"
)

// TestWithoutC: a build that cannot speak to GPUs says so, whatever it is asked.
func TestWithoutC(t *testing.T) {
	t.Parallel()
	d, end := openDriver()
	defer end()
	_, err1 := d.State()
	_, err2 := d.Evidence(0, [32]byte{})
	for _, err := range []error{err1, err2, d.SetReady(true)} {
		if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "CGO_ENABLED=1") {
			t.Error(err)
		}
	}
}
