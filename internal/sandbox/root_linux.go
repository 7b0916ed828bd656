package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// devices are the nodes that every app has. No terminal: an app could type into
// it.
var devices = []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"}

// tree is a detached copy of a part of the file system, to be attached at the
// same path of the new root.
type tree struct {
	path string
	fd   int
	dir  bool
}

// buildRoot makes a tmpfs with what o names the root of this mount namespace and
// lets go of the old one.
func buildRoot(o *order) error {
	// Nothing that is mounted from here on is seen outside.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	trees, err := openTrees(o)
	if err != nil {
		return err
	}
	// The new root is put together on top of the app's home: the one directory
	// that is surely there. Its own tree is open already.
	root := o.Dir
	if err := unix.Mount("tmpfs", root, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755,size=1m"); err != nil {
		return fmt.Errorf("mount new root: %w", err)
	}
	temp := o.Limits.TempBytes
	if temp == 0 {
		temp = defaultTemp
	}
	for _, m := range []struct {
		source, target, data string
		flags                uintptr
	}{
		{"proc", "/proc", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"tmpfs", "/tmp", fmt.Sprintf("mode=1777,size=%d", temp), unix.MS_NOSUID | unix.MS_NODEV},
		{"tmpfs", "/dev/shm", fmt.Sprintf("mode=1777,size=%d", temp), unix.MS_NOSUID | unix.MS_NODEV},
	} {
		if err := os.MkdirAll(root+m.target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.source, root+m.target, m.source, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	for _, t := range trees {
		if err := t.attach(root); err != nil {
			return err
		}
	}
	if err := writeUsers(root); err != nil {
		return err
	}
	return enterRoot(root)
}

// openTrees copies what o names, parents before children.
func openTrees(o *order) ([]tree, error) {
	var trees []tree
	add := func(path string, attr uint64, optional bool) error {
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) && optional {
			return nil
		}
		if err != nil {
			return err
		}
		// Recursive: the kernel does not let a new user namespace look under mounts.
		fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
		if err != nil {
			return fmt.Errorf("copy mount of %s: %w", path, err)
		}
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: attr}); err != nil {
			return fmt.Errorf("restrict mount of %s: %w", path, err)
		}
		trees = append(trees, tree{path, fd, info.IsDir()})
		return nil
	}
	if err := add(o.Dir, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV, false); err != nil {
		return nil, err
	}
	for _, p := range o.ReadOnly {
		if err := add(p, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV, false); err != nil {
			return nil, err
		}
	}
	if o.Socket != "" && !within(o.Socket, o.Dir) {
		if err := add(o.Socket, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC, false); err != nil {
			return nil, err
		}
	}
	for _, d := range devices {
		if err := add(d, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, true); err != nil {
			return nil, err
		}
	}
	for _, d := range o.Devices {
		if err := add(d, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, false); err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(trees, func(a, b tree) int { return strings.Compare(a.path, b.path) })
	return trees, nil
}

// attach mounts t at its path under root, which it makes if it is not there.
func (t tree) attach(root string) error {
	target := root + t.path
	if t.dir {
		if err := os.MkdirAll(target, 0o755); err != nil {
			return err
		}
	} else {
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		if f, err := os.OpenFile(target, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644); err == nil {
			f.Close()
		} else if !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if err := unix.MoveMount(t.fd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount %s: %w", t.path, err)
	}
	return unix.Close(t.fd)
}

// writeUsers names the app's user, unless the app was given /etc/passwd.
func writeUsers(root string) error {
	if err := os.MkdirAll(root+"/etc", 0o755); err != nil {
		return err
	}
	for name, line := range map[string]string{
		"/etc/passwd": fmt.Sprintf("app:x:%d:%d::/:/bin/false\n", appID, appID),
		"/etc/group":  fmt.Sprintf("app:x:%d:\n", appID),
	} {
		if exists(root + name) {
			continue
		}
		if err := os.WriteFile(root+name, []byte(line), 0o444); err != nil {
			return err
		}
	}
	return nil
}

// enterRoot makes root the root and forgets the old one: pivot_root(2), "." twice.
func enterRoot(root string) error {
	if err := unix.Chdir(root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount old root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	return unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, "")
}

func within(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

// minLandlock is the least version of Landlock: the first that can allow moving
// files between directories (ABI 2, Linux 5.19).
const minLandlock = 2

// restrictPaths puts Landlock over the new root: a second lock on the same doors,
// and one on TCP and signals.
func restrictPaths(o *order) error {
	abi, err := ll.LandlockGetABIVersion()
	if err != nil {
		return err
	}
	if abi < minLandlock {
		return fmt.Errorf("the kernel has Landlock version %d, want %d or newer", abi, minLandlock)
	}
	rules := []landlock.Rule{
		landlock.RWDirs(o.Dir, "/tmp", "/dev/shm").WithRefer(),
		landlock.RODirs("/proc"),
		landlock.ROFiles("/etc/passwd", "/etc/group"),
		landlock.RWFiles(devices...).IgnoreIfMissing(),
		landlock.RWFiles(o.Devices...).WithIoctlDev(),
	}
	if o.Socket != "" {
		rules = append(rules, landlock.RWFiles(o.Socket))
	}
	if o.Loopback {
		rules = append(rules, landlock.ConnectTCP(loopbackPort))
	}
	for _, p := range o.ReadOnly {
		info, err := os.Stat(p)
		if err != nil {
			return err
		}
		if info.IsDir() {
			rules = append(rules, landlock.RODirs(p))
		} else {
			rules = append(rules, landlock.ROFiles(p))
		}
	}
	// Version 7 is the newest that this was tried on; an older kernel enforces what
	// it knows. From 9 on, Landlock rules sockets too, which the root does here.
	return landlock.V7.BestEffort().Restrict(rules...)
}
