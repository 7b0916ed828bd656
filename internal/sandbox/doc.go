// Package sandbox starts an app as a process of its own that reaches nothing but
// its home, the files that it was given and one Unix socket. Daemons call [Init]
// first in main, and then [Start] for every app.
//
// # What holds a confined app
//
// On Linux, with [Sandbox]:
//
//   - user, mount, pid, network, ipc and uts namespaces of its own. There is no
//     network: the one interface is a loopback that is down. A Unix socket in the
//     file system works across network namespaces. An app that cannot use one
//     (Config.Loopback) gets the loopback up, with a listener of its daemon on it: a
//     socket stays in the network that it was made in, and [Init] hands it out;
//   - a root of its own, a tmpfs that nobody writes: Config.ReadOnly, the Socket
//     and Dir at their usual paths, /proc of its own processes, /tmp and /dev/shm
//     in bounded memory, and five devices. Other sockets and files do not exist in
//     it;
//   - Landlock over the same paths, and against plain TCP and signals to the
//     outside, as far as the kernel knows it, but at least version 2 (Linux 5.19);
//   - a filter over system calls (seccomp): none of what no app needs, such as
//     io_uring, bpf, keyrings, ptrace and mounts, and no sockets but Unix, IP and
//     netlink: AF_VSOCK reaches a virtual machine's host from any namespace;
//   - no capability, no way to get one (empty bounding set, no_new_privs), no
//     user namespaces, and the limits of Config.Limits;
//   - death with its daemon, and with it of everything that it started.
//
// # How
//
// Landlock, limits and capabilities are a process's own, and must be set between
// fork and exec, where Go runs no code of ours. So [Start] executes the daemon's
// own binary again, in the new namespaces, under the name "concordat-sandbox-init";
// [Init] sees the name, confines itself and executes the app in its place. What
// it needs comes over a pipe, for argument lists are public. The app is process 1
// of its namespace: a SIGTERM that it does not handle has no effect, and the
// SIGKILL after Config.KillGrace ends it.
//
// # What does not hold
//
// A bug of the kernel that a process can reach by the calls that are left is
// reachable. Files that the app may read tell it what is in them; metadata of the host (kernel version, uptime, load) is visible. An app of
// a daemon that runs as root acts with root's identity on the files it is given:
// run daemons as a user of their own.
//
// Nothing is confined by halves: what the kernel refuses fails the start with a
// [*Refused]. Only [None] starts an app unconfined.
package sandbox
