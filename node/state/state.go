// Package state keeps what a ClientApp leaves for the next message of its run (Flower's
// context.state), on the node's disk, sealed under the node's at-rest key.
//
// A state is named by the step whose answer left it. It is durable before the answer is
// signed, and counts once the node's journal has the contribution: the journal says which
// state is a run's newest, this package only whether it is there, whole. So an answer that
// a crash cut off is made again from the state before it.
//
// Start with [New] and [Store.Sweep].
package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/durable"
	"github.com/concordat/concordat/internal/flower"
	"github.com/concordat/concordat/node/atrest"
)

// Digest is a SHA-256 value.
type Digest = cose.Digest

// domain names the format: a file is [atrest.Key.Seal] of the state, with the binding
//
//	node || run || u64be seq || step
const domain = "concordat/state/1"

// Max is the largest state in bytes; app processes may leave no larger one.
const Max = flower.DefaultMaxState

// prefix begins the name of every state's file: state.SEQ.STEP, with the first eight
// digits of the step's digest.
const prefix = "state."

// Step is a step of a run. The zero value is the place before the first.
type Step struct {
	Seq    uint64
	Digest Digest // of the step's statement
}

// Store keeps the states of all runs, each in its run's directory. It is the only writer
// of files with its prefix. It is safe for concurrent use, one call at a time for one
// step.
type Store struct {
	fsys durable.FS
	dir  string
	node Digest
	key  *atrest.Key
}

// New returns the store of a node, with a directory for each run under dir.
func New(fsys durable.FS, dir string, node Digest, key *atrest.Key) *Store {
	return &Store{fsys: fsys, dir: dir, node: node, key: key}
}

func (s *Store) runDir(run Digest) string { return filepath.Join(s.dir, run.String()) }

func (s *Store) file(run Digest, after Step) string {
	return filepath.Join(s.runDir(run), fmt.Sprintf("%s%d.%s", prefix, after.Seq, after.Digest.Short()))
}

func (s *Store) binding(run Digest, after Step) []byte {
	b := append(append([]byte(nil), s.node[:]...), run[:]...)
	b = binary.BigEndian.AppendUint64(b, after.Seq)
	return append(b, after.Digest[:]...)
}

// Write makes durable the state that the answer to a step left, empty or not, of [Max]
// bytes at most. It replaces an earlier one of the same step.
func (s *Store) Write(run Digest, after Step, state []byte) error {
	if after.Seq == 0 || len(state) > Max {
		return fmt.Errorf("state of run %s after step %d has %d bytes, limit %d", run.Short(), after.Seq, len(state), Max)
	}
	if err := durable.MkdirAll(s.fsys, s.runDir(run), 0o700); err != nil {
		return fmt.Errorf("state of run %s: %w", run.Short(), err)
	}
	sealed := s.key.Seal(domain, s.binding(run, after), state)
	if err := durable.WriteFile(s.fsys, s.file(run, after), sealed, 0o600); err != nil {
		return fmt.Errorf("state of run %s: %w", run.Short(), err)
	}
	return nil
}

// Read returns the state that the answer to a step left; before the first step it is
// empty. A state that is not there, or that does not open, is an error: a run does not go
// on with another one, or with none.
func (s *Store) Read(run Digest, after Step) ([]byte, error) {
	if after == (Step{}) {
		return nil, nil
	}
	sealed, err := durable.ReadFile(s.fsys, s.file(run, after), Max+atrest.Overhead)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: it was removed, or the program that answered the step kept none", err)
	}
	var plain []byte
	if err == nil {
		plain, err = s.key.Open(domain, s.binding(run, after), sealed)
	}
	if err != nil {
		return nil, fmt.Errorf("the app's state after step %d of run %s, %s: %w", after.Seq, run.Short(), s.file(run, after), err)
	}
	return plain, nil
}

// Forget removes the states of steps before seq.
func (s *Store) Forget(run Digest, seq uint64) error {
	return s.remove(run, func(of uint64) bool { return of < seq })
}

// Remove removes all states of a run. The run's directory stays, for others may be about
// to write its bundle there.
func (s *Store) Remove(run Digest) error {
	return s.remove(run, func(uint64) bool { return true })
}

func (s *Store) remove(run Digest, which func(seq uint64) bool) error {
	entries, err := s.fsys.ReadDir(s.runDir(run))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if seq, ok := seqOf(e.Name()); ok && which(seq) {
			err = errors.Join(err, s.fsys.Remove(filepath.Join(s.runDir(run), e.Name())))
		}
	}
	if err != nil {
		return fmt.Errorf("state of run %s: %w", run.Short(), err)
	}
	return nil
}

// seqOf returns the step number in the name of a state's file. A name with this prefix
// and no number is one that the store may remove, but not keep: its number is 0.
func seqOf(name string) (uint64, bool) {
	rest, ok := strings.CutPrefix(name, prefix)
	if !ok {
		return 0, false
	}
	number, _, _ := strings.Cut(rest, ".")
	seq, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		return 0, true
	}
	return seq, true
}

// Sweep removes what a process that was killed left: half-written files, all states of
// runs that live does not name, and, of those that it names, the states of steps before
// the given number. It is called before anything else, by the one process that has the
// node's directory.
func (s *Store) Sweep(live map[Digest]uint64) error {
	entries, err := s.fsys.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("states: %w", err)
	}
	for _, e := range entries {
		run, err := cose.ParseDigest(e.Name())
		if err != nil || !e.IsDir() {
			continue // nobody's run
		}
		if err := durable.Sweep(s.fsys, s.runDir(run)); err != nil {
			return err
		}
		if from, ok := live[run]; ok {
			err = s.Forget(run, from)
		} else if err = s.Remove(run); err == nil {
			_ = s.fsys.Remove(s.runDir(run)) // fails where a bundle or a model is
		}
		if err != nil {
			return err
		}
	}
	return nil
}
