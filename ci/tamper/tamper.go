package tamper

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"unicode/utf8"
)

// Each calls f with changed copies of raw, one change a copy:
//
//   - a bit of every number, text, byte string, float, boolean, tag and map key is
//     flipped; strings are also made a byte shorter and a byte longer;
//   - every element of an array and every entry of a map is left out, is there
//     twice, and changes places with the next one; values of a map also change keys
//     with the next one.
//
// A byte string that is itself one array, map or tagged item in deterministic CBOR
// is walked too, and so on inside; the lengths around a change follow it. But for
// repeated and unordered map entries every copy is deterministic CBOR again, so that a
// reader's refusal is about the content. No copy equals raw.
//
// path says what was changed, for a test's messages: "[1]" an element, "{3}" the value
// of a map, "{3}key" its key, "(18)" the content of a tag, "<>" the content of a byte
// string, and after a space the change. mutated is f's to keep.
//
// Each panics if raw is not one item of deterministic CBOR of at most 1 MiB,
// because a test over nothing would pass.
func Each(raw []byte, f func(path string, mutated []byte)) {
	if len(raw) > maxBytes {
		panic(fmt.Sprintf("tamper: %d bytes, limit %d", len(raw), maxBytes))
	}
	root, err := parse(raw, 0)
	if err != nil {
		panic("tamper: not deterministic CBOR: " + err.Error())
	}
	w := &walker{raw: raw, root: root, f: f}
	w.visit("", root)
}

type walker struct {
	raw  []byte
	root *item
	f    func(string, []byte)
}

// with calls f with the value as it is when it is changed to c, and restores it.
func (w *walker) with(path, what string, it *item, c item) {
	before := *it
	*it = c
	mutated := w.root.append(nil)
	*it = before
	if !bytes.Equal(mutated, w.raw) {
		w.f(path+" "+what, mutated)
	}
}

func (w *walker) visit(path string, it *item) {
	switch it.major {
	case majorUint, majorNegative:
		c := *it
		c.arg ^= 1
		w.with(path, "flip", it, c)
	case majorSimple:
		c := *it
		c.data = bytes.Clone(it.data)
		c.data[len(c.data)-1] ^= 1 // false and true differ in it; null becomes undefined
		w.with(path, "flip", it, c)
	case majorText, majorBytes:
		w.visitString(path, it)
	case majorTag:
		c := *it
		c.arg ^= 1
		w.with(path, "flip", it, c)
		w.with(path, "untag", it, *it.items[0])
		w.visit(fmt.Sprintf("%s(%d)", path, it.arg), it.items[0])
	case majorArray:
		w.visitList(path, it, 1)
		for i, e := range it.items {
			w.visit(path+"["+strconv.Itoa(i)+"]", e)
		}
	case majorMap:
		w.visitList(path, it, 2)
		for i := 0; i < len(it.items); i += 2 {
			at := path + "{" + it.items[i].name() + "}"
			if i+3 < len(it.items) {
				c := *it
				c.items = slices.Clone(it.items)
				c.items[i+1], c.items[i+3] = c.items[i+3], c.items[i+1]
				w.with(at, "swap values", it, c)
			}
			w.visit(at+"key", it.items[i])
			w.visit(at, it.items[i+1])
		}
	}
}

// visitString changes the content of a string, which its length follows.
func (w *walker) visitString(path string, it *item) {
	change := func(what string, data []byte) {
		w.with(path, what, it, item{major: it.major, data: data})
	}
	if n := len(it.data); n > 0 {
		if i := flippable(it); i >= 0 {
			flipped := bytes.Clone(it.data)
			flipped[i] ^= 1
			change("flip", flipped)
		}
		cut := n - 1
		if it.major == majorText {
			_, size := utf8.DecodeLastRune(it.data)
			cut = n - size
		}
		change("cut", bytes.Clone(it.data[:cut]))
	}
	change("longer", append(bytes.Clone(it.data), '0'))
	if it.holds() {
		w.visit(path+"<>", it.items[0])
	}
}

// flippable returns the index of a byte near the middle whose lowest bit can be
// flipped, which in a text must leave it UTF-8, or -1.
func flippable(it *item) int {
	n := len(it.data)
	for d := range n {
		i := (n/2 + d) % n
		if it.major == majorBytes || it.data[i] < utf8.RuneSelf {
			return i
		}
	}
	return -1
}

// visitList drops, repeats and swaps the entries of a list, each of which is step
// items.
func (w *walker) visitList(path string, it *item, step int) {
	for i := 0; i < len(it.items); i += step {
		at := fmt.Sprintf("%s[%d]", path, i)
		if it.major == majorMap {
			at = path + "{" + it.items[i].name() + "}"
		}
		c := *it
		c.items = slices.Delete(slices.Clone(it.items), i, i+step)
		w.with(at, "drop", it, c)
		c.items = slices.Insert(slices.Clone(it.items), i, it.items[i:i+step]...)
		w.with(at, "twice", it, c)
		if i+step < len(it.items) {
			c.unsorted = true
			c.items = slices.Concat(it.items[:i], it.items[i+step:i+2*step], it.items[i:i+step], it.items[i+2*step:])
			w.with(at, "swap", it, c)
		}
	}
}

// name shows a map key in a path.
func (it *item) name() string {
	switch it.major {
	case majorUint:
		return strconv.FormatUint(it.arg, 10)
	case majorNegative:
		return "-1-" + strconv.FormatUint(it.arg, 10)
	case majorText:
		return strconv.Quote(string(it.data))
	}
	return fmt.Sprintf("%x", it.append(nil))
}
