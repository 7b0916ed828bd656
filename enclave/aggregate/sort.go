package aggregate

import (
	"math"
	"math/bits"
	"slices"
	"unsafe"
)

// order says which of n values, once they are sorted, are wanted: from to to, without to.
// What is sorted is in IEEE 754's total order, in which -0 comes before +0, so that results
// do not depend on how it is sorted. It does not change.
type order struct {
	n, from, to int
	group       int      // rows that the kernels sort without a network's help; 0: no kernel sorts
	network     []uint32 // what they leave to do; see network
}

func newOrder(n, from, to int) *order {
	switch {
	case !vectors || n > maxRows:
		return &order{n: n, from: from, to: to}
	case wideVectors && n > narrowGroup:
		return newGroups(n, from, to, wideGroup)
	}
	return newGroups(n, from, to, narrowGroup)
}

// newGroups is newOrder for the kernel that sorts groups of that size.
func newGroups(n, from, to, group int) *order {
	return &order{n, from, to, group, network(n, from, to, group)}
}

const (
	// stripBytes are as many bytes of each contribution as are sorted side by side: of a
	// hundred contributions they fit into a core's first cache.
	stripBytes = 256
	// Groups of the kernels in AVX2 and in AVX-512.
	narrowGroup, wideGroup = 16, 32
)

// A step of a network is up to four comparators, one after another; each puts the lower value
// into its first row and the higher into its second. One of a row with itself is none.
type step [4][2]uint16

// What stands in the upper half of a step's code, beside a distance between rows.
const (
	fourRows = 1 << 15
	fiveRows = 1<<15 | 1<<14
	maxRows  = 1 << 14 // that a code can name
)

// network returns the codes of steps that sort n rows of which each group is sorted:
// Batcher's odd-even merge sort (1968, doi:10.1145/1468075.1468121) without what rows from to
// to do not depend on. A code has a row in its lower half. In the upper half is the other one
// of a comparator; or fourRows or fiveRows and a distance, where that row and the three or
// four that follow at the distance stay in registers for two rounds of the sort: these are
// half as many accesses to memory, which are what limits the kernels.
func network(n, from, to, group int) []uint32 {
	var steps []step
	for p := group; p < n; p *= 2 { // rows of each two sorted lists
		// compare is the comparator of a round between rows k apart; rounds follow each other
		// with p, p/2, p/4 and so on to 1.
		compare := func(i, k int) [2]uint16 {
			if at := i%(2*p) - k%p; at < 0 || at/k%2 != 0 || at+k%p+k >= 2*p || i+k >= n {
				return [2]uint16{}
			}
			return [2]uint16{uint16(i), uint16(i + k)}
		}
		k := p
		if bits.Len(uint(p))%2 == 1 { // so many rounds
			for i := range n {
				steps = append(steps, step{compare(i, k)})
			}
			k /= 2
		}
		for ; k > 1; k /= 4 {
			h := k / 2
			for block := k % p; block < n; block += 2 * k {
				for i := block; i < min(block+h, n); i++ {
					s := step{compare(i, k), compare(i+h, k), compare(i+h, h)}
					if i >= h {
						s[3] = compare(i-h, h)
					}
					steps = append(steps, s)
				}
			}
		}
	}
	needed := make([]bool, n)
	for i := from; i < to; i++ {
		needed[i] = true
	}
	for at := len(steps) - 1; at >= 0; at-- {
		for i := 3; i >= 0; i-- {
			c := &steps[at][i]
			if c[0] != c[1] && (needed[c[0]] || needed[c[1]]) {
				needed[c[0]], needed[c[1]] = true, true
			} else {
				*c = [2]uint16{}
			}
		}
	}
	var codes []uint32
	for _, s := range steps {
		is := func(i int) bool { return s[i][0] != s[i][1] }
		switch {
		case is(0) && is(1) && is(2) && is(3):
			codes = append(codes, uint32(s[3][0])|uint32(s[3][1]-s[3][0]|fiveRows)<<16)
		case is(0) && is(1) && is(2):
			codes = append(codes, uint32(s[0][0])|uint32(s[2][1]-s[2][0]|fourRows)<<16)
		default:
			for i, c := range s {
				if is(i) {
					codes = append(codes, uint32(c[0])|uint32(c[1])<<16)
				}
			}
		}
	}
	return codes
}

