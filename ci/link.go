package ci

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/concordat/concordat/ci/hostile"
	"github.com/concordat/concordat/internal/daemon/dial"
	"github.com/concordat/concordat/link"
)

// Through puts l between the link and every party: its rules decide what becomes of
// each message.
func Through(l *hostile.Link) Option { return func(s *settings) { s.through = l } }

// LogTo writes the logs of every daemon to w, which must be safe for concurrent use.
func LogTo(w io.Writer) Option { return func(s *settings) { s.output = w } }

// OnLinkOf starts no link but has that of another federation host this one as well.
// The link restarts for it.
func OnLinkOf(f *Federation) Option { return func(s *settings) { s.host = f } }

// LinkProcess runs the link as a process of its own, so that [Federation.KillLink]
// can kill it.
func LinkProcess() Option { return func(s *settings) { s.process = true } }

// policies writes the chains of all federations on f's link and returns the files.
func (f *Federation) policies() []string {
	f.t.Helper()
	var files []string
	for _, x := range append([]*Federation{f}, f.guests...) {
		file := filepath.Join(x.Dir, "policy.chain")
		if err := os.WriteFile(file, x.Chain.Encode(), 0o600); err != nil {
			f.t.Fatal(err)
		}
		files = append(files, file)
	}
	return files
}

// visit has the link of host serve f too.
func (f *Federation) visit(host *Federation) {
	f.t.Helper()
	host.guests = append(host.guests, f)
	host.RestartLink()
	f.Address, f.Link = host.Address, host.Link
}

// startLink starts the link on the address that it had before, if it had one.
func (f *Federation) startLink() {
	f.t.Helper()
	c := link.Config{Data: f.linkDir(), Listen: "127.0.0.1:0", Policies: f.policies(), BatchAge: 5 * time.Millisecond, CheckpointInterval: 50 * time.Millisecond}
	if f.Address != "" {
		a, err := dial.ParseAddress(f.Address)
		if err != nil {
			f.t.Fatal(err)
		}
		c.Listen = a.HostPort
	}
	if f.settings.link != nil {
		f.settings.link(&c)
	}
	if f.settings.process {
		f.Link = f.startLinkProcess(c)
	} else {
		c.Logger = f.log.With("daemon", "link")
		l, err := link.New(c)
		if err != nil {
			f.t.Fatal(err)
		}
		f.Address = l.Address()
		f.Link = run(l.Run)
	}
	d := f.Link
	f.t.Cleanup(func() { f.ended("link", d.Stop()) })
}

// RestartLink stops the link and starts it again on its data.
func (f *Federation) RestartLink() {
	f.t.Helper()
	if err := f.Link.Stop(); err != nil {
		f.t.Fatalf("link: %v", err)
	}
	f.startLink()
}

// CopyLink copies the data of the link, which must have been stopped.
func (f *Federation) CopyLink(to string) {
	f.t.Helper()
	if err := os.CopyFS(to, os.DirFS(f.linkDir())); err != nil {
		f.t.Fatal(err)
	}
}

// RollBackLink stops the link and starts it on the data of a copy.
func (f *Federation) RollBackLink(from string) {
	f.t.Helper()
	if err := f.Link.Stop(); err != nil {
		f.t.Fatalf("link: %v", err)
	}
	if err := os.RemoveAll(f.linkDir()); err != nil {
		f.t.Fatal(err)
	}
	if err := os.CopyFS(f.linkDir(), os.DirFS(from)); err != nil {
		f.t.Fatal(err)
	}
	f.startLink()
}

// startLinkProcess runs the link in a child of this test binary, which [Main] makes
// one.
func (f *Federation) startLinkProcess(c link.Config) *Daemon {
	f.t.Helper()
	p, err := spawnLink(c)
	if err != nil {
		f.t.Fatal(err)
	}
	f.Address, f.process = p.address, p
	return run(func(ctx context.Context) error {
		ended := make(chan error, 1)
		go func() { ended <- p.cmd.Wait() }()
		select {
		case <-ended:
			return nil // it was killed
		case <-ctx.Done():
			_ = p.stdin.Close()
			return <-ended
		}
	})
}

// KillLink kills the process of the link, as kill -9 does, and starts another on its
// data.
func (f *Federation) KillLink() {
	f.t.Helper()
	if err := f.process.cmd.Process.Kill(); err != nil {
		f.t.Fatal(err)
	}
	<-f.Link.Done()
	f.startLink()
}
