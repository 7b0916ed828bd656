package aggregate

import (
	"bytes"
	"io"
	"math"
	"testing"

	"github.com/concordat/concordat/chunkstore/object"
)

// typed returns an npy array of any element type of raw elements.
func typed(descr string, n int, raw []byte) []byte {
	return append(object.NPY{Descr: descr, Shape: []int{n}}.Append(nil), raw...)
}

// bfloat16, which numpy does not know: sums are in float32 and rounded once.
func TestBrainFloats(t *testing.T) {
	t.Parallel()
	one, three := typed("<V2", 2, []byte{0x80, 0x3f, 0x80, 0x3f}), typed("|V2", 2, []byte{0x40, 0x40, 0x81, 0x3f}) // 1, 1; 3, 1+1/128
	var out bytes.Buffer
	if err := plan(t, FedAvg, contributions(1, 1)).Array(Tensor{Name: "a", Type: "<V2", Shape: []int{2}}, Sources{In: readers(one, three)}, &out, nil); err != nil {
		t.Fatal(err)
	}
	if want := typed("<V2", 2, []byte{0, 0x40, 0x80, 0x3f}); !bytes.Equal(out.Bytes(), want) { // 2, 1+1/256 rounded to even
		t.Errorf("got  %x\nwant %x", out.Bytes(), want)
	}
}

// A server's step may leave the range of an integer: it takes the nearest value.
func TestIntegersSaturate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		descr string
		x     float64
		want  uint64
	}{
		{"|i1", 1e9, 0x7f}, {"|i1", -1e9, 0x80}, {"|u1", -3, 0}, {"|u1", 255.9, 0xff}, {"|i1", -2.9, 0xfe},
		{"<i8", 0x1p63, math.MaxInt64}, {"<i8", -0x1p70, 1 << 63}, {"<u8", 0x1p64, math.MaxUint64}, {"<u8", 0x1p63, 1 << 63}, {"<u4", 5e9, math.MaxUint32},
	} {
		e, err := elementOf(c.descr)
		if err != nil {
			t.Fatal(err)
		}
		x := newTile()
		x.float64s()[0] = c.x
		settle(e, x.float64s()[:1])
		var b bytes.Buffer
		if err := e.write(&b, x, 1); err != nil {
			t.Fatal(err)
		}
		var got uint64
		for i, v := range b.Bytes() {
			got |= uint64(v) << (8 * i)
		}
		if got != c.want {
			t.Errorf("%g as %s is %#x, want %#x", c.x, c.descr, got, c.want)
		}
	}
}

// Values that one mean could carry out of float16's range are refused.
func TestHalvesAreBounded(t *testing.T) {
	t.Parallel()
	model := Tensor{Name: "a", Type: "<f2", Shape: []int{1}}
	for bits, ok := range map[uint16]bool{0x77ff: true, 0x7800: false, 0xf800: false, 0x7c00: false, 0x7e00: false, 0: true} {
		if err := Check(model, bytes.NewReader(typed("<f2", 1, []byte{byte(bits), byte(bits >> 8)}))); (err == nil) != ok {
			t.Errorf("%#04x: %v", bits, err)
		}
	}
}

// Windows of every type: lengths around what a tile holds, byte orders mixed.
func TestTypesStream(t *testing.T) {
	t.Parallel()
	for _, descr := range []string{"f2", "f4", "f8", "V2", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"} {
		little, err := elementOf("<" + descr)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{0, 1, Tile/little.wide() - 1, Tile / little.wide(), Tile/little.wide() + 1, 2*Tile/little.wide() + 3} {
			x := make([]float64, n)
			for i := range x {
				x[i] = float64(i % 100)
			}
			raw := encode(t, little, x)
			big := append([]byte(nil), raw...)
			for i := 0; i < len(big); i += little.size {
				for a, b := i, i+little.size-1; a < b; a, b = a+1, b-1 {
					big[a], big[b] = big[b], big[a]
				}
			}
			in := []io.Reader{iotestOneOdd{bytes.NewReader(typed(little.descr(), n, raw))}, bytes.NewReader(typed(">"+descr, n, big))}
			var out bytes.Buffer
			if err := plan(t, FedAvg, contributions(3, 3)).Array(Tensor{Name: "a", Type: little.descr(), Shape: []int{n}}, Sources{In: in}, &out, nil); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(out.Bytes(), typed(little.descr(), n, raw)) {
				t.Errorf("%s: mean of %d equal values is another", descr, n)
			}
		}
	}
}

func encode(t *testing.T, e element, x []float64) []byte {
	t.Helper()
	var b bytes.Buffer
	for len(x) > 0 {
		n := min(len(x), Tile/e.wide())
		tile := newTile()
		for i, v := range x[:n] {
			if e.wide() == 4 {
				tile.float32s()[i] = float32(v)
			} else {
				tile.float64s()[i] = v
			}
		}
		if err := e.write(&b, tile, n); err != nil {
			t.Fatal(err)
		}
		x = x[n:]
	}
	return b.Bytes()
}
