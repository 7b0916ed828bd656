package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is one child of the demo. What it writes goes to a log file, line by line,
// and to those who wait for a line.
type process struct {
	name  string
	path  string // of the log
	cmd   *exec.Cmd
	lines *feed[logLine]
	done  chan struct{} // closed when it has ended and was waited for

	mu      sync.Mutex // guards below
	leaving bool       // its end is wanted
	err     error      // set before done is closed
}

// logLine is a line of a daemon's JSON log; of another line, Msg is all of it.
type logLine struct {
	Level   string `json:"level"`
	Msg     string `json:"msg"`
	Reason  string `json:"reason"`
	Address string `json:"address"`
	Epoch   uint64 `json:"epoch"`
}

// maxLogLine bounds what is read of a line.
const maxLogLine = 1 << 20

// processes are all children of the demo. When one ends that was not asked to, the
// demo ends.
type processes struct {
	dir  string // of the logs
	fail func(error)
	all  []*process
}

// start starts a child. Its environment is this program's, its standard input empty.
func (ps *processes) start(name string, command ...string) (*process, error) {
	p := &process{name: name, path: filepath.Join(ps.dir, name+".log"), lines: newFeed[logLine](), done: make(chan struct{})}
	log, err := os.OpenFile(p.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, joinClose(err, log)
	}
	p.cmd = exec.Command(command[0], command[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = w, w
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the demo, which ends its children in order
	err = p.cmd.Start()
	w.Close()
	if err != nil {
		r.Close()
		return nil, joinClose(fmt.Errorf("%s: %w", name, err), log)
	}
	ps.all = append(ps.all, p)
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer log.Close()
		defer r.Close()
		p.follow(r, log)
	}()
	go func() {
		err := p.cmd.Wait()
		<-read // a child of the child may hold the pipe; it dies with it
		p.mu.Lock()
		p.err = err
		wanted := p.leaving
		p.mu.Unlock()
		close(p.done)
		if !wanted {
			ps.fail(fmt.Errorf("%s ended by itself: %s", name, p.last()))
		}
	}()
	return p, nil
}

func joinClose(err error, c io.Closer) error {
	c.Close()
	return err
}

// follow copies the child's output to its log.
func (p *process) follow(r io.Reader, log io.Writer) {
	s := bufio.NewScanner(r)
	s.Buffer(nil, maxLogLine)
	for s.Scan() {
		fmt.Fprintf(log, "%s\n", s.Bytes())
		l := logLine{}
		if json.Unmarshal(s.Bytes(), &l) != nil || l.Msg == "" {
			l = logLine{Msg: s.Text()}
		}
		p.lines.add(l)
	}
	io.Copy(log, r) // after a line that is too long: keep the child from blocking
}

// last returns the last thing that the child said.
func (p *process) last() string {
	lines, _ := p.lines.since(max(0, p.lines.len()-1))
	if len(lines) == 0 {
		return "it said nothing"
	}
	l := lines[0]
	if l.Reason != "" {
		l.Msg += ": " + l.Reason
	}
	return strings.TrimPrefix(l.Msg, "concordat: ")
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// leave says that the child's end is wanted from now on.
func (p *process) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leaving = true
}

// wait waits for the child's end and returns its error.
func (p *process) wait(ctx context.Context) error {
	select {
	case <-p.done:
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// patience is how long a child may take to end when it is asked to.
const patience = 10 * time.Second

// stop asks the child to end, and ends it if it does not.
func (p *process) stop() {
	p.leave()
	p.signal(syscall.SIGCONT)
	p.signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(patience):
		p.signal(syscall.SIGKILL)
		<-p.done
	}
}

// signal signals the child alone. One that has ended is left alone: os.Process knows
// that it was waited for.
func (p *process) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

// stop ends all children, the last started first.
func (ps *processes) stop() {
	for _, p := range ps.all {
		p.leave()
	}
	var group sync.WaitGroup
	for i := len(ps.all) - 1; i > 0; i-- { // all but the link at once
		group.Go(ps.all[i].stop)
	}
	group.Wait()
	if len(ps.all) > 0 {
		ps.all[0].stop()
	}
}

// output runs a program to its end and returns what it printed.
func output(ctx context.Context, command ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.WaitDelay = patience
	out, err := cmd.Output()
	if err != nil {
		said := ""
		if exit, ok := err.(*exec.ExitError); ok {
			said = ": " + strings.TrimSpace(string(exit.Stderr))
		}
		return nil, fmt.Errorf("%s: %w%s", filepath.Base(command[0]), err, said)
	}
	return out, nil
}
