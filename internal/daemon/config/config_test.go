package config

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

type settings struct {
	Listen string `yaml:"listen"`
	Log    struct {
		Level string `yaml:"level"`
	} `yaml:"log"`
	Limit int `yaml:"limit"`
}

func TestDecode(t *testing.T) {
	for name, c := range map[string]struct {
		in   string
		want settings
		err  string // part of the message, or empty
	}{
		"empty":     {in: "", want: settings{Limit: 5}},
		"comment":   {in: "# nothing\n", want: settings{Limit: 5}},
		"over":      {in: "listen: a:1\nlimit: 7\n", want: settings{Listen: "a:1", Limit: 7}},
		"unknown":   {in: "listen: a:1\nlissten: b\n", err: "line 2"},
		"nested":    {in: "log:\n  levl: info\n", err: "line 2"},
		"twice":     {in: "limit: 1\nlimit: 2\n", err: "line 2"},
		"type":      {in: "limit: s3cret\n", err: "line 1"},
		"documents": {in: "limit: 1\n---\nlimit: 2\n", err: "more than one"},
	} {
		got := settings{Limit: 5}
		err := Decode([]byte(c.in), &got)
		switch {
		case c.err == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.err == "" && got != c.want:
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
			t.Errorf("%s: error %v, want %q", name, err, c.err)
		case err != nil && strings.Contains(err.Error(), "\n"):
			t.Errorf("%s: the error quotes the file: %v", name, err)
		}
	}
}

func TestPrintIsReadable(t *testing.T) {
	want := settings{Listen: "[::]:7443", Limit: 3}
	var b bytes.Buffer
	if err := Print(&b, want); err != nil {
		t.Fatal(err)
	}
	var got settings
	if err := Decode(b.Bytes(), &got); err != nil || got != want {
		t.Errorf("got %+v, %v from\n%s", got, err, &b)
	}
}

func TestLoadIsBounded(t *testing.T) {
	p := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(p, bytes.Repeat([]byte("#\n"), maxFile), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Load(p, new(settings)); err == nil {
		t.Error("a file over the limit was read")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("listen: a\nlog: {level: info}\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s settings
		if err := Decode(b, &s); err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("the error quotes the file: %q", err)
		}
	})
}
