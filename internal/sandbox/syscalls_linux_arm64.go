package sandbox

import "golang.org/x/sys/unix"

const (
	auditArch    = unix.AUDIT_ARCH_AARCH64
	foreignCalls = 0 // there are none
)

// refusedHere are refused calls that other architectures do not have.
var refusedHere []uint32
