package measure

import (
	"encoding/binary"
	"flag"
	"os"
	"path/filepath"
	"testing"
)

// firmwareDir is where TestWriteFirmware leaves the made images, for the tools
// that testdata/README.md names.
var firmwareDir = flag.String("firmware", "", "write the made firmware images into this folder")

// image describes a made firmware image: a body of a pattern, the sections, and
// OVMF's table before the last 32 bytes. No code is in it.
type image struct {
	size   int
	snp    [][3]uint32 // address, size, type
	reset  uint32
	hashes uint32
	tdx    []tdxSection
}

// images are made; their names are those of the vectors in testdata.
var images = map[string]image{
	// As OvmfPkg/AmdSev lays it out.
	"amdsev": {size: 64 << 10, reset: 0x80b004, hashes: 0x810c00, snp: [][3]uint32{
		{0x800000, 0x9000, 1}, {0x80a000, 0x3000, 1}, {0x80d000, 0x1000, 2}, {0x80e000, 0x1000, 3}, {0x80f000, 0x1000, 4}, {0x811000, 0xf000, 1}, {0x810000, 0x1000, 0x10},
	}},
	// As OvmfPkgX64: no kernel hashes.
	"plain": {size: 32 << 10, reset: 0x80b004, snp: [][3]uint32{{0x800000, 0x9000, 1}, {0x80d000, 0x1000, 2}, {0x80e000, 0x1000, 3}}},
	// As OvmfPkg/IntelTdx, smaller.
	"tdvf": {size: 64 << 10, tdx: []tdxSection{
		{offset: 0x4000, size: 0xc000, address: 0xffff4000, memory: 0xc000, kind: 0, attributes: attributeExtend},
		{offset: 0, size: 0x4000, address: 0xffff0000, memory: 0x4000, kind: 1},
		{address: 0x810000, memory: 0x10000, kind: 3},
		{address: 0x80b000, memory: 0x2000, kind: 3},
		{address: 0x809000, memory: 0x2000, kind: 2},
	}},
}

func (i image) build() []byte {
	b := make([]byte, i.size)
	for n := range b {
		b[n] = byte(n ^ n>>8 ^ n>>12)
	}
	end := i.size - footerFromEnd
	table := []byte{}
	entry := func(g guid, v uint32) {
		table = binary.LittleEndian.AppendUint32(table, v)
		table = binary.LittleEndian.AppendUint16(table, 4+entryHeader)
		table = append(table, g[:]...)
	}
	if i.snp != nil {
		meta := []byte("ASEV")
		meta = binary.LittleEndian.AppendUint32(meta, uint32(snpHeader+len(i.snp)*snpEntry))
		meta = binary.LittleEndian.AppendUint32(meta, 1)
		meta = binary.LittleEndian.AppendUint32(meta, uint32(len(i.snp)))
		for _, s := range i.snp {
			for _, v := range s {
				meta = binary.LittleEndian.AppendUint32(meta, v)
			}
		}
		copy(b[end-0x400:], meta)
		entry(guidSEVMetadata, 0x400+footerFromEnd)
	}
	if i.tdx != nil {
		meta := []byte("TDVF")
		meta = binary.LittleEndian.AppendUint32(meta, uint32(tdvfHeader+len(i.tdx)*tdvfSection))
		meta = binary.LittleEndian.AppendUint32(meta, 1)
		meta = binary.LittleEndian.AppendUint32(meta, uint32(len(i.tdx)))
		for _, s := range i.tdx {
			meta = binary.LittleEndian.AppendUint32(meta, s.offset)
			meta = binary.LittleEndian.AppendUint32(meta, s.size)
			meta = binary.LittleEndian.AppendUint64(meta, s.address)
			meta = binary.LittleEndian.AppendUint64(meta, s.memory)
			meta = binary.LittleEndian.AppendUint32(meta, s.kind)
			meta = binary.LittleEndian.AppendUint32(meta, s.attributes)
		}
		g := parseGUID("e9eaf9f3-168e-44d5-a8eb-7f4d8738f6ae") // TDVF's, which QEMU does not ask for
		copy(b[end-0x810:], g[:])
		copy(b[end-0x800:], meta)
		entry(guidTDXMetadata, 0x800+footerFromEnd)
	}
	if i.reset != 0 {
		entry(guidResetBlock, i.reset)
	}
	if i.hashes != 0 {
		entry(guidHashTable, i.hashes)
	}
	table = binary.LittleEndian.AppendUint16(table, uint16(len(table)+entryHeader))
	table = append(table, guidFooter[:]...)
	copy(b[end-len(table):], table)
	return b
}

// The files that the vectors were made with.
var (
	kernelFile = []byte("a kernel, for the sake of its hash\n")
	initrdFile = []byte("an initrd\n")
)

const commandLine = "console=ttyS0 root=/dev/vda1 ro"

// TestWriteFirmware writes what testdata/vectors.sh measures with other tools.
func TestWriteFirmware(t *testing.T) {
	if *firmwareDir == "" {
		t.Skip("-firmware not given")
	}
	files := map[string][]byte{"kernel": kernelFile, "initrd": initrdFile}
	for name, i := range images {
		files[name+".fd"] = i.build()
	}
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(*firmwareDir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
