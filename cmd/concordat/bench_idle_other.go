//go:build !linux

package main

import (
	"context"
	"errors"
	"time"
)

// idleProbe is there on Linux only.
type idleProbe struct{}

func startIdleProbe(context.Context, []int) (*idleProbe, error) {
	return nil, errors.New("the states of threads are read from Linux's /proc")
}

func (*idleProbe) end() {}

func (*idleProbe) between(_, _ time.Time) (float64, int) { return 0, 0 }
