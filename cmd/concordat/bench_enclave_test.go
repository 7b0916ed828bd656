package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/internal/cose"
)

// A target is judged by what it is about, and by nothing smaller.
func TestMemoryLine(t *testing.T) {
	t.Parallel()
	yes, no := true, false
	for name, c := range map[string]struct {
		strategy string
		use      memoryUse
		size     int64
		members  int
		value    float64
		met      *bool
	}{
		"met":              {"fedavg", memoryUse{30e6, 70e6}, 400e6, 10, 40, &yes},
		"missed":           {"fedavg", memoryUse{30e6, 71e6}, 400e6, 10, 41, &no},
		"larger":           {"fedavg", memoryUse{30e6, 70e6}, 800e6, 12, 40, &yes},
		"too small":        {"fedavg", memoryUse{30e6, 60e6}, 399e6, 10, 30, nil},
		"too few":          {"fedavg", memoryUse{30e6, 60e6}, 400e6, 9, 30, nil},
		"median":           {"fedmedian", memoryUse{30e6, 94e6}, 400e6, 100, 64, &yes},
		"median, too few":  {"fedmedian", memoryUse{30e6, 94e6}, 400e6, 10, 64, nil},
		"median, too much": {"fedmedian", memoryUse{30e6, 95e6}, 400e6, 100, 65, &no},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := memoryLineOf(c.strategy)
			if err != nil {
				t.Fatal(err)
			}
			m := l.value(c.use, c.size, c.members)
			if m.Value != c.value || (m.Met == nil) != (c.met == nil) || m.Met != nil && *m.Met != *c.met {
				t.Errorf("%+v", m)
			}
			b, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			var table strings.Builder
			printBenchTable(&table, []benchValue{m})
			open := strings.Contains(string(b), `"met":null`) && strings.Contains(table.String(), "not judged: the target is about")
			if open != (c.met == nil) || !strings.Contains(table.String(), fmt.Sprintf("%.2f", c.value)) {
				t.Errorf("%s\n%s", b, &table)
			}
		})
	}
	if _, err := memoryLineOf("krum"); err == nil || !strings.Contains(err.Error(), "fedavg or fedmedian") {
		t.Errorf("%v", err)
	}
}

// The task that the process reads is the one that was written.
func TestMemoryTask(t *testing.T) {
	t.Parallel()
	want := memoryTask{Link: "127.0.0.1:1#sha256:00", Elements: 7, Members: 3, Strategy: "fedavg", Contributions: []deposited{{
		Scope: chunkstore.Scope{Federation: cose.Digest{1}, Run: cose.Digest{2}, Owner: cose.Digest{3}}, Secret: [32]byte{4}, Seq: 5,
		Sealed: chunkstore.Sealed{Manifest: chunkstore.Ref{OID: [32]byte{6}, ID: chunkstore.ID{7}, Size: 8}, Root: cose.Digest{9}, Count: 10},
	}}}
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got memoryTask
	if err := json.Unmarshal(b, &got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
}

// A process that cannot read its task, or reach its link, ends with a reason.
func TestBenchEnclaveRefuses(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"": "task on standard input", "{}": "no contributions", `{"Contributions": [{}]}`: "link address"} {
		root := newRootCommand()
		root.SetArgs([]string{"bench", "enclave"})
		root.SetIn(strings.NewReader(in))
		root.SetOut(new(bytes.Buffer))
		root.SetErr(new(bytes.Buffer))
		if err := root.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", in, err, want)
		}
	}
}

// Lines are said as they end, however they are cut, and all of it is kept.
func TestSaying(t *testing.T) {
	t.Parallel()
	var said []string
	var kept bytes.Buffer
	s := &saying{say: func(format string, a ...any) { said = append(said, fmt.Sprintf(format, a...)) }, all: &kept}
	for _, part := range []string{"a", "b\nc %d\n", "", "the rest"} {
		if n, err := s.Write([]byte(part)); n != len(part) || err != nil {
			t.Fatal(n, err)
		}
	}
	if strings.Join(said, "|") != "ab|c %d" || kept.String() != "ab\nc %d\nthe rest" {
		t.Errorf("%q, %q", said, &kept)
	}
}
