package sandbox

import (
	"errors"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The system-call filter is a list of what no app needs, not of what apps need: that
// would change with every version of an interpreter and of a framework, and soon be wrong.
// What is on it has been the way into kernels again and again, or reaches what namespaces
// and Landlock do not confine. Most of it the kernel refuses without a capability; that is
// its word, and this is another.
//
// Sources: man pages of section 2, seccomp(2) for the form.
var refusedCalls = slices.Concat([]uint32{
	// The kernel itself, and the machine.
	unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD, unix.SYS_REBOOT,
	unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_ACCT, unix.SYS_QUOTACTL, unix.SYS_SYSLOG, unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME,
	unix.SYS_CLOCK_ADJTIME, unix.SYS_ADJTIMEX, unix.SYS_SETHOSTNAME, unix.SYS_SETDOMAINNAME, unix.SYS_VHANGUP,
	// Mounts and namespaces.
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK,
	unix.SYS_OPEN_TREE, unix.SYS_MOVE_MOUNT, unix.SYS_MOUNT_SETATTR, unix.SYS_UNSHARE, unix.SYS_SETNS,
	// Files by handle: around every path.
	unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_NAME_TO_HANDLE_AT, unix.SYS_FANOTIFY_INIT, unix.SYS_FANOTIFY_MARK,
	// Other processes.
	unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_KCMP, unix.SYS_PIDFD_GETFD, unix.SYS_PROCESS_MADVISE,
	// Large interfaces, with a history.
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER, unix.SYS_USERFAULTFD,
	unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEYCTL, unix.SYS_PERSONALITY, unix.SYS_LOOKUP_DCOOKIE, unix.SYS_NFSSERVCTL,
}, refusedHere)

// families of sockets that apps may open (address_families(7)). Above all not AF_VSOCK,
// by which a virtual machine talks to its host: no namespace confines it.
var families = []uint32{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK}

// Offsets in struct seccomp_data (seccomp(2)); of an argument the lower half on machines
// with the lowest byte first, which are those that have an auditArch here.
const (
	dataNumber   = 0
	dataArch     = 4
	dataArgument = 16
)

// filterCalls installs the filter, for this thread and what it executes. no_new_privs is
// set.
func filterCalls() error {
	if auditArch == 0 {
		return errors.New("its list is not known for this architecture")
	}
	program := callFilter()
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})), 0, 0)
}

// callFilter is the program in classic BPF.
func callFilter() (p []unix.SockFilter) {
	op := func(code uint16, k uint32, yes, no uint8) {
		p = append(p, unix.SockFilter{Code: code, Jt: yes, Jf: no, K: k})
	}
	load := func(offset uint32) { op(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, offset, 0, 0) }
	end := func(action uint32) { op(unix.BPF_RET|unix.BPF_K, action, 0, 0) }
	equal := func(k uint32, no uint8) { op(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, k, 0, no) }
	refuse := func(errno unix.Errno) { end(unix.SECCOMP_RET_ERRNO | uint32(errno)) }

	load(dataArch)
	op(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, auditArch, 1, 0)
	end(unix.SECCOMP_RET_KILL_PROCESS) // a number means another call there
	load(dataNumber)
	if foreignCalls != 0 {
		op(unix.BPF_JMP|unix.BPF_JGE|unix.BPF_K, foreignCalls, 0, 1)
		end(unix.SECCOMP_RET_KILL_PROCESS)
	}
	for _, call := range refusedCalls {
		equal(call, 1)
		refuse(unix.EPERM)
	}
	equal(unix.SYS_SOCKET, uint8(2+2*len(families)))
	load(dataArgument)
	for _, f := range families {
		equal(f, 1)
		end(unix.SECCOMP_RET_ALLOW)
	}
	refuse(unix.EAFNOSUPPORT)
	end(unix.SECCOMP_RET_ALLOW)
	return p
}
