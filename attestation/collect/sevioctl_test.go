//go:build linux && sevioctl

package collect

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/sim"
	"github.com/concordat/concordat/attestation/snp"
	"github.com/concordat/concordat/verifier"
	labi "github.com/google/go-sev-guest/client/linuxabi"
)

// driver answers as drivers/virt/coco/sev-guest does, in the memory that it is
// pointed to.
type driver struct {
	k      *kernel
	errno  syscall.Errno
	fwErr  uint64
	status uint32
	size   uint32
}

func (d driver) ioctl(command uintptr, arg unsafe.Pointer) syscall.Errno {
	if command != 0xc0205302 { // _IOWR('S', 0x2, struct snp_guest_request_ioctl), 32 bytes
		return syscall.ENOTTY
	}
	req := (*labi.SnpUserGuestRequestABI)(arg)
	ext := (*labi.SnpExtendedReportReqABI)(req.ReqData)
	if req.GuestMsgVersion != 1 || ext.CertsLength != maxCertBlob || ext.Data.Vmpl != 0 {
		return syscall.EINVAL
	}
	if req.FwErr = d.fwErr; d.errno != 0 {
		ext.CertsLength = 5 * 4096
		return d.errno
	}
	answer := (*labi.SnpReportRespABI)(req.RespData)
	answer.Status, answer.ReportSize = d.status, d.size
	copy(answer.Data[:], d.k.answer(ext.Data.ReportData))
	copy(unsafe.Slice((*byte)(ext.CertsAddress), ext.CertsLength), d.k.certs)
	return 0
}

// older is a machine whose kernel has no configfs-tsm.
func older(t testing.TB, d driver) host {
	h := d.k.host(t)
	h.files = kept{d.k, map[string]error{"mkdir": os.ErrNotExist}}
	h.older = func() (*platform, asker, error) {
		return &platforms[0], func(data [64]byte) (report, certs []byte, err error) { return extendedReport(data, d.ioctl) }, nil
	}
	return h
}

// TestOlderKernel: where configfs-tsm is missing, the ioctl's report and certificates
// are accepted as those of configfs are; where it is there, the ioctl is not asked.
func TestOlderKernel(t *testing.T) {
	t.Parallel()
	for _, product := range []string{"Milan", "Genoa", "Turin"} {
		hardware := simulated(t, sim.Config{Platform: sim.PlatformSNP, Product: product})
		d := driver{k: newKernel(t, hardware), size: snp.Size}
		d.k.certs = certTable(t, documents(t, hardware, attestation.TypeAMDVCEK, attestation.TypeAMDChain))
		m := open(t, older(t, d), accepts(t, hardware))
		if err := m.AddEndorsements(context.Background(), documents(t, hardware, attestation.TypeAMDCRL)); err != nil {
			t.Fatal(err)
		}
		if r := appraise(t, m); r.Verdict() != verifier.PassSimulated {
			t.Errorf("%s: %s", product, r.Verdict())
		}
	}
}

// TestOnlyOlderKernels: where configfs-tsm is there, whatever it says, the device is
// not opened.
func TestOnlyOlderKernels(t *testing.T) {
	t.Parallel()
	hardware := simulated(t, sim.Config{Platform: sim.PlatformSNP})
	for _, provider := range []string{"sev_guest", "arm_cca_guest"} {
		k := newKernel(t, hardware)
		k.provider = provider
		h := k.host(t)
		h.older = func() (*platform, asker, error) {
			t.Errorf("%s: the device was opened beside configfs-tsm", provider)
			return nil, nil, errors.ErrUnsupported
		}
		_, err := h.open(context.Background(), Config{Policy: accepts(t, hardware), Now: time.Now})
		if errors.Is(err, errors.ErrUnsupported) != (provider != "sev_guest") {
			t.Errorf("%s: %v", provider, err)
		}
	}
}

// TestOlderKernelRefuses: what the driver, the firmware and the VMM refuse has its name.
func TestOlderKernelRefuses(t *testing.T) {
	t.Parallel()
	hardware := simulated(t, sim.Config{Platform: sim.PlatformSNP})
	for name, c := range map[string]struct {
		driver driver
		want   string
		again  bool
	}{
		"certificates too long": {driver{errno: syscall.EIO, fwErr: vmmInvalidLen << 32}, "need 20480 bytes", false},
		"busy":                  {driver{errno: syscall.EIO, fwErr: vmmBusy << 32}, "the host is busy", true},
		"interrupted":           {driver{errno: syscall.EINTR}, "SNP_GET_EXT_REPORT", true},
		"firmware":              {driver{errno: syscall.EIO, fwErr: 0x16}, "firmware status 0x16", false},
		"status":                {driver{status: 0x16, size: snp.Size}, "invalid parameters", false},
		"size":                  {driver{size: snp.Size - 1}, "a report of 1183 bytes", false},
	} {
		c.driver.k = newKernel(t, hardware)
		_, _, err := extendedReport([64]byte{1}, c.driver.ioctl)
		if err == nil || !strings.Contains(err.Error(), c.want) || passing(err) != c.again {
			t.Errorf("%s: %v, again %t", name, err, passing(err))
		}
	}
}

// TestNoDevice: the real call, to what is no device.
func TestNoDevice(t *testing.T) {
	t.Parallel()
	if thisHost.older == nil {
		t.Error("this build does not fall back to the device")
	}
	path := sevGuest(filepath.Join(t.TempDir(), "sev-guest"))
	if _, _, err := path.open(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("absent: %v", err)
	}
	if err := os.WriteFile(string(path), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := path.ask([64]byte{1}); !errors.Is(err, syscall.ENOTTY) {
		t.Errorf("a file: %v", err)
	}
}
