package measure

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/concordat/concordat/internal/cose"
)

// Boot is what QEMU boots directly (-kernel with kernel-hashes=on). The firmware
// compares the hashes with what it is handed, so that they measure it.
type Boot struct {
	Kernel      cose.Digest // SHA-256 of the file
	Initrd      cose.Digest // SHA-256 of the file; [NoInitrd] if there is none
	CommandLine string      // without the NUL that QEMU adds
}

// NoInitrd is the SHA-256 of nothing: what stands for an initrd that there is
// not.
var NoInitrd = cose.Digest(sha256.Sum256(nil))

// The GUIDs of QEMU's table of hashes (target/i386/sev.c).
var (
	guidHashes  = parseGUID("9438d606-4f22-4cc9-b479-a793d411fd21")
	guidKernel  = parseGUID("4de79437-abd2-427f-b835-d5b172d2045b")
	guidInitrd  = parseGUID("44baf731-3a2f-4bd7-9af1-41e29169781d")
	guidCmdline = parseGUID("97d02dd8-bd20-4c94-aa78-e7714d36ab2a")
)

const (
	hashEntry  = 16 + 2 + sha256.Size   // GUID, u16 size of the entry, hash
	hashTable  = 16 + 2 + 3*hashEntry   // GUID, u16 size of the table, entries
	hashPadded = (hashTable + 15) &^ 15 // as QEMU pads it
)

// page returns the page with QEMU's table at an offset in it.
func (b *Boot) page(offset uint32) ([]byte, error) {
	if offset > pageSize-hashPadded {
		return nil, fmt.Errorf("%w: table of kernel hashes at 0x%x of its page runs over its end", ErrFirmware, offset)
	}
	p := make([]byte, pageSize)
	t := append(p[offset:offset], guidHashes[:]...)
	t = binary.LittleEndian.AppendUint16(t, hashTable)
	add := func(g guid, h [sha256.Size]byte) {
		t = append(t, g[:]...)
		t = binary.LittleEndian.AppendUint16(t, hashEntry)
		t = append(t, h[:]...)
	}
	add(guidCmdline, sha256.Sum256(append([]byte(b.CommandLine), 0)))
	add(guidInitrd, b.Initrd)
	add(guidKernel, b.Kernel)
	return p, nil
}
