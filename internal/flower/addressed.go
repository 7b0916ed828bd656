package flower

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/concordat/concordat/chunkstore/object"
)

// recordTo begins the name of a record that is for one node alone: its number in decimal, a
// dot and the name under which that node's app gets it follow.
const recordTo = RecordOwn + "to."

// Address makes one content of those that a ServerApp has for each node (of the number at
// the same place in to), so that all nodes are sent, and bound to, what each is told
// (protocol F5: broadcast only). What is the same for all stands there once; a config or
// metric record that is not stands there once for each node, in its place. Contents that
// differ in anything else are refused: arrays are one for all. [ContentFor] is the inverse.
func Address(to []uint64, contents []object.RecordDict) (object.RecordDict, error) {
	order := make([]int, len(to))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(to[a], to[b]) })
	for _, d := range contents {
		if !slices.EqualFunc(d, contents[0], func(a, b object.RecordItem) bool {
			return a.Name == b.Name && a.Record.Kind() == b.Record.Kind()
		}) {
			return nil, fmt.Errorf("%w: messages to nodes at once have records of other names or kinds", ErrRefused)
		}
	}
	var out object.RecordDict
	for k, it := range contents[0] {
		same := true
		first, err := idOf(it.Record)
		for i := 1; i < len(contents) && same && err == nil; i++ {
			var id object.ID
			id, err = idOf(contents[i][k].Record)
			same = id == first
		}
		switch {
		case err != nil:
			return nil, err
		case same:
			out = append(out, it)
		case it.Record.Kind() == object.KindArrayRecord:
			return nil, fmt.Errorf("%w: messages to nodes at once have different arrays", ErrRefused)
		default:
			for _, i := range order {
				out = append(out, object.RecordItem{Name: recordTo + strconv.FormatUint(to[i], 10) + "." + it.Name, Record: contents[i][k].Record})
			}
		}
	}
	return out, nil
}

// idOf returns the id of a record.
func idOf(r object.Record) (object.ID, error) {
	return object.Flatten(r, func(object.Object) error { return nil })
}

// ContentFor returns what the app of the node with that number gets of a content that an
// enclave sent: no record of the enclave's own, and none that is for another node. addressed
// reports whether there are any for single nodes.
func ContentFor(d object.RecordDict, number uint64) (content object.RecordDict, addressed bool, err error) {
	for _, it := range d {
		if !strings.HasPrefix(it.Name, RecordOwn) {
			content = append(content, it)
			continue
		}
		rest, found := strings.CutPrefix(it.Name, recordTo)
		if !found {
			continue
		}
		addressed = true
		digits, name, found := strings.Cut(rest, ".")
		to, bad := strconv.ParseUint(digits, 10, 64)
		if !found || bad != nil || strings.HasPrefix(name, RecordOwn) || it.Record.Kind() == object.KindArrayRecord {
			return nil, true, fmt.Errorf("%w: a record for a single node that is none", ErrRefused)
		}
		if to == number {
			content = append(content, object.RecordItem{Name: name, Record: it.Record})
		}
	}
	for i, it := range content {
		if slices.ContainsFunc(content[:i], func(x object.RecordItem) bool { return x.Name == it.Name }) {
			return nil, addressed, fmt.Errorf("%w: a content with two records of one name", ErrRefused)
		}
	}
	return content, addressed, nil
}
