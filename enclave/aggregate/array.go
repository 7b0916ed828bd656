package aggregate

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/concordat/concordat/chunkstore/object"
)

// Tensor is what all contributions must agree on: the name, element type and
// shape of an array of the model that was handed out.
type Tensor struct {
	Name string
	// Type is numpy's: "<f2", "<f4", "<f8", "<V2" (bfloat16) or an integer's, "<i8" or
	// "|u1" say, or the same with ">". The byte order is each contribution's own.
	Type    string
	Shape   []int
	Fortran bool // column-major
}

// StateType returns the element type of what a strategy keeps of an array of t
// ([Strategy.State]): "<f4" for types of up to four bytes that are not integers, "<f8"
// for others.
func (t Tensor) StateType() (string, error) {
	e, err := elementOf(t.Type)
	if err != nil {
		return "", fmt.Errorf("aggregate: array %.80q: %w", t.Name, err)
	}
	return e.kept().descr(), nil
}

// Check reads one contribution's array, npy bytes as in Flower's Array.data, to
// its end, and returns a [*Refused] with Index -1 if it cannot be aggregated: it
// is not of the shape and type of want, it is too short or too long, or a value
// is not finite or so large (2^127; 2^15 in float16, 2^1023 in float64) that a mean
// could overflow. Any other error is r's own. Memory is one [Tile]; none if r is a [Lender].
func Check(want Tensor, r io.Reader) error {
	in, err := open(want, r, inspects)
	if err != nil {
		return err
	}
	room := sync.OnceValue(newTile)
	for in.left > 0 {
		b, err := in.next(room)
		if err != nil {
			return err
		}
		if !in.element.tame(b) {
			return &Refused{Index: -1, Array: want.Name, Reason: wild}
		}
	}
	return in.end()
}

// Sources are where the bytes of one array come from, npy all of them. No two are one reader.
type Sources struct {
	Model io.Reader   // that was handed out; nil unless [Strategy.NeedsModel]
	State []io.Reader // by name of [Strategy.State]; nil in the first round, which begins with zeros
	In    []io.Reader // each contribution's, in the order of the [Step]
}

// Array aggregates one array: out receives the result as numpy would save it,
// little-endian, and state, if it is not nil, what the strategy keeps of it
// ([Strategy.State]). The sources are read window by window in turn, every one to its end;
// nothing is written before all headers have been read and agree. It writes nothing that
// is not finite. The error is a [*Refused] if a contribution is the reason; of
// contributions that passed [Check] none is. Memory is one [Tile] for each source, those that
// are a [Lender] with all they have to lend excepted, and one for the result, and a little for
// headers and for sorting.
//
// Integers become what Flower's mean, which numpy makes a float64 of, becomes when it is
// loaded into an integer again: their fraction is cut off.
func (p *Plan) Array(want Tensor, from Sources, out io.Writer, state []io.Writer) error {
	names := p.s.State()
	switch {
	case len(from.In) != p.n:
		return fmt.Errorf("aggregate: %d readers for %d contributions", len(from.In), p.n)
	case from.State != nil && len(from.State) != len(names), state != nil && len(state) != len(names):
		return fmt.Errorf("aggregate: internal error: state of other than %d arrays", len(names))
	}
	src := sources{needsModel: p.s.form.model, model: from.Model, state: from.State, in: from.In, use: computes}
	if p.scale != nil {
		src.use = changes
	}
	w, err := openWindow(want, src)
	if err != nil {
		return err
	}
	if from.State == nil {
		w.begun = newTiles(len(names))
	}
	kept := w.element.kept()
	header := object.NPY{Descr: w.element.descr(), Fortran: want.Fortran, Shape: want.Shape}
	if _, err := out.Write(header.Append(nil)); err != nil {
		return err
	}
	for _, o := range state {
		header.Descr = kept.descr()
		if _, err := o.Write(header.Append(nil)); err != nil {
			return err
		}
	}
	var random *noise
	if p.s.Noisy() {
		random = newNoise(p.secret, want.Name)
	}
	result := newTile()
	for w.left() > 0 {
		n, err := w.next()
		if err != nil {
			return err
		}
		if w.element.wide() == 4 {
			compute(p, w, columnsOf[float32](w, n), result.float32s()[:n], random)
		} else {
			compute(p, w, columnsOf[float64](w, n), result.float64s()[:n], random)
		}
		if !kept.finite(result.bytes()[:n*kept.size]) {
			return w.culprit()
		}
		if err := w.element.write(out, result, n); err != nil {
			return err
		}
		for i, t := range w.stateTiles(len(names)) {
			if !kept.finite(t.bytes()[:n*kept.size]) {
				return w.culprit()
			}
			if state != nil {
				if err := kept.write(state[i], t, n); err != nil {
					return err
				}
			}
			if w.begun != nil {
				clear(t)
			}
		}
	}
	return w.end()
}

// compute sets out to one window of the result, and the state to the next.
func compute[F float](p *Plan, w *window, c columns[F], out []F, random *noise) {
	c.out = out
	if p.scale != nil {
		clip(c, p.scale)
	}
	c.in = pick(c.in, p.used)
	switch p.s.form.combine {
	case weighted:
		if w.element.half() {
			weighHalves(any(out).([]float32), any(c.in).([][]float32), p.w32)
		} else {
			switch out := any(out).(type) {
			case []float32:
				weigh32(out, any(c.in).([][]float32), p.w32)
			case []float64:
				weigh64(out, any(c.in).([][]float64), p.w64)
			}
		}
	case middle:
		medians(out, c.in, p.order)
		if w.element.half() {
			for i := range out {
				out[i] += 0 // numpy's sum of halves begins with 0, and so is never -0
			}
		}
	case trimmed:
		trimmedMeans(out, c.in, p.order)
	case nearest:
		nearestMeans(out, c.in, p.order, p.keep)
	case fair:
		fairSteps(c, F(1/p.s.args["client_learning_rate"]), p.w64, p.sumH)
	}
	optimize(p, c)
	if random != nil {
		disturb(out, random, p.sigma)
	}
	settle(w.element, out)
}

