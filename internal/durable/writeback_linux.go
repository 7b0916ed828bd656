package durable

import (
	"os"
	"syscall"
)

// Begin has the disk begin with n bytes at off that were written, so that Publish has less
// left to wait for. It is a hint: nothing is durable by it, and no error comes of it.
func (t *Temp) Begin(off, n int64) {
	const write = 2 // SYNC_FILE_RANGE_WRITE, sync_file_range(2)
	f, ok := t.File.(*os.File)
	if !ok {
		return
	}
	if c, err := f.SyscallConn(); err == nil {
		c.Control(func(fd uintptr) { syscall.SyncFileRange(int(fd), off, n, write) })
	}
}