// strip is some columns side by side: a row of each contribution, and a few more.
type strip[F float] struct {
	order  *order
	width  int
	values []F
	rows   [][]F // those that are wanted
	heads  []*F
	padded []F // rows for vectors that reach beyond what there is
}

func newStrip[F float](o *order) *strip[F] {
	var f F
	s := &strip[F]{order: o, width: stripBytes / int(unsafe.Sizeof(f))}
	s.rows = make([][]F, o.to-o.from)
	whole := o.n
	if o.group > 0 {
		whole = (o.n + o.group - 1) / o.group * o.group
		s.heads = make([]*F, whole)
	}
	s.values = make([]F, (whole+2)*s.width)
	return s
}

// row is row k; w is how many columns there are.
func (s *strip[F]) row(k, w int) []F { return s.values[k*s.width:][:w:w] }

// ascending calls f with some columns after others: rows[k][i] is the value of column at+i
// that is at o.from+k when they are sorted. In a column with a value that is not finite all
// are NaN: where Check was skipped, the result is not finite either, and is refused.
func ascending[F float](in [][]F, o *order, f func(at int, rows [][]F)) {
	s := newStrip[F](o)
	for at := 0; at < len(in[0]); at += s.width {
		w := min(s.width, len(in[0])-at)
		if o.group > 0 {
			s.sortVectors(in, at, w)
		} else {
			s.sortColumns(in, at, w)
		}
		for k := range s.rows {
			s.rows[k] = s.row(o.from+k, w)
		}
		f(at, s.rows)
	}
}

// sortColumns fills the strip with w columns from at. It is the reference of sortVectors.
func (s *strip[F]) sortColumns(in [][]F, at, w int) {
	column := make([]int64, len(in))
	for i := range w {
		finite := true
		for k, x := range in {
			v := x[at+i]
			finite = finite && v-v == 0
			column[k] = flip(int64(math.Float64bits(float64(v))))
		}
		slices.Sort(column)
		for k := s.order.from; k < s.order.to; k++ {
			v := F(math.NaN())
			if finite {
				v = F(math.Float64frombits(uint64(flip(column[k]))))
			}
			s.values[k*s.width+i] = v
		}
	}
}

// flip turns the bits of a number into an integer that has its place in the total order, and
// back: of a negative one it inverts all but the sign.
func flip(bits int64) int64 { return bits ^ int64(uint64(bits>>63)>>1) }

// sortVectors does what sortColumns does. The kernels take whole rows and whole groups: what
// there is too little of is copied, and rows of the largest number stand behind all others.
func (s *strip[F]) sortVectors(in [][]F, at, w int) {
	whole := len(s.heads)
	if s.padded == nil && (w < s.width || len(in) < whole) {
		s.padded = make([]F, (whole+1)*s.width)
		var largest F
		switch p := any(&largest).(type) {
		case *float32:
			*p = math.MaxFloat32
		case *float64:
			*p = math.MaxFloat64
		}
		for i := range s.padded[whole*s.width:] {
			s.padded[whole*s.width+i] = largest
		}
	}
	for k := range s.heads {
		switch {
		case k >= len(in):
			s.heads[k] = &s.padded[whole*s.width]
		case w < s.width:
			row := s.padded[k*s.width:][:s.width]
			copy(row, in[k][at:at+w])
			s.heads[k] = &row[0]
		default:
			s.heads[k] = &in[k][at : at+w][0]
		}
	}
	switch values := any(s.values).(type) {
	case []float32:
		sort := sort32
		if s.order.group == wideGroup {
			sort = sort32Wide
		}
		sort(&values[0], any(s.heads).([]*float32), s.order.network, s.order.from, s.order.to)
	case []float64:
		sort := sort64
		if s.order.group == wideGroup {
			sort = sort64Wide
		}
		sort(&values[0], any(s.heads).([]*float64), s.order.network, s.order.from, s.order.to)
	}
}

