//go:build !cgo || !linux

package main

import (
	"errors"
	"fmt"

	"github.com/concordat/concordat/attestation/collect/gpuhelper"
)

// openDriver has no library to open.
func openDriver() (d gpuhelper.Driver, end func()) {
	return none{fmt.Errorf("this program was built without C and cannot load NVIDIA's library: build it with CGO_ENABLED=1 for Linux: %w", errors.ErrUnsupported)}, func() {}
}
