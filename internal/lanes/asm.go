//go:build ignore

// Command asm writes lanes_amd64.s: the SHA-256 compression of four messages at once, by
// the SHA extensions (Intel SDM, volume 2, SHA256RNDS2, SHA256MSG1, SHA256MSG2; constants
// of FIPS 180-4, 4.2.2). One message leaves the unit idle while each instruction waits for
// the one before; the other message fills the gap.
package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

var k = [64]uint32{
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
	0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
	0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
	0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
}

// width is how many messages go side by side. Two already hide most of the latency; four
// keep the unit busy while the schedule of one of them is worked on (measured on Zen 4:
// two 1.6, four 1.85 times as fast as one by one).
const width = 4

// lane is one message: its state as the instructions want it, and where the last four
// groups of its schedule lie. Sixteen registers do not hold four schedules.
type lane struct {
	data       Register
	abef, cdgh VecPhysical
	w          [4]Mem
	saved      [2]Mem
}

func main() {
	constants := GLOBL("k256", RODATA|NOPTR)
	for i, v := range k {
		DATA(4*i, U32(v))
	}
	flip := GLOBL("flip", RODATA|NOPTR) // big-endian words
	for i, v := range []uint32{0x00010203, 0x04050607, 0x08090a0b, 0x0c0d0e0f} {
		DATA(4*i, U32(v))
	}
	vectors := []VecPhysical{X1, X2, X3, X4, X5, X6, X7, X8}
	temps := []VecPhysical{X9, X10, X11, X12} // turn by turn, one set a lane would not do better
	shuffle := X15

	TEXT("blocks", NOSPLIT, "func(states *[4][8]uint32, data *[4]*byte, n int)")
	Doc("blocks takes n blocks of 64 bytes at each of data into each of states.")
	states, pointers := Load(Param("states"), GP64()), Load(Param("data"), GP64())
	n := Load(Param("n"), GP64())
	table := GP64()
	LEAQ(constants, table)
	MOVOU(flip, shuffle)
	lanes := make([]*lane, width)
	state := func(i, half int) Mem { return Mem{Base: states, Disp: 32*i + 16*half} }
	for i := range lanes {
		l := &lane{data: GP64(), abef: vectors[2*i], cdgh: vectors[2*i+1], saved: [2]Mem{AllocLocal(16), AllocLocal(16)}}
		for j := range l.w {
			l.w[j] = AllocLocal(16)
		}
		lanes[i] = l
		MOVQ(Mem{Base: pointers, Disp: 8 * i}, l.data)
		Comment(fmt.Sprintf("state %d, as ABEF and CDGH", i))
		MOVOU(state(i, 0), temps[0])
		MOVOU(state(i, 1), l.cdgh)
		PSHUFD(Imm(0xb1), temps[0], temps[0])
		PSHUFD(Imm(0x1b), l.cdgh, l.cdgh)
		MOVO(temps[0], l.abef)
		PALIGNR(Imm(8), l.cdgh, l.abef)
		PBLENDW(Imm(0xf0), temps[0], l.cdgh)
	}
	TESTQ(n, n)
	JZ(LabelRef("done"))

	Label("block")
	for _, l := range lanes {
		MOVOU(l.abef, l.saved[0])
		MOVOU(l.cdgh, l.saved[1])
	}
	for group := range 16 {
		Comment(fmt.Sprintf("rounds %d to %d", 4*group, 4*group+3))
		for _, l := range lanes {
			w, last, before := temps[0], temps[1], temps[2]
			if group < 4 {
				MOVOU(Mem{Base: l.data, Disp: 16 * group}, w)
				PSHUFB(shuffle, w)
			} else {
				MOVOU(l.w[group%4], w) // of four groups ago
				MOVOU(l.w[(group+1)%4], before)
				SHA256MSG1(before, w)
				MOVOU(l.w[(group+3)%4], last)
				MOVOU(l.w[(group+2)%4], before)
				MOVO(last, temps[3])
				PALIGNR(Imm(4), before, temps[3])
				PADDD(temps[3], w)
				SHA256MSG2(last, w)
			}
			if group < 15 {
				MOVOU(w, l.w[group%4])
			}
			MOVOU(Mem{Base: table, Disp: 16 * group}, X0)
			PADDD(w, X0)
			SHA256RNDS2(X0, l.abef, l.cdgh)
			PSHUFD(Imm(0x0e), X0, X0)
			SHA256RNDS2(X0, l.cdgh, l.abef)
		}
	}
	for _, l := range lanes {
		MOVOU(l.saved[0], temps[0])
		PADDD(temps[0], l.abef)
		MOVOU(l.saved[1], temps[1])
		PADDD(temps[1], l.cdgh)
		ADDQ(Imm(64), l.data)
	}
	DECQ(n)
	JNZ(LabelRef("block"))

	Label("done")
	for i, l := range lanes {
		Comment(fmt.Sprintf("state %d, as FIPS 180-4 has it", i))
		PSHUFD(Imm(0x1b), l.abef, temps[0])
		PSHUFD(Imm(0xb1), l.cdgh, l.cdgh)
		MOVO(temps[0], l.abef)
		PBLENDW(Imm(0xf0), l.cdgh, l.abef)
		PALIGNR(Imm(8), temps[0], l.cdgh)
		MOVOU(l.abef, state(i, 0))
		MOVOU(l.cdgh, state(i, 1))
	}
	RET()

	TEXT("cpuid", NOSPLIT, "func(leaf, sub uint32) (eax, ebx, ecx, edx uint32)")
	Doc("cpuid is the instruction.")
	Load(Param("leaf"), EAX)
	Load(Param("sub"), ECX)
	CPUID()
	Store(EAX, Return("eax"))
	Store(EBX, Return("ebx"))
	Store(ECX, Return("ecx"))
	Store(EDX, Return("edx"))
	RET()
	Generate()
}
