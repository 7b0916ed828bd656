//go:build linux && !amd64 && !arm64

package sandbox

const (
	auditArch    = 0
	foreignCalls = 0
)

var refusedHere []uint32
