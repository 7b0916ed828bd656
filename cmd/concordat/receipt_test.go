package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/verifier/receipt"
)

// execute runs the command line in this process.
func execute(t testing.TB, args ...string) (status int, stdout string) {
	t.Helper()
	var out, complaints bytes.Buffer
	root := newRootCommand()
	root.SetArgs(args)
	root.SetOut(&out)
	root.SetErr(&complaints)
	cmd, err := root.ExecuteContextC(t.Context())
	status = report(cmd, err)
	t.Logf("%v: %d\n%s%s", args, status, &out, &complaints)
	return status, out.String()
}

func TestReceiptVerify(t *testing.T) {
	t.Parallel()
	k, err := cose.GenerateSigner(cose.ES256)
	if err != nil {
		t.Fatal(err)
	}
	var tree receipt.Tree
	for _, e := range []string{"one", "two", "three"} {
		tree.Append([]byte(e))
	}
	h := receipt.ReceiptHeader{Issuer: "log.example", Subject: "federation", Origin: "log.example", Size: 3}
	raw, err := receipt.IssueReceipt(h, []byte("two"), tree.Prove(1), tree.Root(), k)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key, other := file("key", k.Public().Encode()), file("other", mustKey(t).Encode())
	good, two, three := file("receipt", raw), file("two", []byte("two")), file("three", []byte("three"))
	changed := bytes.Clone(raw)
	changed[len(changed)-1] ^= 1
	ccf := bytes.Replace(raw, []byte{0x19, 0x01, 0x8b, 0x01}, []byte{0x19, 0x01, 0x8b, 0x02}, 1) // vds 2

	for _, c := range []struct {
		name string
		args []string
		want int
	}{
		{"good", []string{good, "--key", key, "--entry", two}, exitPass},
		{"another entry", []string{good, "--key", key, "--entry", three}, exitFail},
		{"another key", []string{good, "--key", other, "--entry", two}, exitFail},
		{"changed", []string{file("changed", changed), "--key", key, "--entry", two}, exitFail},
		{"another tree", []string{file("ccf", ccf), "--key", key, "--entry", two}, exitUnsupported},
		{"no receipt", []string{two, "--key", key, "--entry", two}, exitFail},
		{"inclusion as consistency", []string{good, "--key", key, "--old-root", strings.Repeat("00", 32)}, exitFail},
		{"no root", []string{good, "--key", key, "--old-root", "xyz"}, exitUsage},
		{"nothing to prove", []string{good, "--key", key}, exitUsage},
		{"both", []string{good, "--key", key, "--entry", two, "--old-root", strings.Repeat("00", 32)}, exitUsage},
		{"no key", []string{good, "--entry", two}, exitUsage},
		{"key is no key", []string{good, "--key", two, "--entry", two}, exitFail},
		{"no such file", []string{filepath.Join(dir, "none"), "--key", key, "--entry", two}, exitFail},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, _ := execute(t, append([]string{"receipt", "verify"}, c.args...)...); got != c.want {
				t.Errorf("exit status %d, want %d", got, c.want)
			}
			_, out := execute(t, append([]string{"receipt", "verify", "--output", "json"}, c.args...)...)
			var one any
			if d := json.NewDecoder(strings.NewReader(out)); d.Decode(&one) != nil || d.More() {
				t.Errorf("not one JSON value: %s", out)
			}
		})
	}
	if _, out := execute(t, "receipt", "verify", good, "--key", key, "--entry", two); !strings.Contains(out, `tree     "log.example"`) {
		t.Errorf("printed %q", out)
	}
}

func mustKey(t testing.TB) cose.Key {
	t.Helper()
	k, err := cose.GenerateSigner(cose.ES256)
	if err != nil {
		t.Fatal(err)
	}
	return k.Public()
}

func TestVerify(t *testing.T) {
	t.Parallel()
	golden := filepath.Join("..", "..", "verifier", "testdata", "bundle")
	bundle, trust := filepath.Join(golden, "bundle.cbor"), filepath.Join(golden, "trust.json")
	dir := t.TempDir()
	b, err := os.ReadFile(bundle)
	if err != nil {
		t.Fatal(err)
	}
	cut := filepath.Join(dir, "cut.cbor")
	if err := os.WriteFile(cut, b[:len(b)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(trust)
	if err != nil {
		t.Fatal(err)
	}
	expectReal := filepath.Join(dir, "real.json")
	if err := os.WriteFile(expectReal, bytes.Replace(text, []byte(`"simulated": true`), []byte(`"simulated": false`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		args []string
		want int
	}{
		{"good", []string{bundle, "--trust", trust}, exitPass},
		{"real expected", []string{bundle, "--trust", expectReal}, exitFail},
		{"cut", []string{cut, "--trust", trust}, exitFail},
		{"no trust file", []string{bundle}, exitIncomplete},
		{"later", []string{bundle, "--trust", trust, "--at", "2036-01-01T00:00:00Z"}, exitPass},
		{"before the log", []string{bundle, "--trust", trust, "--at", "2020-01-01T00:00:00Z"}, exitIncomplete},
		{"no time", []string{bundle, "--trust", trust, "--at", "yesterday"}, exitUsage},
		{"no bundle", []string{"--trust", trust}, exitUsage},
		{"trust is a bundle", []string{bundle, "--trust", bundle}, exitFail},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, _ := execute(t, append([]string{"verify"}, c.args...)...); got != c.want {
				t.Errorf("exit status %d, want %d", got, c.want)
			}
		})
	}
	_, out := execute(t, "verify", bundle, "--trust", trust, "--output", "json")
	var r struct {
		Verdict string `json:"verdict"`
		Checks  []any  `json:"checks"`
		Runs    []any  `json:"runs"`
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil || r.Verdict != "pass-simulated" || len(r.Checks) == 0 || len(r.Runs) != 1 {
		t.Errorf("JSON %+v, %v", r, err)
	}
}
