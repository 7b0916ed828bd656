package daemon

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

func TestSecret(t *testing.T) {
	for key, want := range map[string]bool{
		"key": true, "api_key": true, "apiKey": true, "APIKey": true, "private_key": true, "seed": true, "authToken": true, "proxy-password": true,
		"signer": true, "public_key": false, "key_id": false, "tokens": false, "monkey": false, "keys": false, "federation": false, "error": false, "": false,
	} {
		if got := Secret(key); got != want {
			t.Errorf("Secret(%q) = %v", key, got)
		}
	}
}

func TestLoggerHidesSecrets(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		var b bytes.Buffer
		l, err := Logger(&b, LogConfig{Format: format, Level: "debug"})
		if err != nil {
			t.Fatal(err)
		}
		l.With("token", "s3cret-a").WithGroup("g").Debug("hello", "seed", "s3cret-b", slog.Group("h", "password", "s3cret-c", "size", 7))
		if out := b.String(); strings.Contains(out, "s3cret") || !strings.Contains(out, "7") || !strings.Contains(out, redacted) {
			t.Errorf("%s: %s", format, out)
		}
	}
	for _, c := range []LogConfig{{Format: "xml"}, {Level: "loud"}} {
		if _, err := Logger(&bytes.Buffer{}, c); err == nil {
			t.Errorf("%+v accepted", c)
		}
	}
}
