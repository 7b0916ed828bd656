package flower

import (
	"fmt"
	"slices"

	"github.com/concordat/concordat/chunkstore/object"
)

// Tree is an object with everything under it, as Flower announces a message: the
// children are those of the object's head, in its order.
type Tree struct {
	ID       object.ID
	Children []Tree
}

// grow reads the tree under the RecordDict id and checks the kind of every
// object. Chunks are named by their arrays; they are read only if chunks is set.
func grow(id object.ID, chunks bool, get func(object.ID) ([]byte, error)) (Tree, error) {
	n := 0
	var walk func(object.ID, object.Kind) (Tree, error)
	walk = func(id object.ID, parent object.Kind) (Tree, error) {
		t := Tree{ID: id}
		if n++; n > MaxObjects {
			return t, fmt.Errorf("more than %d objects", MaxObjects)
		}
		if !chunks && parent == object.KindArray {
			return t, nil
		}
		raw, err := get(id)
		if err != nil {
			return t, err
		}
		h, err := object.ParseHead(raw)
		if err != nil {
			return t, err
		}
		if !parent.MayHold(h.Kind) {
			return t, fmt.Errorf("%v names a %v", parent, h.Kind)
		}
		for _, c := range h.Children {
			child, err := walk(c, h.Kind)
			if err != nil {
				return t, err
			}
			t.Children = append(t.Children, child)
		}
		return t, nil
	}
	return walk(id, object.KindMessage)
}

// Each calls f with every id of the tree; with one that is in it twice, twice.
func (t Tree) Each(f func(object.ID)) {
	f(t.ID)
	for _, c := range t.Children {
		c.Each(f)
	}
}

func (t Tree) equal(u Tree) bool {
	return t.ID == u.ID && slices.EqualFunc(t.Children, u.Children, Tree.equal)
}
