package node

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/concordat/concordat/internal/flower"
	"github.com/concordat/concordat/internal/flower/grpcapp"
	"github.com/concordat/concordat/internal/flower/httpapp"
	"github.com/concordat/concordat/internal/flower/process"
	"github.com/concordat/concordat/internal/loop"
	"github.com/concordat/concordat/node/state"
)

// worker is one start of an app: it takes one instruction, answers it, and ends.
type worker struct {
	program *program
	app     *flower.App
	box     *process.Process
	close   func() // ends it and removes what was made for it; called once
}

// start starts the run's app, which is compared with the digest that the policy lists at
// every start, in the state that the answer to a step has left. The caller closes the
// process, which ends with ctx at the latest.
func (a *apps) start(ctx context.Context, r *run, before state.Step) (w *worker, err error) {
	var undo []func()
	closeAll := func() {
		for i := len(undo) - 1; i >= 0; i-- {
			undo[i]()
		}
	}
	defer func() {
		if err != nil {
			closeAll()
		}
	}()
	x, err := a.program(r)
	if err != nil {
		return nil, err
	}
	if x.config.State, err = a.states.Read(r.digest, before); err != nil {
		return nil, err
	}
	fl, err := flower.NewApp(x.config)
	if err != nil {
		return nil, err
	}
	undo = append(undo, fl.Close)
	ctx, cancel := context.WithCancel(ctx)
	undo = append(undo, cancel)
	box, err := process.Start(ctx, process.Config{Program: x.start, Dir: a.dir, Token: fl.Token(), Isolation: a.isolation, Output: &lines{log: a.log.With("run", r.digest.Short())}})
	if err != nil {
		return nil, err
	}
	undo = append(undo, box.Remove)
	serve := grpcapp.Serve
	if x.start.Dialect.Runtime {
		serve = httpapp.Serve
	}
	served := make(chan error, 1)
	go func() { served <- serve(ctx, box.Listener, fl) }()
	undo = append(undo, func() { cancel(); <-served }, func() { box.Stop() })
	return &worker{program: x, app: fl, box: box, close: closeAll}, nil
}

// do has the process carry out one instruction. When it returns a reply, the process has
// handed over its state, or shown that it has none.
func (p *worker) do(ctx context.Context, in flower.Instruction) (*flower.Reply, error) {
	type answer struct {
		reply *flower.Reply
		err   error
	}
	answered := make(chan answer, 1)
	go func() {
		reply, err := p.app.Do(ctx, in)
		answered <- answer{reply, err}
	}()
	var got answer
	select {
	case got = <-answered:
	case <-p.box.Done():
		// The process is gone: whatever it pushed before has arrived.
		p.app.Close()
		if got = <-answered; got.err != nil {
			return nil, errors.Join(flower.NewFailure(int64(flower.CodeCrashed), ""), fmt.Errorf("app process ended: %s", p.box.Wait()), got.err)
		}
	}
	if got.err != nil {
		return nil, got.err
	}
	// It pushes its state now and ends by itself; one that asks for more messages
	// instead is ended.
	grace := time.NewTimer(appGrace)
	defer grace.Stop()
	select {
	case <-p.app.Done():
	case <-p.app.Again():
	case <-p.box.Done():
	case <-grace.C:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return got.reply, p.app.Left()
}

// standby is a process that was started before there is anything for it to do, so that
// the time it takes to start, seconds for Python with a framework, is off a round's path.
type standby struct {
	before   state.Step    // whose state it starts in
	made     chan struct{} // closed when the two below are set
	worker   *worker
	err      error
	claimed  atomic.Bool   // who sets it closes the process
	unwanted chan struct{} // closed when the run has ended
}

// prepare starts a process for the run's next instruction, in a job of l, which also ends
// it where nobody claims it. The instruction is taken to follow the answer to the step
// before.
func (a *apps) prepare(l *loop.Loop, r *run, before state.Step) {
	s := &standby{before: before, made: make(chan struct{}), unwanted: make(chan struct{})}
	a.mu.Lock()
	waiting := a.standby[r.digest] != nil
	if !waiting {
		a.standby[r.digest] = s
	}
	a.mu.Unlock()
	if waiting {
		return
	}
	l.Job(func(ctx context.Context) func() {
		s.worker, s.err = a.start(ctx, r, before)
		close(s.made)
		if s.err != nil {
			return nil // whoever has an instruction starts one, and says what is wrong
		}
		select {
		case <-s.unwanted:
		case <-s.worker.box.Done(): // ended by itself, or did its work
		case <-ctx.Done():
		}
		if s.claimed.CompareAndSwap(false, true) {
			s.worker.close()
		}
		return nil
	})
}

// claim returns the process that waits for an instruction of the run in that state, or
// starts one.
func (a *apps) claim(ctx context.Context, r *run, before state.Step) (*worker, error) {
	a.mu.Lock()
	s := a.standby[r.digest]
	delete(a.standby, r.digest)
	a.mu.Unlock()
	if s != nil && s.before != before {
		close(s.unwanted) // a successor of the enclave repeats the step that it follows
	} else if s != nil {
		select {
		case <-s.made:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if s.err == nil && s.claimed.CompareAndSwap(false, true) {
			select {
			case <-s.worker.box.Done(): // it ended while it waited
				s.worker.close()
			default:
				return s.worker, nil
			}
		}
	}
	return a.start(ctx, r, before)
}

// appGrace is how long an app has, after its answer, to hand over its state.
const appGrace = 30 * time.Second

// checkExecutable compares a program with the digest that the policy lists.
func checkExecutable(path string, want Digest) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("app: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return fmt.Errorf("app: %w", err)
	}
	if got := Digest(h.Sum(nil)); got != want {
		return fmt.Errorf("app %s has digest %s, the policy lists %s", path, got.Short(), want.Short())
	}
	return nil
}

// lines logs an app's output line by line, bounded. It stays on this node.
type lines struct {
	log *slog.Logger
	buf []byte
}

const maxLine = 4096

func (l *lines) Write(b []byte) (int, error) {
	n := len(b)
	for {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			if len(l.buf) < maxLine {
				l.buf = append(l.buf, b[:min(len(b), maxLine-len(l.buf))]...)
			}
			return n, nil
		}
		line := append(l.buf, b[:min(i, maxLine)]...)
		l.log.Debug("app output", "line", string(line))
		l.buf, b = l.buf[:0], b[i+1:]
	}
}
