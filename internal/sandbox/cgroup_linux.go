package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// cgroup is the cgroup v2 directory of one app. A nil one is none.
type cgroup struct {
	dir *os.File
}

// enterCgroup makes the cgroup of an app with its limits, or returns nil if cfg
// names none. Nothing is in it yet.
func enterCgroup(cfg *Config) (*cgroup, error) {
	if cfg.Cgroup == "" {
		return nil, nil
	}
	path, err := os.MkdirTemp(cfg.Cgroup, "app-")
	if err != nil {
		return nil, &Refused{"cgroup", err}
	}
	var errs []error
	for file, value := range map[string]uint64{"memory.max": cfg.Limits.Memory, "pids.max": cfg.Limits.Processes} {
		if value == 0 {
			continue
		}
		// Not created: where a controller is not delegated its files are missing.
		f, err := os.OpenFile(filepath.Join(path, file), os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteString(strconv.FormatUint(value, 10))
			err = errors.Join(err, f.Close())
		}
		errs = append(errs, err)
	}
	dir, err := os.Open(path)
	if err := errors.Join(append(errs, err)...); err != nil {
		if dir != nil {
			dir.Close()
		}
		os.Remove(path)
		return nil, &Refused{"cgroup limits", fmt.Errorf("%s: %w", cfg.Cgroup, err)}
	}
	return &cgroup{dir}, nil
}

// remove kills what is still in the cgroup and removes it. The kernel takes a
// moment to forget the dead.
func (c *cgroup) remove() {
	if c == nil {
		return
	}
	path := c.dir.Name()
	c.dir.Close()
	_ = os.WriteFile(filepath.Join(path, "cgroup.kill"), []byte("1"), 0) // Linux 5.14; without it a straggler keeps the directory
	for wait := time.Millisecond; os.Remove(path) != nil && wait < time.Second; wait *= 2 {
		time.Sleep(wait)
	}
}
