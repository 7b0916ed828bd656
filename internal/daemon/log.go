package daemon

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
	"unicode"
)

// LogConfig says how a daemon logs. The zero value logs text from level info on.
type LogConfig struct {
	Format string `yaml:"format"` // "text" (default) or "json"
	Level  string `yaml:"level"`  // "debug", "info" (default), "warn" or "error"
}

// secretWords are the words of attribute keys whose values are secret. A word
// that is there without need costs a log line its value; one that is missing
// costs a key.
var secretWords = []string{"secret", "password", "passwd", "token", "authorization", "private", "priv", "seed", "psk", "cookie", "signer"}

const redacted = "[redacted]"

// Logger returns a logger that writes to w and hides the value of every
// attribute, at any depth of groups, whose key names a secret: see [Secret].
func Logger(w io.Writer, c LogConfig) (*slog.Logger, error) {
	o := slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if Secret(a.Key) {
			return slog.String(a.Key, redacted)
		}
		return a
	}}
	if c.Level != "" {
		var l slog.Level
		if err := l.UnmarshalText([]byte(c.Level)); err != nil {
			return nil, fmt.Errorf("log: level %q, want debug, info, warn or error", c.Level)
		}
		o.Level = l
	}
	switch c.Format {
	case "", "text":
		return slog.New(slog.NewTextHandler(w, &o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, &o)), nil
	}
	return nil, fmt.Errorf("log: format %q, want text or json", c.Format)
}

// Secret reports whether an attribute's key names a secret. Words are separated
// by '_', '-', '.' or a change to upper case, so that "tokens_used" is none and
// "apiToken" is one. A key named plainly "key" is a secret; "key_id" is not.
func Secret(key string) bool {
	words := split(key)
	for i, word := range words {
		for _, s := range secretWords {
			if word == s {
				return true
			}
		}
		if word == "key" && i == len(words)-1 && (i == 0 || words[i-1] != "public") {
			return true
		}
	}
	return false
}

// split returns the words of a key in lower case: "APIKey" is api, key.
func split(key string) []string {
	var b strings.Builder
	r := []rune(key)
	for i, c := range r {
		if unicode.IsUpper(c) && i > 0 && (!unicode.IsUpper(r[i-1]) || i+1 < len(r) && unicode.IsLower(r[i+1])) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(c))
	}
	return strings.FieldsFunc(b.String(), func(c rune) bool { return c == '_' || c == '-' || c == '.' || c == ' ' })
}
