package main

import (
	"context"
	"sync"
)

// feed is a list that grows: one side adds, others wait for what they want. It is
// safe for concurrent use.
type feed[T any] struct {
	mu    sync.Mutex
	items []T
	grown chan struct{} // closed when there is more
}

func newFeed[T any]() *feed[T] { return &feed[T]{grown: make(chan struct{})} }

// add appends an item.
func (f *feed[T]) add(item T) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.items = append(f.items, item)
	close(f.grown)
	f.grown = make(chan struct{})
}

// len returns how many items there are: a place to wait from.
func (f *feed[T]) len() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.items)
}

// since returns the items from the given place on, and a channel that is closed when
// there are more.
func (f *feed[T]) since(from int) ([]T, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.items[min(from, len(f.items)):len(f.items):len(f.items)], f.grown
}

// await hands every item from the given place on to want, as they come, until it
// returns true; or it returns what ended ctx.
func (f *feed[T]) await(ctx context.Context, from int, want func(T) (done bool)) error {
	for {
		items, grown := f.since(from)
		for _, item := range items {
			from++
			if want(item) {
				return nil
			}
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
