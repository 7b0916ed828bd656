//go:build linux && sevioctl

package collect

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"github.com/concordat/concordat/attestation/snp"
	labi "github.com/google/go-sev-guest/client/linuxabi"
	"golang.org/x/sys/unix"
)

func init() { thisHost.older = sevGuest(sevGuestDevice).open }

// The interface is Linux, include/uapi/linux/sev-guest.h. Its structures are those of
// go-sev-guest; that library's client would bring flags that lead to another device,
// and would wait two seconds between questions.
const (
	sevGuestDevice = "/dev/sev-guest"
	// maxCertBlob is SEV_FW_BLOB_MAX_SIZE: the kernel refuses a larger buffer.
	maxCertBlob = 0x4000
	// What the VMM says in the upper half of exitinfo2 (SNP_GUEST_VMM_ERR_INVALID_LEN
	// and _BUSY).
	vmmInvalidLen = 1
	vmmBusy       = 2
)

// sevGuest is the path of the sev-guest driver's device.
type sevGuest string

// open sees whether the device is there.
func (path sevGuest) open() (*platform, asker, error) {
	f, err := path.file()
	if err != nil {
		return nil, nil, err
	}
	if err := f.Close(); err != nil {
		return nil, nil, fmt.Errorf("sev-guest: %w", err)
	}
	return &platforms[0], path.ask, nil
}

func (path sevGuest) file() (*os.File, error) {
	f, err := os.OpenFile(string(path), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("sev-guest: %w: %w", err, errors.ErrUnsupported)
	}
	if err != nil {
		return nil, fmt.Errorf("sev-guest: %w", err)
	}
	return f, nil
}

// ask is an [asker]. It is the only question that is put to the device.
func (path sevGuest) ask(data [64]byte) (report, certs []byte, err error) {
	f, err := path.file()
	if err != nil {
		return nil, nil, err
	}
	defer f.Close() // nothing was written that could be lost
	return extendedReport(data, func(command uintptr, arg unsafe.Pointer) syscall.Errno {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), command, uintptr(arg))
		return errno
	})
}

// extendedReport gets a report of VMPL 0, the only one that a policy accepts. The
// kernel answers ENOTTY to a file that is no such device, EIO if the firmware or the
// VMM refused.
func extendedReport(data [64]byte, ioctl func(command uintptr, arg unsafe.Pointer) syscall.Errno) (report, certs []byte, err error) {
	ext := &labi.SnpExtendedReportReq{
		Data:        labi.SnpReportReqABI{ReportData: data},
		Certs:       make([]byte, maxCertBlob),
		CertsLength: maxCertBlob,
	}
	answer := new(labi.SnpReportRespABI)
	req := &labi.SnpUserGuestRequest{ReqData: ext, RespData: answer}
	abi := req.ABI()
	errno := ioctl(labi.IocSnpGetExtendedReport, abi.Pointer())
	runtime.KeepAlive(abi)                  // it holds what the kernel was pointed to
	if err := abi.Finish(req); err != nil { // the status in the answer
		return nil, nil, fmt.Errorf("sev-guest: SNP_GET_EXT_REPORT: %w", err)
	}
	switch vmm := req.FwErr >> 32; {
	case errno == 0:
	case errno == syscall.EIO && vmm == vmmInvalidLen:
		return nil, nil, fmt.Errorf("sev-guest: the host's certificates need %d bytes, the kernel passes on %d: %w", ext.CertsLength, maxCertBlob, errno)
	case errno == syscall.EIO && vmm == vmmBusy:
		return nil, nil, fmt.Errorf("sev-guest: the host is busy: %w", syscall.EAGAIN)
	default:
		return nil, nil, fmt.Errorf("sev-guest: SNP_GET_EXT_REPORT: %w (firmware status %#x)", errno, req.FwErr)
	}
	if answer.ReportSize != snp.Size {
		return nil, nil, fmt.Errorf("sev-guest: SNP_GET_EXT_REPORT: a report of %d bytes, want %d", answer.ReportSize, snp.Size)
	}
	return answer.Data[:snp.Size], ext.Certs, nil
}