// medians sets out to the median of each column: the middle value, or half the sum of the
// middle two, which are all that o wants.
func medians[F float](out []F, in [][]F, o *order) {
	ascending(in, o, func(at int, rows [][]F) {
		if len(rows) == 1 {
			copy(out[at:], rows[0])
			return
		}
		low, high := rows[0], rows[1]
		for i, x := range low {
			out[at+i] = (x + high[i]) / 2
		}
	})
}

// trimmedMeans sets out to the mean of the values of each column that o wants. They are added
// in float64, ascending, and the result is rounded once.
func trimmedMeans[F float](out []F, in [][]F, o *order) {
	var sums [stripBytes / 4]float64
	ascending(in, o, func(at int, rows [][]F) {
		sumRows(&sums, rows)
		for i := range rows[0] {
			out[at+i] = F(sums[i] / float64(len(rows)))
			if math.IsInf(sums[i], 0) {
				out[at+i] = F(scaledMean(columnOf(nil, rows, i)))
			}
		}
	})
}

// sumRows sets the first sums to those of rows of a strip, from the first row on.
func sumRows[F float](sums *[stripBytes / 4]float64, rows [][]F) {
	if vectors {
		switch first := any(&rows[0][0]).(type) {
		case *float32:
			sum32Rows(&sums[0], first, len(rows))
		case *float64:
			sum64Rows(&sums[0], first, len(rows))
		}
		return
	}
	addRows(sums, rows)
}

// addRows is the reference of sumRows.
func addRows[F float](sums *[stripBytes / 4]float64, rows [][]F) {
	clear(sums[:])
	for _, row := range rows {
		for i, x := range row {
			sums[i] += float64(x)
		}
	}
}

// nearestMeans sets out to the mean of those keep values of each column that are nearest
// to its median. They lie side by side when sorted; of two that are as near, the lower
// one is taken. o wants all values.
func nearestMeans[F float](out []F, in [][]F, o *order, keep int) {
	column := make([]F, 0, o.n)
	ascending(in, o, func(at int, rows [][]F) {
		for i := range rows[0] {
			column = columnOf(column[:0], rows, i)
			m := median(column)
			from := 0
			for from+keep < len(column) && distance(column[from], m) > distance(column[from+keep], m) {
				from++
			}
			out[at+i] = mean(column[from : from+keep])
		}
	})
}

// columnOf appends column i to column.
func columnOf[F float](column []F, rows [][]F, i int) []F {
	for _, row := range rows {
		column = append(column, row[i])
	}
	return column
}

// median returns the middle value, or half the sum of the middle two.
func median[F float](column []F) F {
	h := len(column) / 2
	if len(column)%2 == 1 {
		return column[h]
	}
	return (column[h-1] + column[h]) / 2
}

// mean adds in float64, ascending, and rounds once.
func mean[F float](column []F) F {
	sum := 0.0
	for _, x := range column {
		sum += float64(x)
	}
	if math.IsInf(sum, 0) {
		return F(scaledMean(column))
	}
	return F(sum / float64(len(column)))
}

// scaledMean is the mean of values whose sum is too large for float64: of tame ones it is not.
func scaledMean[F float](column []F) float64 {
	sum := 0.0
	for _, x := range column {
		sum += float64(x) / float64(len(column))
	}
	return sum
}

func distance[F float](a, b F) F { return F(math.Abs(float64(a - b))) }