// pick returns the columns that are used. The others were read all the same: what is read
// tells nobody who was chosen (protocol F26).
func pick[F float](in [][]F, used []int) [][]F {
	out := make([][]F, len(used))
	for i, k := range used {
		out[i] = in[k]
	}
	return out
}

// columns are one window of each source, in the type that is computed with.
type columns[F float] struct {
	out   []F
	in    [][]F
	model []F
	state [][]F // the last round's; replaced by this round's
	first bool  // there was no last round, and state is zeros
}

func columnsOf[F float](w *window, n int) columns[F] {
	c := columns[F]{in: make([][]F, w.in), first: w.begun != nil}
	for k := range c.in {
		c.in[k] = view[F](w.values[k])
	}
	rest := w.values[w.in:]
	if w.hasModel {
		c.model = view[F](rest[0])
		rest = rest[1:]
	}
	for _, b := range rest {
		c.state = append(c.state, view[F](b))
	}
	for _, t := range w.begun {
		c.state = append(c.state, view[F](t.bytes())[:n])
	}
	return c
}

type sources struct {
	needsModel bool
	model      io.Reader
	state, in  []io.Reader
	use        use // of in
}

// window reads all sources of one array side by side.
type window struct {
	name     string
	element  element
	streams  []*stream // contributions, then the model, then the state
	values   [][]byte  // what each stream has in this window
	tiles    []tile    // of each stream, once one of them needs its own
	begun    []tile    // state that there was none of before
	in       int       // contributions
	hasModel bool
}

func openWindow(want Tensor, from sources) (*window, error) {
	w := &window{name: want.Name, in: len(from.in)}
	for k, r := range from.in {
		s, err := open(want, r, from.use)
		if err != nil {
			return nil, of(k, err)
		}
		w.streams = append(w.streams, s)
	}
	var err error
	if w.element, err = elementOf(want.Type); err != nil {
		return nil, fmt.Errorf("aggregate: array %.80q: %w", want.Name, err)
	}
	if from.needsModel {
		if from.model == nil {
			return nil, errors.New("aggregate: internal error: the strategy reads the model, and there is none")
		}
		s, err := open(want, from.model, computes)
		if err != nil {
			return nil, own("model", err)
		}
		w.streams, w.hasModel = append(w.streams, s), true
	}
	want.Type = w.element.kept().descr()
	for _, r := range from.state {
		s, err := open(want, r, changes)
		if err != nil {
			return nil, own("state", err)
		}
		w.streams = append(w.streams, s)
	}
	w.values = make([][]byte, len(w.streams))
	return w, nil
}

func (w *window) left() int { return w.streams[0].left }

// next reads the next window, and returns the number of elements.
func (w *window) next() (n int, err error) {
	before := w.left()
	for k, s := range w.streams {
		if w.values[k], err = s.next(func() tile { return w.tile(k) }); err != nil {
			return 0, w.blame(k, err)
		}
	}
	return before - w.left(), nil
}

// tile returns the memory of stream k's own.
func (w *window) tile(k int) tile {
	if w.tiles == nil {
		w.tiles = newTiles(len(w.streams))
	}
	return w.tiles[k]
}

// end checks that nothing follows in any source.
func (w *window) end() error {
	for k, s := range w.streams {
		if err := s.end(); err != nil {
			return w.blame(k, err)
		}
	}
	return nil
}

func (w *window) blame(k int, err error) error {
	if k < w.in {
		return of(k, err)
	}
	return own("model or state", err)
}

// stateTiles are those of the state's n arrays.
func (w *window) stateTiles(n int) []tile {
	if w.begun != nil || n == 0 {
		return w.begun
	}
	return w.tiles[len(w.tiles)-n:] // a state is changed, and never lent
}

// culprit names the contribution because of which a result is not finite: one
// with a value that is not, or else one that did not pass [Check]. The server's own steps
// can overflow too.
func (w *window) culprit() error {
	for _, holds := range []func(element, []byte) bool{element.finite, element.tame} {
		for k, s := range w.streams[:w.in] {
			if !holds(s.element, w.values[k]) {
				return &Refused{Index: k, Array: w.name, Reason: wild}
			}
		}
	}
	return fmt.Errorf("aggregate: array %.80q: the result is not finite: values are too large for the strategy's arguments", w.name)
}

// wild is the reason of a [Refused] about a value.
const wild = "a value is not finite, or too large to be added"

// of gives an error about a stream the number of its contribution.
func of(k int, err error) error {
	var r *Refused
	if errors.As(err, &r) {
		r.Index = k
		return r
	}
	return fmt.Errorf("aggregate: contribution %d: %w", k, err)
}

// own is of for what no contribution is the reason of.
func own(what string, err error) error {
	var r *Refused
	if errors.As(err, &r) {
		return fmt.Errorf("aggregate: %s: array %.80q: %s", what, r.Array, r.Reason)
	}
	return fmt.Errorf("aggregate: %s: %w", what, err)
}
