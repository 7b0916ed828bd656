package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"time"
)

// idleEvery is how often the processes are looked at. It is no divisor of the intervals
// that programs like to sleep for.
const idleEvery = 1700 * time.Microsecond

// idleProbe looks at the threads of some processes and their children, again and again.
// A moment is idle if none of them runs, is ready to, or waits for the disk (states R and
// D of proc_pid_stat(5)). Between processes of one machine, all that is waited for then is
// a timer: the share of idle moments bounds from above what a step spends on polling and
// sleeping.
type idleProbe struct {
	pids []int
	stop context.CancelFunc
	done chan struct{}
	at   []time.Time // the goroutine's until done is closed
	idle []bool
}

func startIdleProbe(ctx context.Context, pids []int) (*idleProbe, error) {
	if _, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", os.Getpid(), os.Getpid())); err != nil {
		return nil, fmt.Errorf("the kernel does not list the children of a process: %w", err)
	}
	ctx, stop := context.WithCancel(ctx)
	p := &idleProbe{pids: pids, stop: stop, done: make(chan struct{})}
	go p.run(ctx)
	return p, nil
}

func (p *idleProbe) run(ctx context.Context) {
	defer close(p.done)
	t := time.NewTicker(idleEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		p.at = append(p.at, time.Now())
		p.idle = append(p.idle, !anyBusy(p.pids))
	}
}

// end ends the probe and waits for it.
func (p *idleProbe) end() { p.stop(); <-p.done }

// between returns the share of idle moments, of those within the span, once the probe has
// ended.
func (p *idleProbe) between(from, to time.Time) (share float64, samples int) {
	idle := 0
	for i, t := range p.at {
		if t.After(from) && t.Before(to) {
			samples++
			if p.idle[i] {
				idle++
			}
		}
	}
	if samples == 0 {
		return 0, 0
	}
	return float64(idle) / float64(samples), samples
}

// anyBusy reports whether a thread of the processes, or of a descendant, is busy.
func anyBusy(pids []int) bool {
	for _, pid := range pids {
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			continue // it has ended
		}
		for _, t := range tasks {
			if s := threadState(pid, t.Name()); s == 'R' || s == 'D' {
				return true
			}
		}
		for _, t := range tasks {
			if children := childrenOf(pid, t.Name()); len(children) > 0 && anyBusy(children) {
				return true
			}
		}
	}
	return false
}

// threadState is the letter after the name, which is in parentheses and may hold some.
func threadState(pid int, tid string) byte {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/stat", pid, tid))
	if err != nil {
		return 0
	}
	if i := bytes.LastIndexByte(b, ')'); i >= 0 && i+2 < len(b) {
		return b[i+2]
	}
	return 0
}
