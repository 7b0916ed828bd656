package tdx

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/eventlog"
	"github.com/concordat/concordat/attestation/tdx"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/internal/check"
)

// appLog is a log of three events in RTMR 3 and one elsewhere.
func appLog() *eventlog.Log {
	l := eventlog.New(eventlog.SHA384)
	for _, s := range []string{"app", "settings", "ready"} {
		l.Extend(eventlog.RTMR(3), eventlog.Tag, []byte(s))
	}
	l.Extend(eventlog.RTMR(2), eventlog.Tag, []byte("kernel"))
	return l
}

// quoteOf returns a quote of a TD that measured l.
func quoteOf(t testing.TB, l *eventlog.Log) *tdx.Quote {
	t.Helper()
	q := new(tdx.Quote)
	for i := range q.Body.RTMR {
		v, err := l.Replay(eventlog.SHA384, eventlog.RTMR(i))
		if err != nil {
			t.Fatal(err)
		}
		copy(q.Body.RTMR[i][:], v)
	}
	return q
}

func rule(data string, required bool) policy.Event {
	return policy.Event{Register: 3, Digest: eventlog.SHA384.Sum([]byte(data)), Required: required, Name: data}
}

// replay returns the verdicts of the checks of events, by name.
func replay(t testing.TB, q *tdx.Quote, rules []policy.Event, withPolicy bool, logs ...[]byte) map[string]check.Check {
	t.Helper()
	ends := new(attestation.Endorsements)
	for _, l := range logs {
		if _, err := ends.Add(attestation.Endorsement{Type: attestation.TypeEventLog, Data: l}); err != nil {
			t.Fatal(err)
		}
	}
	j := &judge{r: check.NewRecorder("tdx"), quote: q}
	if withPolicy {
		j.tdx = &policy.TDX{Events: rules}
		j.policy = &policy.Policy{Platforms: policy.Platforms{TDX: j.tdx}}
	}
	j.events(ends, nil)
	out := map[string]check.Check{}
	for _, c := range j.r.Checks() {
		out[strings.TrimPrefix(c.Name, "tdx.")] = c
	}
	return out
}

