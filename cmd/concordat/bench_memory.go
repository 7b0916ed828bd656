package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// peakMemory reads how much memory a process has, and had at most, in bytes (VmRSS and
// VmHWM of proc_pid_status(5)).
func peakMemory(pid int) (now, peak int64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		f := strings.Fields(s.Text())
		if len(f) != 3 || f[2] != "kB" {
			continue
		}
		n, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			return 0, 0, err
		}
		switch f[0] {
		case "VmRSS:":
			now = n << 10
		case "VmHWM:":
			peak = n << 10
		}
	}
	if peak == 0 {
		return 0, 0, errors.New("the kernel does not say how much memory a process had")
	}
	return now, peak, nil
}

// availableMemory returns how many bytes of memory programs can take without swapping
// (MemAvailable of proc_meminfo(5)).
func availableMemory() (int64, error) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) == 3 && f[0] == "MemAvailable:" && f[2] == "kB" {
			n, err := strconv.ParseInt(f[1], 10, 64)
			return n << 10, err
		}
	}
	return 0, errors.New("the kernel does not say how much memory is available")
}

// spent is what processors spent in a process, and in the kernel for it: in its own
// threads, and in those children that have ended and that it has waited for, with theirs.
type spent struct{ own, ended time.Duration }

// spentBy reads that of processes (utime, stime, cutime and cstime of proc_pid_stat(5), in
// hundredths of a second).
func spentBy(pids ...int) (all []spent, err error) {
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return nil, err
		}
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])) // the name may hold spaces
		if len(f) < 15 {
			return nil, errors.New("the kernel does not say what a process spent")
		}
		var ticks [4]int64
		for i := range ticks {
			if ticks[i], err = strconv.ParseInt(f[11+i], 10, 64); err != nil {
				return nil, err
			}
		}
		all = append(all, spent{time.Duration(ticks[0]+ticks[1]) * 10 * time.Millisecond, time.Duration(ticks[2]+ticks[3]) * 10 * time.Millisecond})
	}
	return all, nil
}

// spentByTrees sums up what processes and all their descendants spent so far.
func spentByTrees(pids []int) (sum time.Duration, err error) {
	all, err := spentBy(pids...)
	if err != nil {
		return 0, err
	}
	for i, pid := range pids {
		sum += all[i].own + all[i].ended
		for _, child := range childrenOfAll(pid) {
			below, err := spentByTrees([]int{child})
			if err != nil {
				continue // it has ended: the next look finds it in its parent
			}
			sum += below
		}
	}
	return sum, nil
}

// childrenOfAll returns the children of all threads of a process, if it runs.
func childrenOfAll(pid int) (pids []int) {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return nil
	}
	for _, t := range tasks {
		pids = append(pids, childrenOf(pid, t.Name())...)
	}
	return pids
}

// childrenOf returns the children of one thread of a process.
func childrenOf(pid int, tid string) (pids []int) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, tid))
	if err != nil {
		return nil
	}
	for f := range bytes.FieldsSeq(b) {
		if n, err := strconv.Atoi(string(f)); err == nil {
			pids = append(pids, n)
		}
	}
	return pids
}

// treeMemory is the memory that a process and each of its descendants had at most.
type treeMemory struct {
	pid  int
	stop context.CancelFunc
	done chan struct{}
	of   map[int]*processMemory // by process; the goroutine's until done is closed
}

// processMemory is what one process had at most, in bytes.
type processMemory struct {
	name string
	peak int64
}

// memoryEvery is how often the processes are looked at. The kernel keeps each one's peak,
// so that only what a process takes in its very last moments is missed.
const memoryEvery = 20 * time.Millisecond

// watchMemory looks at a process and its descendants until end is called.
func watchMemory(ctx context.Context, pid int) (*treeMemory, error) {
	if _, _, err := peakMemory(pid); err != nil {
		return nil, err
	}
	if _, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid)); err != nil {
		return nil, fmt.Errorf("the kernel does not list the children of a process: %w", err)
	}
	ctx, stop := context.WithCancel(ctx)
	m := &treeMemory{pid: pid, stop: stop, done: make(chan struct{}), of: make(map[int]*processMemory)}
	go func() {
		defer close(m.done)
		t := time.NewTicker(memoryEvery)
		defer t.Stop()
		for {
			m.look(m.pid)
			select {
			case <-t.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	return m, nil
}

func (m *treeMemory) look(pid int) {
	_, peak, err := peakMemory(pid)
	if err != nil {
		return // it has ended
	}
	// Until a child is a program of its own, what it shows is its parent's.
	name := processName(pid)
	if p := m.of[pid]; p == nil || p.name != name || peak > p.peak {
		m.of[pid] = &processMemory{name, peak}
	}
	for _, child := range childrenOfAll(pid) {
		m.look(child)
	}
}

// end ends the looking, and returns by name what processes had: of several with one name,
// which ran after each other, the most.
func (m *treeMemory) end() map[string]int64 {
	m.stop()
	<-m.done
	all := make(map[string]int64)
	for _, p := range m.of {
		all[p.name] = max(all[p.name], p.peak)
	}
	return all
}

// processName is the program of a process, or the script that its interpreter runs.
func processName(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return "?"
	}
	args := strings.Split(string(b), "\x00")
	name := filepath.Base(args[0])
	if strings.HasPrefix(name, "python") && len(args) > 1 {
		name = filepath.Base(args[1])
	}
	return name
}
