package boot

import (
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/enclave"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/policy"
)

// chain writes the golden policy chain to a file.
func chain(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../policy/testdata/chain.hex")
	if err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		t.Fatal(err)
	}
	return write(t, string(b))
}

func write(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestMainRefuses(t *testing.T) {
	t.Parallel()
	good := chain(t)
	for name, c := range map[string]struct {
		args []string
		exit int
		says string
	}{
		"help":            {[]string{"--help"}, exitUsage, "address of the link"},
		"unknown flag":    {[]string{"--listen", "x"}, exitUsage, "not defined: -listen"},
		"argument":        {[]string{"--policy", good, "--link", "a:1", "more"}, exitUsage, `unexpected argument "more"`},
		"no policy":       {[]string{"--link", "a:1"}, exitUsage, "no --policy"},
		"no link":         {[]string{"--policy", good}, exitUsage, "no --link"},
		"missing policy":  {[]string{"--policy", "/nonexistent", "--link", "a:1"}, exitFail, "no such file"},
		"no chain":        {[]string{"--policy", write(t, "name: x"), "--link", "a:1"}, exitFail, "policy chain"},
		"long policy":     {[]string{"--policy", write(t, strings.Repeat("x", policy.MaxChain+1)), "--link", "a:1"}, exitFail, "more than"},
		"missing config":  {[]string{"--policy", good, "--link", "a:1", "--config", "/nonexistent"}, exitFail, "no such file"},
		"unknown setting": {[]string{"--policy", good, "--config", write(t, `{"image": "ff"}`)}, exitUsage, `unknown field "image"`},
		"two objects":     {[]string{"--policy", good, "--config", write(t, `{"link": "a:1"} {}`)}, exitUsage, "bytes after the object"},
		"long config":     {[]string{"--policy", good, "--config", write(t, strings.Repeat(" ", maxConfig+1))}, exitFail, "more than"},
		"log level":       {[]string{"--policy", good, "--config", write(t, `{"link": "a:1", "log_level": "loud"}`)}, exitFail, "level"},
		"bad link":        {[]string{"--policy", good, "--link", "a"}, exitUsage, "host:port"},
		"no hardware":     {[]string{"--policy", good, "--link", "a:1", "--none"}, exitUnsupported, "no hardware"},
	} {
		var none bool
		p := Program{
			Name:  "test-enclave",
			Flags: func(fs *flag.FlagSet) { fs.BoolVar(&none, "none", false, "") },
			Machine: func(*policy.Chain) (enclave.Machine, error) {
				if none {
					return nil, fmt.Errorf("no hardware: %w", errors.ErrUnsupported)
				}
				return machine{}, nil
			},
		}
		var stderr strings.Builder
		if got := Main(t.Context(), p, c.args, &stderr); got != c.exit || !strings.Contains(stderr.String(), c.says) {
			t.Errorf("%s: exit status %d, want %d; said %q, want %q", name, got, c.exit, &stderr, c.says)
		}
	}
}

// A host that wants the enclave to end gets a clean end, and the link that it names
// need not be there.
func TestMainEnds(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stderr strings.Builder
	p := Program{Name: "test-enclave", Machine: func(c *policy.Chain) (enclave.Machine, error) {
		if c.Head().Version == 0 {
			t.Error("no policy")
		}
		return machine{}, nil
	}}
	config := write(t, `{"link": "127.0.0.1:1"}`)
	if got := Main(ctx, p, []string{"--policy", chain(t), "--config", config}, &stderr); got != exitPass {
		t.Errorf("exit status %d: %s", got, &stderr)
	}
	if !strings.Contains(stderr.String(), `"msg":"enclave started"`) {
		t.Errorf("log %s", &stderr)
	}
}

// machine is hardware that is never asked.
type machine struct{}

func (machine) Collect(context.Context, [64]byte) ([]attestation.Item, error) {
	return nil, errors.ErrUnsupported
}

func (machine) CollectGPU(context.Context, [][32]byte) ([]attestation.Item, error) {
	return nil, errors.ErrUnsupported
}

func (machine) GPUs() int { return 0 }

func (machine) Endorsements() (*attestation.Endorsements, error) { return nil, nil }

func TestConfigDigest(t *testing.T) {
	t.Parallel()
	text := `{"link": "a:1", "log_level": "warn"}`
	c, err := readConfig(write(t, text))
	if err != nil || c.Link != "a:1" || c.LogLevel != "warn" || c.digest != cose.Sum([]byte(text)) {
		t.Errorf("got %+v, %v", c, err)
	}
	if c, err := readConfig(""); err != nil || c.digest != cose.Sum(nil) {
		t.Errorf("no file: got %+v, %v", c, err)
	}
}

func TestImageDigest(t *testing.T) {
	t.Parallel()
	want := cose.Sum([]byte("program"))
	program := write(t, "program")
	self := func() (string, error) { return program, nil }
	for name, c := range map[string]struct {
		file string
		want cose.Digest // zero: an error
	}{
		"no file":   {filepath.Join(t.TempDir(), "none"), want},
		"file":      {write(t, cose.Sum([]byte("image")).String()+"\n"), cose.Sum([]byte("image"))},
		"not hex":   {write(t, "latest"), cose.Digest{}},
		"empty":     {write(t, ""), cose.Digest{}},
		"too long":  {write(t, strings.Repeat(" ", 200)), cose.Digest{}},
		"directory": {t.TempDir(), cose.Digest{}},
	} {
		got, err := imageDigest(c.file, self)
		if got != c.want || (err != nil) != c.want.IsZero() {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
	}
}