func TestEvents(t *testing.T) {
	t.Parallel()
	good := appLog()
	rules := []policy.Event{rule("app", true), rule("settings", false), rule("ready", true)}
	change := func(f func(l *eventlog.Log)) []byte {
		l := appLog()
		f(l)
		return l.Marshal()
	}
	other := appLog()
	other.Extend(eventlog.RTMR(3), eventlog.Tag, []byte("debugger"))
	for name, c := range map[string]struct {
		quote       *tdx.Quote
		rules       []policy.Event
		logs        [][]byte
		log, events check.Verdict
		says        string
	}{
		"good":                  {quoteOf(t, good), rules, [][]byte{good.Marshal()}, check.Pass, check.Pass, ""},
		"beside another log":    {quoteOf(t, good), rules, [][]byte{good.Marshal(), other.Marshal()}, check.Pass, check.Pass, ""},
		"no log":                {quoteOf(t, good), rules, nil, check.Incomplete, check.NotChecked, ""},
		"no log that parses":    {quoteOf(t, good), rules, [][]byte{[]byte("log")}, check.Fail, check.NotChecked, "malformed"},
		"log of another boot":   {quoteOf(t, good), rules, [][]byte{other.Marshal()}, check.Fail, check.NotChecked, "RTMR 3"},
		"event taken out":       {quoteOf(t, good), rules, [][]byte{change(func(l *eventlog.Log) { l.Events = l.Events[1:] })}, check.Fail, check.NotChecked, "RTMR 3"},
		"order changed":         {quoteOf(t, good), rules, [][]byte{change(func(l *eventlog.Log) { l.Events[0], l.Events[1] = l.Events[1], l.Events[0] })}, check.Fail, check.NotChecked, "RTMR 3"},
		"closed register alone": {quoteOf(t, good), rules, [][]byte{change(func(l *eventlog.Log) { l.Events = l.Events[:3] })}, check.Pass, check.Pass, ""}, // RTMR 2 has no rules
		"unknown event":         {quoteOf(t, other), rules, [][]byte{other.Marshal()}, check.Pass, check.Fail, `of data "debugger"`},
		"required missing":      {quoteOf(t, good), append(rules[:3:3], rule("firewall", true)), [][]byte{good.Marshal()}, check.Pass, check.Fail, `"firewall" in RTMR 3`},
		"optional missing":      {quoteOf(t, good), append(rules[:3:3], rule("firewall", false)), [][]byte{good.Marshal()}, check.Pass, check.Pass, ""},
		"other data than was measured": {quoteOf(t, other), rules, [][]byte{change(func(l *eventlog.Log) {
			l.Extend(eventlog.RTMR(3), eventlog.Tag, []byte("debugger"))
			l.Events[4].Data = []byte("harmless")
		})}, check.Pass, check.Fail, "not in the policy"},
		"called no action": {quoteOf(t, other), rules, [][]byte{change(func(l *eventlog.Log) {
			l.Extend(eventlog.RTMR(3), eventlog.NoAction, []byte("debugger")) // then it does not replay
		})}, check.Fail, check.NotChecked, "RTMR 3"},
	} {
		got := replay(t, c.quote, c.rules, true, c.logs...)
		l, e := got["event-log"], got["events"]
		if l.Verdict != c.log || e.Verdict != c.events || !strings.Contains(l.Got+e.Got, c.says) {
			t.Errorf("%s: log %+v, events %+v", name, l, e)
		}
		if _, ok := got["rtmr3"]; ok {
			t.Errorf("%s: RTMR 3 has rules and is not checked", name)
		}
		if strings.Contains(e.Got, "harmless") {
			t.Errorf("%s: data that were not measured are shown", name)
		}
	}
	// No rules: a policy that is silent wants no log; without a policy one that was
	// given must be right.
	q, b := quoteOf(t, good), good.Marshal()
	if c := replay(t, q, nil, true, other.Marshal()); c["event-log"].Verdict != check.NotChecked {
		t.Errorf("silent policy: %+v", c["event-log"])
	}
	if c := replay(t, q, nil, false); c["event-log"].Verdict != check.NotChecked {
		t.Errorf("nothing at all: %+v", c["event-log"])
	}
	if c := replay(t, q, nil, false, b); c["event-log"].Verdict != check.Pass || c["events"].Verdict != check.NotChecked {
		t.Errorf("a log alone: %+v", c)
	}
	if c := replay(t, q, nil, false, other.Marshal()); c["event-log"].Verdict != check.Fail {
		t.Errorf("another log alone: %+v", c)
	}
	if c := replay(t, q, nil, false, eventlog.New(eventlog.SHA384).Marshal()); c["event-log"].Verdict != check.Fail {
		t.Errorf("an empty log alone: %+v", c)
	}
	if c := replay(t, q, rules, true, change(func(l *eventlog.Log) { l.Algs = l.Algs[:0] })); c["event-log"].Verdict != check.Fail {
		t.Errorf("a log without the bank: %+v", c)
	}
}

// TestEventsVector replays the log of a genuine TD, and refuses it with any bit
// of a digest flipped.
func TestEventsVector(t *testing.T) {
	t.Parallel()
	dir := os.Getenv("CONCORDAT_VECTORS")
	if dir == "" {
		t.Skip("CONCORDAT_VECTORS is not set: the event log of a genuine machine was not tested")
	}
	b, err := os.ReadFile(filepath.Join(dir, "tpm", "CCEL_data"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := eventlog.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	q := quoteOf(t, l)
	var rules []policy.Event
	for _, e := range l.Events {
		r := policy.Event{Register: uint64(e.Index - 1), Digest: slices.Clone(e.Digests[0]), Required: true, Name: "event"}
		rules = append(rules, r)
	}
	if c := replay(t, q, rules, true, b); c["event-log"].Verdict != check.Pass || c["events"].Verdict != check.Pass {
		t.Fatalf("%+v", c)
	}
	for i := range l.Events {
		l.Events[i].Digests[0][i] ^= 1
		if c := replay(t, q, rules, true, l.Marshal()); c["event-log"].Verdict != check.Fail {
			t.Errorf("event %d changed: %+v", i, c["event-log"])
		}
		l.Events[i].Digests[0][i] ^= 1
	}
}
