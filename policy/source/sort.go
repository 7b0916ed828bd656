package source

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"

	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/policy"
)

// sortSet puts a list into the order that the canonical form demands, and the
// marks of its entries with it. It is stable: of two equal entries the later one
// is reported.
func sortSet(list reflect.Value, marks []*mark) {
	type entry struct {
		value reflect.Value
		key   string
		mark  *mark
	}
	entries := make([]entry, list.Len())
	for i := range entries {
		v := reflect.New(list.Type().Elem()).Elem()
		v.Set(list.Index(i))
		entries[i] = entry{v, sortKey(v), marks[i]}
	}
	slices.SortStableFunc(entries, func(a, b entry) int { return cmp.Compare(a.key, b.key) })
	for i, e := range entries {
		list.Index(i).Set(e.value)
		marks[i] = e.mark
	}
}

// sortKey returns what an entry is sorted by: bytes, compared as such.
func sortKey(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case policy.Digest:
		return string(x[:])
	case policy.Hex:
		return string(x)
	case cose.Key:
		return string(x.Encode())
	case policy.Member:
		return string(x.ID)
	case policy.ProdTCB:
		return x.Product
	case policy.RTMRs:
		return string(x.RTMR0) + string(x.RTMR1) + string(x.RTMR2)
	case policy.PCR:
		return fmt.Sprintf("%020d", x.Index)
	case policy.Event:
		return fmt.Sprintf("%020d", x.Register) + string(x.Digest)
	case policy.GPUMeasured:
		return string(x.Digest[:])
	case policy.App:
		return string(x.Digest[:])
	case policy.SignedApp:
		return x.App
	}
	return v.String()
}
