package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
)

const ask = `{"version":1,"command":"state"}`

func TestRun(t *testing.T) {
	t.Parallel()
	absent := none{fmt.Errorf("no driver: %w", errors.ErrUnsupported)}
	for name, c := range map[string]struct {
		args   []string
		in     string
		driver none
		status int
		stderr string
	}{
		"no driver":      {nil, ask, absent, 4, "no driver"},
		"ready":          {nil, `{"version":1,"command":"ready"}`, absent, 4, "no driver"},
		"broken driver":  {nil, ask, none{errors.New("Xid 79")}, 1, "Xid 79"},
		"no request":     {nil, ``, absent, 1, "request: EOF"},
		"an argument":    {[]string{"--help"}, ask, absent, 2, `unexpected argument "--help"`},
		"no such nonces": {nil, `{"version":1,"command":"evidence"}`, absent, 1, "0 nonces"},
	} {
		var out, stderr bytes.Buffer
		if got := run(c.args, strings.NewReader(c.in), &out, &stderr, c.driver); got != c.status || !strings.Contains(stderr.String(), c.stderr) {
			t.Errorf("%s: status %d, want %d; %s", name, got, c.status, stderr.String())
		}
		var answer struct {
			Error       string
			Unsupported bool
		}
		err := json.Unmarshal(out.Bytes(), &answer)
		if c.status == 2 {
			if out.Len() > 0 {
				t.Errorf("%s: answered %s", name, out.String())
			}
		} else if err != nil || !strings.Contains(answer.Error, c.stderr) || answer.Unsupported != (c.status == 4) {
			t.Errorf("%s: answer %s", name, out.String())
		}
	}
}
