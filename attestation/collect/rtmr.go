package collect

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/concordat/concordat/attestation"
	"github.com/google/go-configfs-tsm/rtmr"
)

// ExtendRTMR extends run-time register 2 or 3 of a TDX guest by digest, a SHA-384:
// the register becomes SHA-384(register ‖ digest) and stays so until the guest ends.
// Registers 0 and 1 belong to the firmware. What is measured must be extended before
// it is used, and a verifier needs the list of what was, in order; whoever calls this
// keeps it. Other platforms have no such registers: the error wraps
// [errors.ErrUnsupported].
func (m *Machine) ExtendRTMR(index int, digest [48]byte) error {
	if m.platform.kind != attestation.KindTDX {
		return fmt.Errorf("collect: rtmr: %s has none: %w", m.platform.kind, errors.ErrUnsupported)
	}
	if index != 2 && index != 3 {
		return fmt.Errorf("collect: rtmr: register %d, want 2 or 3", index)
	}
	// Linux 6.16 and later, Documentation/ABI/testing/sysfs-devices-virtual-misc-tdx_guest.
	name := filepath.Join(m.host.registers, fmt.Sprintf("rtmr%d:sha384", index))
	err := kernelFiles{}.WriteFile(name, digest[:])
	if errors.Is(err, fs.ErrNotExist) {
		// Some distributions' kernels before that, /sys/kernel/config/tsm/rtmrs.
		err = rtmr.ExtendDigest(m.host.files, index, digest[:])
	}
	if err != nil {
		return fmt.Errorf("collect: rtmr %d: %w", index, err)
	}
	return nil
}
