// Package events judges event logs for the platforms that have measured
// registers: it replays a log against registers that a quote vouches for, and
// holds the events of a register against the policy. [Appraise] is the only door.
//
// The log itself is not signed and not believed: only digests count, and only in
// registers whose signed value the log replays to. Types, order and data of events
// decide nothing.
package events

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/concordat/concordat/attestation/eventlog"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/internal/check"
)

// Registers are what a platform's quote vouches for.
type Registers struct {
	Name   string                     // "PCR", "RTMR"
	Alg    eventlog.Alg               // of the bank
	Index  func(number uint64) uint32 // how logs call a register
	Values map[uint64][]byte          // by number, from a quote; a register that the quote leaves out is not there
}

// The checks that [Appraise] records.
const (
	nameLog    = "event-log"
	nameEvents = "events"
)

// Appraise records the checks "event-log" and "events" of the logs docs, of which
// one must replay. With a policy, only its rules decide: without rules no log is
// needed, and none is looked at. Without a policy, a log that was given must
// replay in every register that it speaks of.
func Appraise(docs [][]byte, regs Registers, p *policy.Policy, rules []policy.Event, r *check.Recorder) {
	if len(rules) == 0 && (p != nil || len(docs) == 0) {
		why := "no event log was given"
		if p != nil {
			why = "the policy names no events"
		}
		r.NotChecked(nameLog, why)
		return
	}
	closed := map[uint64]bool{}
	for _, e := range rules {
		closed[e.Register] = true
	}
	numbers := slices.Sorted(maps.Keys(closed))
	want := "an event log that replays to every register it speaks of"
	if len(numbers) > 0 {
		want = fmt.Sprintf("an event log that replays to %s %s", regs.Name, list(numbers))
	}
	if len(docs) == 0 {
		r.Missing(nameLog, want, "the enclave must send its event log: the policy says what it may hold")
		r.NotChecked(nameEvents, "no event log")
		return
	}
	var first string
	for _, b := range docs {
		l, err := eventlog.Parse(b)
		if err != nil {
			first = or(first, err.Error())
			continue
		}
		these := numbers
		if len(these) == 0 {
			these = regs.spokenOf(l)
		}
		if bad := regs.replay(l, these); bad != "" {
			first = or(first, bad)
			continue
		}
		r.Pass(nameLog, fmt.Sprintf("%d events; replays to %s %s", len(l.Events), regs.Name, list(these)))
		if len(rules) == 0 {
			r.NotChecked(nameEvents, "no policy says which events are right")
			return
		}
		regs.events(l, rules, closed, r)
		return
	}
	r.Fail(nameLog, want, first, "the log was changed, cut, or is of another machine or boot: nothing in it can be believed")
	r.NotChecked(nameEvents, "no event log that replays")
}

// spokenOf returns the numbers of the registers that l extends, among those that
// a quote can vouch for.
func (g *Registers) spokenOf(l *eventlog.Log) []uint64 {
	var out []uint64
	for n := range uint64(32) {
		if slices.ContainsFunc(l.Events, func(e eventlog.Event) bool { return e.Index == g.Index(n) && e.Type != eventlog.NoAction }) {
			out = append(out, n)
		}
	}
	return out
}

// replay says which of the registers l does not replay to, or "".
func (g *Registers) replay(l *eventlog.Log, numbers []uint64) string {
	var bad []string
	for _, n := range numbers {
		quoted, ok := g.Values[n]
		if !ok {
			bad = append(bad, fmt.Sprintf("%s %d is not in the quote", g.Name, n))
			continue
		}
		v, err := l.Replay(g.Alg, g.Index(n))
		if err != nil {
			return err.Error()
		}
		if !bytes.Equal(v, quoted) {
			bad = append(bad, fmt.Sprintf("%s %d is %x, the log gives %x", g.Name, n, quoted, v))
		}
	}
	if len(numbers) == 0 {
		return "the log extends no register"
	}
	return strings.Join(bad, "; ")
}

// events holds the events of the closed registers against the rules.
func (g *Registers) events(l *eventlog.Log, rules []policy.Event, closed map[uint64]bool, r *check.Recorder) {
	found := make([]bool, len(rules))
	var unknown []string
	seen := 0
	for i := range l.Events {
		e := &l.Events[i]
		number, ok := g.number(e.Index, closed)
		if !ok || e.Type == eventlog.NoAction {
			continue
		}
		seen++
		d := l.Digest(e, g.Alg)
		rule := slices.IndexFunc(rules, func(x policy.Event) bool { return x.Register == number && bytes.Equal(x.Digest, d) })
		if rule >= 0 {
			found[rule] = true
			continue
		}
		unknown = append(unknown, fmt.Sprintf("event %d in %s %d, %s", i, g.Name, number, describe(l, e, g.Alg)))
	}
	var missing []string
	for i, x := range rules {
		if x.Required && !found[i] {
			missing = append(missing, fmt.Sprintf("%q in %s %d", x.Name, g.Name, x.Register))
		}
	}
	var got []string
	if len(unknown) > 0 {
		got = append(got, "not in the policy: "+strings.Join(clip(unknown), "; "))
	}
	if len(missing) > 0 {
		got = append(got, "missing: "+strings.Join(clip(missing), "; "))
	}
	if len(got) == 0 {
		r.Pass(nameEvents, fmt.Sprintf("%d events, all of the policy", seen))
		return
	}
	r.Fail(nameEvents, fmt.Sprintf("in %s %s only events of the policy, and the required ones", g.Name, list(slices.Sorted(maps.Keys(closed)))),
		strings.Join(got, "; "), "something else was started than the members approved, or the policy lacks a legitimate event")
}

func (g *Registers) number(index uint32, closed map[uint64]bool) (uint64, bool) {
	for n := range closed {
		if g.Index(n) == index {
			return n, true
		}
	}
	return 0, false
}

// maxShown bounds how many events, and how much of their data, a verdict shows.
const maxShown, maxData = 4, 60

// describe names an event by its digest, and shows its data only where they are
// what was measured.
func describe(l *eventlog.Log, e *eventlog.Event, a eventlog.Alg) string {
	s := "digest " + hex.EncodeToString(l.Digest(e, a))
	if l.IsDataOf(e, a) {
		s += fmt.Sprintf(" of data %q", e.Data[:min(len(e.Data), maxData)])
	}
	return s
}

func clip(l []string) []string {
	if len(l) <= maxShown {
		return l
	}
	return append(l[:maxShown:maxShown], fmt.Sprintf("and %d more", len(l)-maxShown))
}

func list(numbers []uint64) string {
	s := make([]string, len(numbers))
	for i, n := range numbers {
		s[i] = fmt.Sprint(n)
	}
	return strings.Join(s, ", ")
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
