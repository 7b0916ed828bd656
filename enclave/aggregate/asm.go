//go:build ignore

// Command asm writes sort_amd64.s: sorting networks over rows. A row holds one contribution's
// values of some columns side by side: what puts the lower of two values of each column into
// one row and the higher into another, puts all columns in order at once (Batcher 1968,
// doi:10.1145/1468075.1468121).
package main

import (
	"fmt"
	"slices"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

const (
	group   = 16  // rows that are sorted in registers
	stride  = 256 // bytes of a row
	vectors = stride / 32
)

// kind is what differs between float32 and float64.
type kind struct {
	bits int
	sub  func(...Op) // x - y
}

func main() {
	for _, k := range []kind{{32, VSUBPS}, {64, VSUBPD}} {
		k.sort()
		k.sum()
	}
	Generate()
}

func (k kind) sort() {
	TEXT(fmt.Sprintf("sort%d", k.bits), NOSPLIT, fmt.Sprintf("func(rows *float%d, heads []*float%[1]d, network []uint32, from, to int)", k.bits))
	Doc(fmt.Sprintf("sort%d sorts the columns of the rows that heads are the first values of, %d bytes each.", k.bits, stride),
		fmt.Sprintf("len(heads) is a multiple of %d; rows has place for one row more. Each %[1]d are sorted, then", group),
		"the comparators of network follow, a row's number in the lower half, the other one's in the",
		"upper. Of the result rows from to to, without to, are made numbers again: NaN in columns in",
		"which a value is not finite.")
	Pragma("noescape")
	rows, heads := Load(Param("rows"), GP64()), Load(Param("heads").Base(), GP64())
	n := Load(Param("heads").Len(), GP64())
	poison := GP64()
	MOVQ(n, poison)
	SHLQ(Imm(8), poison)
	ADDQ(rows, poison)
	k.groups(rows, poison, heads, n)
	k.network(rows)
	k.numbers(rows, poison)
	VZEROUPPER()
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

// groups turns values into integers in the same order, and sorts 16 rows after 16.
func (k kind) groups(rows, poison, heads, n Register) {
	at, end, row, out := GP64(), GP64(), GP64(), GP64()
	Comment("no value is known to be infinite or NaN")
	VPXOR(Y0, Y0, Y0)
	for v := range vectors {
		VMOVDQU(Y0, Mem{Base: poison, Disp: 32 * v})
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
	source := func(r int, into VecPhysical) {
		MOVQ(Mem{Base: heads, Disp: 8 * r}, row)
		VMOVDQU(Mem{Base: row, Index: at, Scale: 1}, into)
	}
	Comment("x - x is 0, or NaN")
	VMOVDQU(Mem{Base: poison, Index: at, Scale: 1}, Y0)
	for r := range group {
		source(r, Y1)
		PREFETCHT0(Mem{Base: row, Index: at, Scale: 1, Disp: stride}) // of the next strip
		k.sub(Y1, Y1, Y1)
		VORPS(Y1, Y0, Y0)
	}
	VMOVDQU(Y0, Mem{Base: poison, Index: at, Scale: 1})
	place := func(r int) Mem { return Mem{Base: out, Index: at, Scale: 1, Disp: stride * r} }
	k.inRegisters(batcher(group), func(r int, into, temp VecPhysical) {
		source(r, into)
		k.flip(into, temp)
	}, place)
	ADDQ(Imm(32), at)
	CMPQ(at, U32(stride))
	JNE(LabelRef("vector"))
	ADDQ(U32(8*group), heads)
	ADDQ(U32(stride*group), out)
	JMP(LabelRef("group"))
	Label("sorted")
}

// network runs the steps of a network over rows in memory.
func (k kind) network(rows Register) {
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
	k.rows([]Mem{{Base: low}, {Base: high}}, [2]int{0, 1})
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
	k.rows(all[:4], [2]int{0, 2}, [2]int{1, 3}, [2]int{1, 2})
	JMP(LabelRef("step"))
	Label("five")
	k.rows(all, [2]int{1, 3}, [2]int{2, 4}, [2]int{2, 3}, [2]int{0, 1})
	JMP(LabelRef("step"))
	Label("done")
}

// rows runs comparators over rows that stay in registers, vector by vector.
func (k kind) rows(places []Mem, comparators ...[2]int) {
	y := []VecPhysical{Y0, Y1, Y2, Y3, Y4, Y5, Y6, Y7, Y8, Y9, Y10, Y11, Y12, Y13, Y14, Y15}
	set := len(places) + 2
	for v := range vectors {
		of := slices.Clone(y[:set])
		y = append(y[set:], y[:set]...) // so that one vector need not wait for the last
		for i, p := range places {
			p.Disp = 32 * v
			VMOVDQU(p, of[i])
		}
		free, temp := of[set-2], of[set-1]
		for _, c := range comparators {
			a := of[c[0]]
			of[c[0]], of[c[1]] = k.compare(a, of[c[1]], free, temp)
			free = a
		}
		for i, p := range places {
			p.Disp = 32 * v
			VMOVDQU(of[i], p)
		}
	}
}

// numbers makes numbers of rows from to to.
func (k kind) numbers(rows, poison Register) {
	from, to := Load(Param("from"), GP64()), Load(Param("to"), GP64())
	SHLQ(Imm(8), from)
	SHLQ(Imm(8), to)
	ADDQ(rows, from)
	ADDQ(rows, to)
	Label("number")
	CMPQ(from, to)
	JEQ(LabelRef("end"))
	for v := range vectors {
		VMOVDQU(Mem{Base: from, Disp: 32 * v}, Y0)
		k.flip(Y0, Y1)
		VPOR(Mem{Base: poison, Disp: 32 * v}, Y0, Y0)
		VMOVDQU(Y0, Mem{Base: from, Disp: 32 * v})
	}
	ADDQ(U32(stride), from)
	JMP(LabelRef("number"))
	Label("end")
}

// flip turns the bits of floating-point numbers into integers that are in the same order, -0
// before +0, and back: of negative ones all bits but the sign are inverted.
func (k kind) flip(x, temp VecPhysical) {
	if k.bits == 32 {
		VPSRAD(Imm(31), x, temp)
		VPSRLD(Imm(1), temp, temp)
	} else {
		VPXOR(temp, temp, temp)
		VPCMPGTQ(x, temp, temp)
		VPSRLQ(Imm(1), temp, temp)
	}
	VPXOR(temp, x, x)
}

// compare returns where the lower and the higher of a and b are. It changes all four.
func (k kind) compare(a, b, free, temp VecPhysical) (lower, higher VecPhysical) {
	if k.bits == 32 {
		VPMINSD(b, a, free)
		VPMAXSD(b, a, b)
		return free, b
	}
	VPCMPGTQ(b, a, temp)
	VBLENDVPD(temp, b, a, free)
	VBLENDVPD(temp, a, b, b)
	return free, b
}

// inRegisters sorts rows, which load fetches for the first time. Fewer registers than rows:
// a row that is needed latest waits at its place, where all are in the end.
func (k kind) inRegisters(network [][2]int, load func(r int, into, temp VecPhysical), place func(r int) Mem) {
	temp := Y15
	free := []VecPhysical{Y0, Y1, Y2, Y3, Y4, Y5, Y6, Y7, Y8, Y9, Y10, Y11, Y12, Y13, Y14}
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
			for r := range group {
				if _, here := in[r]; here && !slices.Contains(busy, r) && (latest < 0 || next(r, at) > next(latest, at)) {
					latest = r
				}
			}
			VMOVDQU(in[latest], place(latest))
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
				VMOVDQU(place(r), in[r])
			} else {
				load(r, in[r], temp)
				loaded[r] = true
			}
		}
		y := take(at, c[:]...)
		a := in[c[0]]
		in[c[0]], in[c[1]] = k.compare(a, in[c[1]], y, temp)
		free = append(free, a)
		for _, r := range c {
			if next(r, at+1) == len(network) {
				VMOVDQU(in[r], place(r))
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
