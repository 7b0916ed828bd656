package collect

import (
	"crypto/sha512"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/sim"
	"github.com/google/go-configfs-tsm/rtmr"
)

func TestExtendRTMR(t *testing.T) {
	t.Parallel()
	hardware := simulated(t, sim.Config{Platform: sim.PlatformTDX})
	p := accepts(t, hardware)
	one, two := sha512.Sum384([]byte("one")), sha512.Sum384([]byte("two"))

	t.Run("configfs", func(t *testing.T) {
		t.Parallel()
		k := newKernel(t, hardware)
		m := open(t, k.host(t), p)
		for _, d := range [][48]byte{one, two} {
			if err := m.ExtendRTMR(3, d); err != nil {
				t.Fatal(err)
			}
		}
		want := sha512.Sum384(append(make([]byte, 48), one[:]...))
		want = sha512.Sum384(append(want[:], two[:]...))
		if got, err := rtmr.GetDigest(k, 3); err != nil || [48]byte(got.Digest) != want {
			t.Errorf("register 3 is %x, want %x: %v", got.Digest, want, err)
		}
		for _, i := range []int{-1, 0, 1, 4} {
			if err := m.ExtendRTMR(i, one); err == nil || !strings.Contains(err.Error(), "want 2 or 3") {
				t.Errorf("register %d: %v", i, err)
			}
		}
	})
	t.Run("sysfs", func(t *testing.T) {
		t.Parallel()
		k := newKernel(t, hardware)
		h := k.host(t)
		file := filepath.Join(h.registers, "rtmr2:sha384")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		m := open(t, h, p)
		if err := m.ExtendRTMR(2, one); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(file); err != nil || string(got) != string(one[:]) {
			t.Errorf("%x was written, want %x: %v", got, one, err)
		}
		if got, err := rtmr.GetDigest(k, 2); err == nil && [48]byte(got.Digest) != [48]byte{} {
			t.Error("extended twice, in both places")
		}
	})
	t.Run("SNP", func(t *testing.T) {
		t.Parallel()
		hardware := simulated(t, sim.Config{Platform: sim.PlatformSNP})
		m := open(t, newKernel(t, hardware).host(t), accepts(t, hardware))
		if err := m.ExtendRTMR(3, one); !errors.Is(err, errors.ErrUnsupported) {
			t.Error(err)
		}
	})
}

// TestKernelFiles: attributes are read within a limit, and no file is made where the
// kernel has none.
func TestKernelFiles(t *testing.T) {
	t.Parallel()
	files, dir := kernelFiles{}, t.TempDir()
	name := filepath.Join(dir, "attribute")
	if err := files.WriteFile(name, []byte("x")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("written where there is none: %v", err)
	}
	for size, ok := range map[int]bool{0: true, attestation.MaxCPUItem: true, attestation.MaxCPUItem + 1: false} {
		if err := os.WriteFile(name, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := files.ReadFile(name)
		if (err == nil) != ok || ok && len(b) != size {
			t.Errorf("%d bytes: read %d, %v", size, len(b), err)
		}
	}
	entry, err := files.MkdirTemp(dir, "concordat-")
	if err != nil {
		t.Fatal(err)
	}
	if list, err := files.ReadDir(dir); err != nil || len(list) != 2 {
		t.Errorf("%v, %v", list, err)
	}
	if err := files.RemoveAll(entry); err != nil {
		t.Error(err)
	}
}
