package main

import (
	"encoding/binary"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMeasureScripts runs testdata/measure/*.txt, which find the smallest firmware
// images there are: a page with OVMF's table, in snp.fd and tdx.fd.
func TestMeasureScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/measure",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
		Setup: func(env *testscript.Env) error {
			for name, b := range map[string][]byte{"snp.fd": snpFirmware(), "tdx.fd": tdxFirmware()} {
				if err := os.WriteFile(filepath.Join(env.WorkDir, name), b, 0o644); err != nil {
					return err
				}
			}
			return nil
		},
	})
}

// snpFirmware has one page of each kind that the firmware of an SNP guest asks
// for.
func snpFirmware() []byte {
	meta := words([]byte("ASEV"), 16+4*12, 1, 4)
	meta = words(meta, 0x800000, 0x1000, 1, 0x801000, 0x1000, 2, 0x802000, 0x1000, 3, 0x803000, 0x1000, 0x10)
	return firmwarePage(meta,
		"666588dc4a989847a75e5585a7bf67cc", 0x800, // SEV metadata
		"de71f7007e1acb4f890e68c77e2fb44e", 0x80b004, // where an AP starts
		"1f3755723b3a044b927b1da6efa8d454", 0x803c00) // kernel hashes
}

// tdxFirmware is two measured pages, one of which is not in the image, and one of memory.
func tdxFirmware() []byte {
	meta := words([]byte("TDVF"), 16+2*32, 1, 2)
	meta = words(meta, 0, 0x1000, 0xffffe000, 0, 0x2000, 0, 0, 1)
	meta = words(meta, 0, 0, 0x800000, 0, 0x1000, 0, 3, 0)
	return firmwarePage(meta, "35657ae44a989847865e4685a7bf8ec2", 0x800)
}

// firmwarePage has meta in its middle and OVMF's table, of pairs of a GUID in hex
// and a number, 32 bytes before its end.
func firmwarePage(meta []byte, entries ...any) []byte {
	var table []byte
	for i := 0; i < len(entries); i += 2 {
		table = words(table, uint32(entries[i+1].(int)))
		table = append(binary.LittleEndian.AppendUint16(table, 22), unhex(entries[i].(string))...)
	}
	table = binary.LittleEndian.AppendUint16(table, uint16(len(table)+18))
	table = append(table, unhex("de82b596b21ff745baeaa366c55a082d")...)
	b := make([]byte, 4096)
	copy(b[0x800:], meta)
	copy(b[4096-32-len(table):], table)
	return b
}

func words(b []byte, list ...uint32) []byte {
	for _, w := range list {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return b
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}
