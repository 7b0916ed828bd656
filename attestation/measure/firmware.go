package measure

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// MaxFirmware bounds a firmware image: QEMU's own limit for pc machines.
const MaxFirmware = 16 << 20

// ErrFirmware is wrapped by every error about a firmware image that cannot be
// measured for the platform.
var ErrFirmware = errors.New("firmware")

// guid is an EFI GUID as it lies in memory: its first three groups are
// little-endian (UEFI, appendix A).
type guid [16]byte

func parseGUID(s string) (g guid) {
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(b) != len(g) {
		panic("measure: internal error: GUID " + s)
	}
	copy(g[:], b)
	g[0], g[1], g[2], g[3] = b[3], b[2], b[1], b[0]
	g[4], g[5], g[6], g[7] = b[5], b[4], b[7], b[6]
	return g
}

// The GUIDs of OVMF's table (edk2, OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm).
var (
	guidFooter      = parseGUID("96b582de-1fb2-45f7-baea-a366c55a082d")
	guidHashTable   = parseGUID("7255371f-3a3b-4b04-927b-1da6efa8d454") // where the kernel-hashes table lies
	guidResetBlock  = parseGUID("00f771de-1a7e-4fcb-890e-68c77e2fb44e") // where an AP starts
	guidSEVMetadata = parseGUID("dc886566-984a-4798-a75e-5585a7bf67cc")
	guidTDXMetadata = parseGUID("e47a6535-984a-4798-865e-4685a7bf8ec2")
)

const (
	footerFromEnd = 32 // the table ends that many bytes before the end of the image
	entryHeader   = 18 // u16 size of the whole entry, then its GUID; both stand behind the data
)

// table is OVMF's table of GUIDed entries.
type table map[guid][]byte

// parseTable reads the table that ends 32 bytes before the end of the image and
// grows downwards. Of two entries with one GUID the first read counts, which is
// the nearest to the end, as in QEMU.
func parseTable(fw []byte) (table, error) {
	switch {
	case len(fw) > MaxFirmware:
		return nil, fmt.Errorf("%w of %d bytes, limit %d", ErrFirmware, len(fw), MaxFirmware)
	case len(fw) == 0 || len(fw)%pageSize != 0:
		return nil, fmt.Errorf("%w of %d bytes, want a multiple of %d: give the image as the VMM maps it, CODE and VARS together where it maps both", ErrFirmware, len(fw), pageSize)
	}
	end := len(fw) - footerFromEnd
	if guid(fw[end-16:end]) != guidFooter {
		return nil, fmt.Errorf("%w: no OVMF table before its end: not an OVMF image, or one without confidential computing", ErrFirmware)
	}
	size := int(binary.LittleEndian.Uint16(fw[end-entryHeader:]))
	if size < entryHeader || size > end {
		return nil, fmt.Errorf("%w: OVMF table of %d bytes", ErrFirmware, size)
	}
	t := table{}
	for rest := fw[end-size : end-entryHeader]; len(rest) > 0; {
		if len(rest) < entryHeader {
			return nil, fmt.Errorf("%w: OVMF table: %d stray bytes", ErrFirmware, len(rest))
		}
		n := int(binary.LittleEndian.Uint16(rest[len(rest)-entryHeader:]))
		if n < entryHeader || n > len(rest) {
			return nil, fmt.Errorf("%w: OVMF table: entry of %d bytes, %d are left", ErrFirmware, n, len(rest))
		}
		g := guid(rest[len(rest)-16:])
		if _, ok := t[g]; !ok {
			t[g] = rest[len(rest)-n : len(rest)-entryHeader]
		}
		rest = rest[:len(rest)-n]
	}
	return t, nil
}

// u32 returns the first 32 bits of an entry.
func (t table) u32(g guid, what string) (uint32, error) {
	b, ok := t[g]
	if !ok {
		return 0, fmt.Errorf("%w: no %s in its OVMF table", ErrFirmware, what)
	}
	if len(b) < 4 {
		return 0, fmt.Errorf("%w: %s of %d bytes", ErrFirmware, what, len(b))
	}
	return binary.LittleEndian.Uint32(b), nil
}

// metadata returns the bytes from a header with the magic number on, which an
// entry of the table gives as a distance from the end of the image.
func (t table) metadata(fw []byte, g guid, what, magic string) ([]byte, error) {
	distance, err := t.u32(g, what)
	if err != nil {
		return nil, err
	}
	if distance < 16 || uint64(distance) > uint64(len(fw)) {
		return nil, fmt.Errorf("%w: %s %d bytes before the end of %d", ErrFirmware, what, distance, len(fw))
	}
	b := fw[len(fw)-int(distance):]
	if !bytes.HasPrefix(b, []byte(magic)) {
		return nil, fmt.Errorf("%w: %s does not start with %q", ErrFirmware, what, magic)
	}
	return b, nil
}
