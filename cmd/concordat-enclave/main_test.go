package main

import (
	"errors"
	"testing"
)

// There is no machine to fall back on: what cannot be measured does not start.
func TestNoMachine(t *testing.T) {
	m, err := machine(nil)
	if m != nil || !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("got %v, %v", m, err)
	}
}
