package ci

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/concordat/concordat/link"
)

// linkArgument makes this binary a link: the settings follow, in JSON.
const linkArgument = "--concordat-ci-link"

// linkSettings is the part of a link's configuration that a child is told.
type linkSettings struct {
	Data, Listen                 string
	Policies                     []string
	BatchAge, CheckpointInterval time.Duration
}

// spawnLink starts this binary as a link and returns it and its address once it
// serves. It ends when its standard input does: with this process, at the latest.
func spawnLink(c link.Config) (*linkProcess, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(linkSettings{c.Data, c.Listen, c.Policies, c.BatchAge, c.CheckpointInterval})
	if err != nil {
		return nil, err
	}
	p := &linkProcess{cmd: exec.Command(exe, linkArgument, string(b))}
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		return nil, fmt.Errorf("link did not start: %w", p.cmd.Wait())
	}
	p.address = lines.Text()
	return p, nil
}

// linkProcess is a link in a child.
type linkProcess struct {
	cmd     *exec.Cmd
	stdin   io.Closer
	address string
}

// linkMain is the child's main.
func linkMain(settings string) error {
	var s linkSettings
	if err := json.Unmarshal([]byte(settings), &s); err != nil {
		return err
	}
	l, err := link.New(link.Config{Data: s.Data, Listen: s.Listen, Policies: s.Policies, BatchAge: s.BatchAge, CheckpointInterval: s.CheckpointInterval})
	if err != nil {
		return err
	}
	fmt.Println(l.Address())
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	return l.Run(ctx)
}
