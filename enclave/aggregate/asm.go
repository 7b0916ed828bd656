//go:build ignore

// Command asm writes kernel_amd64.s: weighted sums, a search for values beyond a bound, and
// sorting networks over rows. A row holds one contribution's values of some columns side by
// side: what puts the lower of two values of each column into one row and the higher into
// another, puts all columns in order at once (Batcher 1968, doi:10.1145/1468075.1468121).
package main

import (
	"fmt"
	"slices"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

const stride = 256 // bytes of a row

// kind is what differs between float32 and float64.
type kind struct {
	bits      int
	add, mul  func(...Op) // x + y, x * y
	broadcast func(...Op)
}

func main() {
	for _, k := range []kind{{32, VADDPS, VMULPS, VBROADCASTSS}, {64, VADDPD, VMULPD, VBROADCASTSD}} {
		k.weigh(false)
		k.distances()
		k.sum()
		sorter{k, false}.sort()
		sorter{k, true}.sort()
	}
	beyond()
	kind{32, VADDPS, VMULPS, VBROADCASTSS}.weigh(true)
	conversions()
	Generate()
}

// weigh adds contributions up: block by block in registers, through which they go one after
// another. Products and sums are rounded each, as numpy's are: to float16 if they are halves.
func (k kind) weigh(halves bool) {
	const block = 256 // bytes
	name, rounded := fmt.Sprintf("sum%d", k.bits), "."
	round := func(VecPhysical) {}
	if halves {
		name, rounded, round = "sumHalves", ", rounded to float16 as every product is.", half
	}
	TEXT(name, NOSPLIT, fmt.Sprintf("func(out *float%d, in []*float%[1]d, w []float%[1]d, n int, add bool)", k.bits))
	Doc(name+" sets out[:n] to the sum over k of in[k][:n]*w[k], or to itself and that sum, one after",
		"the other"+rounded,
		fmt.Sprintf("n is a positive multiple of %d and len(w) == len(in) > 0. in holds addresses of first", block*8/k.bits),
		"elements.")
	Pragma("noescape")
	out, in, weights := Load(Param("out"), GP64()), Load(Param("in").Base(), GP64()), Load(Param("w").Base(), GP64())
	count, end, add := Load(Param("in").Len(), GP64()), Load(Param("n"), GP64()), Load(Param("add"), GP8())
	SHLQ(Imm(uint64(k.bits/32+1)), end)
	at, c, x := GP64(), GP64(), GP64()
	sums := []VecPhysical{Y0, Y1, Y2, Y3, Y4, Y5, Y6, Y7}
	products := []VecPhysical{Y8, Y9, Y10, Y11, Y12, Y13, Y14}
	weight := Y15
	contribution := func() {
		MOVQ(Mem{Base: in, Index: c, Scale: 8}, x)
		k.broadcast(Mem{Base: weights, Index: c, Scale: uint8(k.bits / 8)}, weight)
	}
	XORQ(at, at)
	Label("block")
	XORQ(c, c)
	TESTB(add, add)
	JNZ(LabelRef("load"))
	contribution()
	for i, y := range sums {
		k.mul(Mem{Base: x, Index: at, Scale: 1, Disp: 32 * i}, weight, y)
		round(y)
	}
	INCQ(c)
	JMP(LabelRef("next"))
	Label("load")
	for i, y := range sums {
		VMOVUPS(Mem{Base: out, Index: at, Scale: 1, Disp: 32 * i}, y)
	}
	Label("next")
	CMPQ(c, count)
	JGE(LabelRef("store"))
	contribution()
	for i, y := range sums {
		p := products[i%len(products)]
		k.mul(Mem{Base: x, Index: at, Scale: 1, Disp: 32 * i}, weight, p)
		round(p)
		k.add(p, y, y)
		round(y)
	}
	INCQ(c)
	JMP(LabelRef("next"))
	Label("store")
	for i, y := range sums {
		VMOVUPS(y, Mem{Base: out, Index: at, Scale: 1, Disp: 32 * i})
	}
	ADDQ(U32(block), at)
	CMPQ(at, end)
	JLT(LabelRef("block"))
	VZEROUPPER()
	RET()
}

// distances adds up squared distances from one contribution to eight others. An element's
// squares are side by side in a vector, one for each of four of the others, so that every sum
// has its elements one after another.
func (k kind) distances() {
	const step = 4 // elements
	TEXT(fmt.Sprintf("distances%d", k.bits), NOSPLIT, fmt.Sprintf("func(sums *float64, x *float%d, y []*float%[1]d, n int)", k.bits))
	Doc(fmt.Sprintf("distances%d adds (x[i]-y[k][i])^2, in float64 and i ascending, to sums[k], for eight k and for i to", k.bits),
		fmt.Sprintf("n, which is a positive multiple of %d. x and y are addresses of first elements.", step))
	Pragma("noescape")
	sums, x, y := Load(Param("sums"), GP64()), Load(Param("x"), GP64()), Load(Param("y").Base(), GP64())
	end, at, row := Load(Param("n"), GP64()), GP64(), GP64()
	SHLQ(Imm(uint64(k.bits/32+1)), end)
	XORQ(at, at)
	load := func(from Register, to VecPhysical) {
		m := Mem{Base: from, Index: at, Scale: 1}
		if k.bits == 32 {
			VCVTPS2PD(m, to)
		} else {
			VMOVUPD(m, to)
		}
	}
	all := []VecPhysical{Y0, Y1}
	for i, s := range all {
		VMOVUPD(Mem{Base: sums, Disp: 32 * i}, s)
	}
	Label("next")
	load(x, Y2)
	for i, s := range all {
		d := []VecPhysical{Y3, Y4, Y5, Y6}
		for j, to := range d {
			MOVQ(Mem{Base: y, Disp: 8 * (4*i + j)}, row)
			load(row, to)
			VSUBPD(to, Y2, to)
			VMULPD(to, to, to)
		}
		VUNPCKLPD(d[1], d[0], Y7) // elements 0 and 2 of the first two
		VUNPCKHPD(d[1], d[0], Y8) // 1 and 3
		VUNPCKLPD(d[3], d[2], Y9)
		VUNPCKHPD(d[3], d[2], Y10)
		VPERM2F128(Imm(0x20), Y9, Y7, d[0])
		VPERM2F128(Imm(0x20), Y10, Y8, d[1])
		VPERM2F128(Imm(0x31), Y9, Y7, d[2])
		VPERM2F128(Imm(0x31), Y10, Y8, d[3])
		for _, element := range d {
			VADDPD(element, s, s)
		}
	}
	ADDQ(Imm(uint64(step*k.bits/8)), at)
	CMPQ(at, end)
	JLT(LabelRef("next"))
	for i, s := range all {
		VMOVUPD(s, Mem{Base: sums, Disp: 32 * i})
	}
	VZEROUPPER()
	RET()
}

// half rounds float32 values to float16's, of two to the even one.
func half(y VecPhysical) {
	VCVTPS2PH(Imm(0), y, y.(Vec).AsX())
	VCVTPH2PS(y.(Vec).AsX(), y)
}

// convert goes through memory, 16 elements at a time, from and to elements of so many bytes.
func convert(name, doc, signature string, from, to int, f func(in, out Mem)) {
	TEXT(name, NOSPLIT, signature)
	where := "begins where in begins."
	if from < to {
		where = "ends where in ends."
	}
	Doc(name+" "+doc+" n is a positive multiple of 16. out and in may be", "the same memory, if out "+where)
	Pragma("noescape")
	out, in, n := Load(Param("out"), GP64()), Load(Param("in"), GP64()), Load(Param("n"), GP64())
	Label("next")
	f(Mem{Base: in}, Mem{Base: out})
	ADDQ(Imm(uint64(16*from)), in)
	ADDQ(Imm(uint64(16*to)), out)
	SUBQ(Imm(16), n)
	JNZ(LabelRef("next"))
	VZEROUPPER()
	RET()
}

// conversions are between float32 and the types of two bytes.
func conversions() {
	const widening, narrowing, rounding = "func(out *float32, in *byte, n int)", "func(out *byte, in *float32, n int)", "func(out, in *float32, n int)"
	convert("widenHalves", "sets out to n values of float16.", widening, 2, 4, func(in, out Mem) {
		VCVTPH2PS(in, Y0)
		VCVTPH2PS(in.Offset(16), Y1)
		VMOVUPS(Y0, out)
		VMOVUPS(Y1, out.Offset(32))
	})
	convert("widenBrains", "sets out to n values of bfloat16.", widening, 2, 4, func(in, out Mem) {
		VPMOVZXWD(in, Y0)
		VPMOVZXWD(in.Offset(16), Y1)
		VPSLLD(Imm(16), Y0, Y0)
		VPSLLD(Imm(16), Y1, Y1)
		VMOVDQU(Y0, out)
		VMOVDQU(Y1, out.Offset(32))
	})
	convert("roundHalves", "rounds n values to float16's.", rounding, 4, 4, func(in, out Mem) {
		for i, y := range []VecPhysical{Y0, Y1} {
			VMOVUPS(in.Offset(32*i), y)
			half(y)
			VMOVUPS(y, out.Offset(32*i))
		}
	})
	convert("roundBrains", "rounds n values to bfloat16's.", rounding, 4, 4, func(in, out Mem) {
		for i := range 2 {
			VMOVDQU(in.Offset(32*i), Y0)
			VPSRLD(Imm(16), Y0, Y1)
			VPAND(constant(32, 1), Y1, Y1)
			VPADDD(constant(32, 0x7fff), Y1, Y1)
			VPADDD(Y0, Y1, Y1)
			Comment("NaN stays one")
			VPOR(constant(32, 0x00400000), Y0, Y2)
			VCMPPS(Imm(3), Y0, Y0, Y0)
			VBLENDVPS(Y0, Y2, Y1, Y1)
			VPAND(constant(32, 0xffff0000), Y1, Y1)
			VMOVDQU(Y1, out.Offset(32*i))
		}
	})
	convert("narrowHalves", "sets out to n values, rounded to float16.", narrowing, 4, 2, func(in, out Mem) {
		VMOVUPS(in, Y0)
		VMOVUPS(in.Offset(32), Y1)
		VCVTPS2PH(Imm(0), Y0, out)
		VCVTPS2PH(Imm(0), Y1, out.Offset(16))
	})
	convert("narrowBrains", "sets out to n values that are bfloat16's.", narrowing, 4, 2, func(in, out Mem) {
		VMOVDQU(in, Y0)
		VMOVDQU(in.Offset(32), Y1)
		VPSRLD(Imm(16), Y0, Y0)
		VPSRLD(Imm(16), Y1, Y1)
		VPACKUSDW(Y1, Y0, Y0)
		VPERMQ(Imm(0xd8), Y0, Y0)
		VMOVDQU(Y0, out)
	})
}

// beyond ors up what tells whether a value is beyond a bound.
func beyond() {
	TEXT("beyond", NOSPLIT, "func(b *byte, n int, mask, one uint64) uint64")
	Doc("beyond returns all of (w & mask) + one, of the n bytes' 64-bit words w, in one. n is a positive", "multiple of 128.")
	Pragma("noescape")
	b, n := Load(Param("b"), GP64()), Load(Param("n"), GP64())
	mask, one := Y14, Y15
	VPBROADCASTQ(NewParamAddr("mask", 16), mask)
	VPBROADCASTQ(NewParamAddr("one", 24), one)
	found := []VecPhysical{Y0, Y1, Y2, Y3}
	words := []VecPhysical{Y4, Y5, Y6, Y7}
	for _, y := range found {
		VPXOR(y, y, y)
	}
	ADDQ(b, n)
	Label("next")
	for i, y := range words {
		VPAND(Mem{Base: b, Disp: 32 * i}, mask, y)
		VPADDQ(one, y, y)
		VPOR(y, found[i], found[i])
	}
	ADDQ(U32(32*len(words)), b)
	CMPQ(b, n)
	JLT(LabelRef("next"))
	VPOR(Y1, Y0, Y0)
	VPOR(Y3, Y2, Y2)
	VPOR(Y2, Y0, Y0)
	VEXTRACTI128(Imm(1), Y0, X1)
	VPOR(X1, X0, X0)
	VPSRLDQ(Imm(8), X0, X1)
	VPOR(X1, X0, X0)
	result := GP64()
	VMOVQ(X0, result)
	VZEROUPPER()
	Store(result, ReturnIndex(0))
	RET()
}

// sum is what a trimmed mean needs of sorted rows.
func (k kind) sum() {
	TEXT(fmt.Sprintf("sum%dRows", k.bits), NOSPLIT, fmt.Sprintf("func(sums *float64, rows *float%d, n int)", k.bits))
	Pragma("noescape")
	Doc(fmt.Sprintf("sum%dRows sets sums, one for each column, to 0 plus the values of n rows of %d bytes, one", k.bits, stride), "row after another.")
	sums := Load(Param("sums"), GP64())
	row, left := GP64(), GP64()
	const wide = 4 // float64 in a vector
	bytes := k.bits / 8 * wide
	accumulators := []VecPhysical{Y0, Y1, Y2, Y3, Y4, Y5, Y6, Y7}
	for at := 0; at < stride; at += bytes * len(accumulators) {
		next, end := fmt.Sprintf("row%d", at), fmt.Sprintf("end%d", at)
		Load(Param("rows"), row)
		Load(Param("n"), left)
		for _, y := range accumulators {
			VXORPD(y, y, y)
		}
		Label(next)
		TESTQ(left, left)
		JZ(LabelRef(end))
		for i, y := range accumulators {
			from := Mem{Base: row, Disp: at + bytes*i}
			if k.bits == 32 {
				temp := []VecPhysical{Y8, Y9, Y10, Y11}[i%4]
				VCVTPS2PD(from, temp)
				VADDPD(temp, y, y)
			} else {
				VADDPD(from, y, y)
			}
		}
		ADDQ(U32(stride), row)
		DECQ(left)
		JMP(LabelRef(next))
		Label(end)
		for i, y := range accumulators {
			VMOVUPD(y, Mem{Base: sums, Disp: 8 * (at/(k.bits/8) + wide*i)})
		}
	}
	VZEROUPPER()
	RET()
}

// constant returns memory that holds value in every place of a vector.
func constant(bits int, value uint64) Mem {
	name := fmt.Sprintf("c%d_%x", bits, value)
	at, known := constants[name]
	if !known {
		at = GLOBL(name, RODATA|NOPTR)
		for i := 0; i < 64; i += bits / 8 {
			if bits == 32 {
				DATA(i, U32(value))
			} else {
				DATA(i, U64(value))
			}
		}
		constants[name] = at
	}
	return at
}

var constants = map[string]Mem{}

// sorter is a kind in vectors of AVX2 or, if it is wide, of AVX-512, which are twice as long
// and twice as many.
type sorter struct {
	kind
	wide bool
}

// size is how many bytes a vector has.
func (s sorter) size() int {
	if s.wide {
		return 64
	}
	return 32
}

// group is how many rows are sorted in registers.
func (s sorter) group() int {
	if s.wide {
		return 32
	}
	return 16
}

func (s sorter) registers() []VecPhysical {
	if s.wide {
		return []VecPhysical{Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15,
			Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23, Z24, Z25, Z26, Z27, Z28, Z29, Z30, Z31}
	}
	return []VecPhysical{Y0, Y1, Y2, Y3, Y4, Y5, Y6, Y7, Y8, Y9, Y10, Y11, Y12, Y13, Y14, Y15}
}

func (s sorter) move(from, to Op) {
	if s.wide {
		VMOVDQU64(from, to)
	} else {
		VMOVDQU(from, to)
	}
}

func (s sorter) sort() {
	name := fmt.Sprintf("sort%d", s.bits)
	if s.wide {
		name += "Wide"
	}
	TEXT(name, NOSPLIT, fmt.Sprintf("func(rows *float%d, heads []*float%[1]d, network []uint32, from, to int)", s.bits))
	Doc(fmt.Sprintf("%s sorts the columns of the rows that heads are the first values of, %d bytes each.", name, stride),
		fmt.Sprintf("len(heads) is a multiple of %d; rows has place for two rows more. Each %[1]d are sorted, then", s.group()),
		"the comparators of network follow, a row's number in the lower half, the other one's in the",
		"upper. Of the result rows from to to, without to, are made numbers again: NaN in columns in",
		"which a value is not finite.")
	Pragma("noescape")
	rows, heads := Load(Param("rows"), GP64()), Load(Param("heads").Base(), GP64())
	n := Load(Param("heads").Len(), GP64())
	lowest := GP64() // a row of the lowest of all values, and behind it one of the highest
	MOVQ(n, lowest)
	SHLQ(Imm(8), lowest)
	ADDQ(rows, lowest)
	s.groups(rows, lowest, heads, n)
	s.network(rows)
	s.numbers(rows, lowest)
	VZEROUPPER()
	RET()
}

// finite returns the lowest and the highest finite number, as flip makes integers of them.
func (s sorter) finite() (lowest, highest Mem) {
	if s.bits == 32 {
		return constant(s.bits, 0x80800000), constant(s.bits, 0x7f7fffff)
	}
	return constant(s.bits, 0x8010000000000000), constant(s.bits, 0x7fefffffffffffff)
}

// groups turns values into integers in the same order, and sorts group after group.
func (s sorter) groups(rows, lowest, heads, n Register) {
	at, end, row, out := GP64(), GP64(), GP64(), GP64()
	low, high := s.finite()
	y := s.registers()
	Comment("no value is known to be infinite or NaN")
	s.move(high, y[0])
	s.move(low, y[1])
	for v := 0; v < stride; v += s.size() {
		s.move(y[0], Mem{Base: lowest, Disp: v})
		s.move(y[1], Mem{Base: lowest, Disp: v + stride})
	}
	MOVQ(rows, out)
	MOVQ(heads, end)
	SHLQ(Imm(3), n)
	ADDQ(n, end)
	Label("group")
	CMPQ(heads, end)
	JEQ(LabelRef("sorted"))
	XORQ(at, at)
	Label("vector")
	s.inRegisters(batcher(s.group()), func(r int, into, temp VecPhysical) {
		MOVQ(Mem{Base: heads, Disp: 8 * r}, row)
		s.move(Mem{Base: row, Index: at, Scale: 1}, into)
		// The next strip, as far as the second cache: arrays often lie at addresses that push
		// each other out of the first one.
		PREFETCHT1(Mem{Base: row, Index: at, Scale: 1, Disp: stride})
		s.flip(into, temp)
	}, func(r int) Mem {
		return Mem{Base: out, Index: at, Scale: 1, Disp: stride * r}
	}, func(r int, x, temp VecPhysical) {
		switch r {
		case 0:
			s.extreme(x, temp, false, Mem{Base: lowest, Index: at, Scale: 1})
		case s.group() - 1:
			s.extreme(x, temp, true, Mem{Base: lowest, Index: at, Scale: 1, Disp: stride})
		}
	})
	ADDQ(Imm(uint64(s.size())), at)
	CMPQ(at, U32(stride))
	JNE(LabelRef("vector"))
	ADDQ(U32(8*s.group()), heads)
	ADDQ(U32(stride*s.group()), out)
	JMP(LabelRef("group"))
	Label("sorted")
}

// network runs the steps of a network over rows in memory.
func (s sorter) network(rows Register) {
	network, n := Load(Param("network").Base(), GP64()), Load(Param("network").Len(), GP64())
	low, high, distance, triple := GP64(), GP64(), GP64(), GP64()
	Label("step")
	TESTQ(n, n)
	JZ(LabelRef("done"))
	MOVWQZX(Mem{Base: network}, low)
	MOVWQZX(Mem{Base: network, Disp: 2}, high)
	SHLQ(Imm(8), low)
	ADDQ(rows, low)
	ADDQ(Imm(4), network)
	DECQ(n)
	BTL(Imm(15), high.(GPVirtual).As32())
	JCS(LabelRef("fused"))
	SHLQ(Imm(8), high)
	ADDQ(rows, high)
	s.rows([]Mem{{Base: low}, {Base: high}}, [2]int{0, 1})
	JMP(LabelRef("step"))
	Label("fused")
	MOVQ(high, distance)
	ANDQ(U32(1<<14-1), distance)
	SHLQ(Imm(8), distance)
	LEAQ(Mem{Base: distance, Index: distance, Scale: 2}, triple)
	all := []Mem{{Base: low}, {Base: low, Index: distance, Scale: 1}, {Base: low, Index: distance, Scale: 2},
		{Base: low, Index: triple, Scale: 1}, {Base: low, Index: distance, Scale: 4}}
	BTL(Imm(14), high.(GPVirtual).As32())
	JCS(LabelRef("five"))
	s.rows(all[:4], [2]int{0, 2}, [2]int{1, 3}, [2]int{1, 2})
	JMP(LabelRef("step"))
	Label("five")
	s.rows(all, [2]int{1, 3}, [2]int{2, 4}, [2]int{2, 3}, [2]int{0, 1})
	JMP(LabelRef("step"))
	Label("done")
}

// rows runs comparators over rows that stay in registers, vector by vector.
func (s sorter) rows(places []Mem, comparators ...[2]int) {
	y := s.registers()
	set := len(places) + 2
	for v := 0; v < stride; v += s.size() {
		of := slices.Clone(y[:set])
		y = append(y[set:], y[:set]...) // so that one vector need not wait for the last
		for i, p := range places {
			p.Disp = v
			s.move(p, of[i])
		}
		free, temp := of[set-2], of[set-1]
		for _, c := range comparators {
			a := of[c[0]]
			of[c[0]], of[c[1]] = s.compare(a, of[c[1]], free, temp)
			free = a
		}
		for i, p := range places {
			p.Disp = v
			s.move(of[i], p)
		}
	}
}

// numbers makes numbers of rows from to to.
func (s sorter) numbers(rows, lowest Register) {
	from, to := Load(Param("from"), GP64()), Load(Param("to"), GP64())
	SHLQ(Imm(8), from)
	SHLQ(Imm(8), to)
	ADDQ(rows, from)
	ADDQ(rows, to)
	y := s.registers()
	Comment("where one of the extremes is not finite, all bits of the lowest row become one, else zero")
	low, high := s.finite()
	for v := 0; v < stride; v += s.size() {
		at := Mem{Base: lowest, Disp: v}
		s.move(low, y[0])
		s.move(Mem{Base: lowest, Disp: v + stride}, y[1])
		switch {
		case s.wide && s.bits == 32:
			VPCMPGTD(at, y[0], K1)
			VPCMPGTD(high, y[1], K2)
			KORW(K1, K2, K1)
			VPTERNLOGD_Z(Imm(0xff), y[0], y[0], K1, y[0])
		case s.wide:
			VPCMPGTQ(at, y[0], K1)
			VPCMPGTQ(high, y[1], K2)
			KORB(K1, K2, K1)
			VPTERNLOGQ_Z(Imm(0xff), y[0], y[0], K1, y[0])
		case s.bits == 32:
			VPCMPGTD(at, y[0], y[0])
			VPCMPGTD(high, y[1], y[1])
			VPOR(y[1], y[0], y[0])
		default:
			VPCMPGTQ(at, y[0], y[0])
			VPCMPGTQ(high, y[1], y[1])
			VPOR(y[1], y[0], y[0])
		}
		s.move(y[0], at)
	}
	Label("number")
	CMPQ(from, to)
	JEQ(LabelRef("end"))
	for v := 0; v < stride; v += s.size() {
		s.move(Mem{Base: from, Disp: v}, y[0])
		s.flip(y[0], y[1])
		if s.wide {
			VPORQ(Mem{Base: lowest, Disp: v}, y[0], y[0])
		} else {
			VPOR(Mem{Base: lowest, Disp: v}, y[0], y[0])
		}
		s.move(y[0], Mem{Base: from, Disp: v})
	}
	ADDQ(U32(stride), from)
	JMP(LabelRef("number"))
	Label("end")
}

// flip turns the bits of floating-point numbers into integers that are in the same order, -0
// before +0, and back: of negative ones all bits but the sign are inverted.
func (s sorter) flip(x, temp VecPhysical) {
	switch {
	case s.wide && s.bits == 32:
		VPSRAD(Imm(31), x, temp)
		VPSRLD(Imm(1), temp, temp)
		VPXORD(temp, x, x)
	case s.wide:
		VPSRAQ(Imm(63), x, temp)
		VPSRLQ(Imm(1), temp, temp)
		VPXORQ(temp, x, x)
	case s.bits == 32:
		VPSRAD(Imm(31), x, temp)
		VPSRLD(Imm(1), temp, temp)
		VPXOR(temp, x, x)
	default:
		VPXOR(temp, temp, temp)
		VPCMPGTQ(x, temp, temp)
		VPSRLQ(Imm(1), temp, temp)
		VPXOR(temp, x, x)
	}
}

// compare returns where the lower and the higher of a and b are. It changes all four.
func (s sorter) compare(a, b, free, temp VecPhysical) (lower, higher VecPhysical) {
	switch {
	case s.bits == 32:
		VPMINSD(b, a, free)
		VPMAXSD(b, a, b)
	case s.wide:
		VPMINSQ(b, a, free)
		VPMAXSQ(b, a, b)
	default:
		VPCMPGTQ(b, a, temp)
		VBLENDVPD(temp, b, a, free)
		VBLENDVPD(temp, a, b, b)
	}
	return free, b
}

// extreme puts x into place where it is lower, or higher, than what is there.
func (s sorter) extreme(x, temp VecPhysical, highest bool, place Mem) {
	switch {
	case s.bits == 32 && highest:
		VPMAXSD(place, x, temp)
	case s.bits == 32:
		VPMINSD(place, x, temp)
	case s.wide && highest:
		VPMAXSQ(place, x, temp)
	case s.wide:
		VPMINSQ(place, x, temp)
	case highest:
		VPCMPGTQ(place, x, temp)
		VMASKMOVPD(x, temp, place)
		return
	default:
		s.move(place, temp)
		VPCMPGTQ(x, temp, temp)
		VMASKMOVPD(x, temp, place)
		return
	}
	s.move(temp, place)
}

// inRegisters sorts rows, which load fetches for the first time; done has a last look at
// them. Fewer registers than rows: a row that is needed latest waits at its place, where all
// are in the end.
func (s sorter) inRegisters(network [][2]int, load func(r int, into, temp VecPhysical), place func(r int) Mem, done func(r int, x, temp VecPhysical)) {
	all := s.registers()
	temp, free := all[len(all)-1], all[:len(all)-1]
	in := map[int]VecPhysical{}
	loaded := map[int]bool{}
	next := func(r, from int) int {
		at := slices.IndexFunc(network[from:], func(c [2]int) bool { return c[0] == r || c[1] == r })
		if at < 0 {
			return len(network)
		}
		return from + at
	}
	take := func(at int, busy ...int) VecPhysical {
		if len(free) == 0 {
			latest := -1
			for r := range s.group() {
				if _, here := in[r]; here && !slices.Contains(busy, r) && (latest < 0 || next(r, at) > next(latest, at)) {
					latest = r
				}
			}
			s.move(in[latest], place(latest))
			free = append(free, in[latest])
			delete(in, latest)
		}
		y := free[0]
		free = free[1:]
		return y
	}
	for at, c := range network {
		for _, r := range c {
			if _, here := in[r]; here {
				continue
			}
			in[r] = take(at, c[:]...)
			if loaded[r] {
				s.move(place(r), in[r])
			} else {
				load(r, in[r], temp)
				loaded[r] = true
			}
		}
		y := take(at, c[:]...)
		a := in[c[0]]
		in[c[0]], in[c[1]] = s.compare(a, in[c[1]], y, temp)
		free = append(free, a)
		for _, r := range c {
			if next(r, at+1) == len(network) {
				done(r, in[r], temp)
				s.move(in[r], place(r))
				free = append(free, in[r])
				delete(in, r)
			}
		}
	}
}

// batcher returns the odd-even merge sort of n rows.
func batcher(n int) (network [][2]int) {
	for p := 1; p < n; p *= 2 {
		for k := p; k > 0; k /= 2 {
			for j := k % p; j+k < n; j += 2 * k {
				for i := j; i < min(j+k, n-k); i++ {
					if i/(2*p) == (i+k)/(2*p) {
						network = append(network, [2]int{i, i + k})
					}
				}
			}
		}
	}
	return network
}
