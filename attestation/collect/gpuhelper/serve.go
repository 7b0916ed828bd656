package gpuhelper

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Driver is the GPUs as their driver shows them: NVML in cmd/concordat-gpu. An error
// that wraps [errors.ErrUnsupported] means that this machine has no such thing.
type Driver interface {
	State() (State, error)
	// Evidence returns what GPU i signed over nonce; GPUs are counted from 0 in the
	// driver's order, which stays the same while the driver is loaded.
	Evidence(i int, nonce [32]byte) (GPU, error)
	// SetReady says whether all GPUs may accept work.
	SetReady(bool) error
}

// Serve reads one request from r, asks d, and writes one answer to w. It returns nil
// if the answer is no error. An error of d stands in the answer; of what it returns,
// only the text is the caller's to show.
func Serve(r io.Reader, w io.Writer, d Driver) error {
	a := answer{Version: Version}
	err := serve(r, d, &a)
	if err != nil {
		a = answer{Version: Version, Error: err.Error(), Unsupported: errors.Is(err, errors.ErrUnsupported)}
	}
	if werr := json.NewEncoder(w).Encode(a); werr != nil {
		err = errors.Join(err, fmt.Errorf("answer: %w", werr))
	}
	return err
}

func serve(r io.Reader, d Driver, a *answer) error {
	var q request
	if err := decode(r, maxIn, &q); err != nil {
		return fmt.Errorf("request: %w", err)
	}
	if err := q.check(); err != nil {
		return fmt.Errorf("request: %w", err)
	}
	switch q.Command {
	case commandState:
	case commandReady, commandNotReady:
		if err := d.SetReady(q.Command == commandReady); err != nil {
			return err
		}
	case commandEvidence:
		s, err := d.State()
		if err != nil {
			return err
		}
		if s.GPUs != len(q.Nonces) {
			return fmt.Errorf("%d nonces for %d GPUs", len(q.Nonces), s.GPUs)
		}
		if !s.Confidential { // NVML calls it an unknown error (driver 580, H100)
			return fmt.Errorf("confidential computing is off on this machine's GPUs, and so they sign nothing: turn it on at the host: %w", errors.ErrUnsupported)
		}
		for i, n := range q.Nonces {
			g, err := d.Evidence(i, n)
			if err != nil {
				return fmt.Errorf("gpu %d: %w", i, err)
			}
			a.GPUs = append(a.GPUs, g)
		}
	default:
		return fmt.Errorf("request: unknown command %.20q", q.Command)
	}
	s, err := d.State()
	if err != nil {
		return err
	}
	a.State = &s
	return a.check(&q) // what the other side would refuse is better said here
}
