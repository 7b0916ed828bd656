package auth

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// seeds are files with what providers and callers send.
func seeds(f *testing.F) {
	f.Helper()
	found, err := filepath.Glob("testdata/*.json")
	if err != nil || len(found) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, name := range found {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
}

// FuzzProvider reads whatever a provider may answer, as each of its answers.
func FuzzProvider(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, err := parseKeys(b); err == nil {
			for _, key := range k {
				if !key.IsPublic() || !verifies(key.Key) {
					t.Error("a key that is no public one")
				}
			}
		}
		if x, jwks, err := parseFacts(b, "https://login.example"); err == nil {
			for _, a := range []string{x.token, x.device, jwks} {
				if !strings.HasPrefix(strings.ToLower(a), "https://") {
					t.Errorf("secrets would go to %q", a)
				}
			}
		}
		if d, err := parseDevice(b); err == nil {
			if !strings.HasPrefix(strings.ToLower(d.address), "https://") || !printable(d.address) || d.code == "" {
				t.Errorf("%q is shown to users", d.address)
			}
			if d.interval < time.Second || d.interval > maxInterval || d.expires < time.Second || d.expires > maxExpiry {
				t.Errorf("a login of %s, asked for every %s", d.expires, d.interval)
			}
		}
		for _, code := range []int{200, 400, 500} {
			if g, err := parseGranted(code, b); err == nil && g.fault != "" && (g.id != "" || strings.ContainsAny(g.fault, "\n =")) {
				t.Errorf("%q", g.fault)
			}
		}
	})
}

// FuzzToken shows whatever a caller may: without a provider's key nobody is let in.
func FuzzToken(f *testing.F) {
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Add("eyJhbGciOiJFUzI1NiIsImtpZCI6IjEiLCJ0eXAiOiJKV1QifQ.eyJzdWIiOiJhZGEifQ.AAAA")
	f.Add("eyJhbGciOiJSUzI1NiIsImNyaXQiOlsiYjY0Il0sImI2NCI6ZmFsc2V9.e30.AA")
	b, err := os.ReadFile("testdata/keys.json")
	if err != nil {
		f.Fatal(err)
	}
	k, err := parseKeys(b)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, token string) {
		s, err := parseToken(Token(token))
		if err != nil {
			return
		}
		if _, err := k.payload(s); err == nil {
			t.Errorf("%q was signed by nobody here", token)
		}
	})
}

// FuzzClaims reads whatever a provider may sign.
func FuzzClaims(f *testing.F) {
	seeds(f)
	now := time.Unix(1_800_000_000, 0)
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parseClaims(b, "https://login.example", "node-a", now)
		if err != nil {
			return
		}
		if c.subject == "" || len(c.subject) > maxSubject || !printable(c.subject) {
			t.Errorf("subject %q", c.subject)
		}
		if (Allow{Subjects: []string{""}, Emails: []string{""}, Claims: map[string][]string{"groups": {""}}}).admits(c) && len(c.strings("groups")) == 0 {
			t.Error("nothing was taken for something")
		}
	})
}
