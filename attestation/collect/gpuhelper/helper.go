package gpuhelper

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// Helper is the helper program, started anew for every call. Two processes at a time
// would share the GPUs' firmware; the caller makes one call after another.
type Helper struct {
	Path    string        // absolute; what lies there is part of the measured image
	Timeout time.Duration // of one call; after it, or when the context ends, the process is killed
}

// State returns the driver's state.
func (h Helper) State(ctx context.Context) (State, error) {
	s, _, err := h.call(ctx, request{Command: commandState})
	return s, err
}

// Evidence returns the state and the evidence of every GPU, of the i-th over
// nonces[i]. The state was read after the evidence.
func (h Helper) Evidence(ctx context.Context, nonces [][32]byte) (State, []GPU, error) {
	q := request{Command: commandEvidence}
	for _, n := range nonces {
		q.Nonces = append(q.Nonces, n)
	}
	return h.call(ctx, q)
}

// SetReady lets all GPUs accept work, or stops them, and reads back that it is so.
func (h Helper) SetReady(ctx context.Context, ready bool) error {
	q := request{Command: commandNotReady}
	if ready {
		q.Command = commandReady
	}
	s, _, err := h.call(ctx, q)
	if err == nil && s.Ready != ready {
		err = fmt.Errorf("gpu helper: %s: the driver still says ready=%t", q.Command, s.Ready)
	}
	return err
}

func (h Helper) call(ctx context.Context, q request) (State, []GPU, error) {
	q.Version = Version
	if err := q.check(); err != nil {
		return State{}, nil, fmt.Errorf("gpu helper: %w", err)
	}
	in, err := json.Marshal(q)
	if err != nil {
		return State{}, nil, fmt.Errorf("gpu helper: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, h.Timeout)
	defer cancel()
	a, err := h.run(ctx, in)
	if err == nil {
		err = a.check(&q)
	}
	if err != nil {
		return State{}, nil, fmt.Errorf("gpu helper: %s: %w", q.Command, err)
	}
	return *a.State, a.GPUs, nil
}

// run starts the process with in at its standard input and returns its answer. It
// gives the process no arguments, no environment and no open file but the three
// pipes. The process has ended when run returns.
//
// It uses os.StartProcess, not os/exec: there is nothing to look up in a path here,
// and the enclave starts no other program.
func (h Helper) run(ctx context.Context, in []byte) (*answer, error) {
	p, err := newPipes()
	if err != nil {
		return nil, err
	}
	defer p.close()
	proc, err := os.StartProcess(h.Path, []string{h.Path}, &os.ProcAttr{Dir: "/", Env: []string{}, Files: p.child[:]})
	if err != nil {
		return nil, err
	}
	p.closeChild() // or the reads below would never see an end
	stop := context.AfterFunc(ctx, func() {
		_ = proc.Kill() // it may have ended by itself
		p.close()       // nobody else may hold the pipes open longer
	})
	defer stop()

	words := make(chan string, 1)
	go func() { words <- lastWords(p.stderr) }()
	_, werr := p.stdin.Write(in)
	werr = errors.Join(werr, p.stdin.Close())
	var a answer
	derr := decode(p.stdout, maxOut, &a)
	if derr != nil {
		_ = proc.Kill() // it may be writing still
	}
	said := <-words
	st, err := proc.Wait()
	switch {
	case err != nil:
		return nil, err
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case derr == nil && a.Error != "" && a.Version == Version:
		if a.Unsupported {
			return nil, fmt.Errorf("%.1000s: %w", strings.TrimSuffix(a.Error, ": "+errors.ErrUnsupported.Error()), errors.ErrUnsupported)
		}
		return nil, fmt.Errorf("%.1000s", a.Error)
	case derr != nil:
		return nil, fmt.Errorf("answer: %w; %s%s", derr, st, said)
	case !st.Success():
		return nil, fmt.Errorf("%s%s", st, said)
	case werr != nil:
		return nil, fmt.Errorf("request: %w", werr)
	}
	return &a, nil
}

// pipes are the three standard files of the process, from both ends.
type pipes struct {
	child          [3]*os.File
	stdin          *os.File
	stdout, stderr *os.File
}

func newPipes() (*pipes, error) {
	p := new(pipes)
	var errs [3]error
	p.child[0], p.stdin, errs[0] = os.Pipe()
	p.stdout, p.child[1], errs[1] = os.Pipe()
	p.stderr, p.child[2], errs[2] = os.Pipe()
	if err := errors.Join(errs[:]...); err != nil {
		p.close()
		p.closeChild()
		return nil, err
	}
	return p, nil
}

// close closes this side's ends. Files that are closed, or were never open, are left
// alone: Close of them is an error that says nothing.
func (p *pipes) close() {
	for _, f := range []*os.File{p.stdin, p.stdout, p.stderr} {
		_ = f.Close()
	}
}

func (p *pipes) closeChild() {
	for _, f := range p.child {
		_ = f.Close()
	}
}

// lastWords reads all that a process complains about and returns the beginning, on
// one line.
func lastWords(r io.Reader) string {
	var b bytes.Buffer
	_, err := io.Copy(&b, io.LimitReader(r, 1000))
	if err == nil {
		_, err = io.Copy(io.Discard, r) // a full pipe would stop the process
	}
	if err != nil && b.Len() == 0 {
		return ""
	}
	return ": " + strings.Join(strings.Fields(b.String()), " ")
}
