package auth_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/concordat/concordat/internal/flower/control/auth"
	"github.com/concordat/concordat/internal/flower/control/auth/authtest"
)

// clock is a node's, which a test moves.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// bench is a login against a provider that does what the test wants.
type bench struct {
	*authtest.Provider
	*clock
	t     *testing.T
	login *auth.Login
	log   *lines
}

type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newBench(t *testing.T, edits ...func(*auth.Config)) *bench {
	t.Helper()
	b := &bench{Provider: authtest.New(t), clock: &clock{t: time.Unix(1_800_000_000, 0)}, t: t, log: &lines{}}
	c := auth.Config{Issuer: b.URL, ClientID: authtest.Client, Secret: authtest.Secret, Allow: auth.Allow{Subjects: []string{"ada"}},
		Roots: b.Roots, Now: b.now, Log: slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	for _, e := range edits {
		e(&c)
	}
	var err error
	if b.login, err = auth.New(c); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) verify(token string) error {
	a, err := b.login.Verify(b.t.Context(), auth.Token(token))
	if (err == nil) == (a == auth.Account{}) {
		b.t.Errorf("account %v with error %v", a, err)
	}
	return err
}

func (b *bench) want(what string, got, want error) {
	b.t.Helper()
	if !errors.Is(got, want) {
		b.t.Errorf("%s: %v, want %v\n%s", what, got, want, b.log)
	}
}

type edit = map[string]any

// TestDeviceFlow is a login from its beginning to its end, with a provider that wants to
// be asked less often.
func TestDeviceFlow(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(c *auth.Config) {
		c.Allow.Emails, c.Scopes = []string{"x@y.example"}, []string{"groups"}
	})
	b.Publish("scopes_supported", []string{"openid", "offline_access"})
	b.Handle("/device", func(w http.ResponseWriter, r *http.Request) {
		id, secret, _ := r.BasicAuth()
		if s := r.FormValue("scope"); id != authtest.Client || secret != url.QueryEscape(authtest.Secret) || s != "openid offline_access email groups" || r.FormValue("client_id") != "" {
			t.Errorf("asked as %q for %q", id, s)
		}
		authtest.Device("code-1", 600, 5)(w, r)
	})
	begun, err := b.login.Begin(t.Context())
	if err != nil || begun.Interval != 5*time.Second || begun.Expires != 10*time.Minute || !strings.HasSuffix(begun.Address, "/approve?user_code=AB-CD") || strings.Contains(string(begun.Handle), "code-1") {
		t.Fatalf("%+v, %v", begun, err)
	}
	poll := func(want error) auth.Tokens {
		t.Helper()
		tokens, err := b.login.Poll(t.Context(), begun.Handle)
		if !errors.Is(err, want) {
			t.Fatalf("poll: %v, want %v\n%s", err, want, b.log)
		}
		return tokens
	}
	answer := func(h http.HandlerFunc) {
		b.Handle("/token", func(w http.ResponseWriter, r *http.Request) {
			if r.FormValue("grant_type") != "urn:ietf:params:oauth:grant-type:device_code" || r.FormValue("device_code") != "code-1" {
				t.Errorf("asked for %q", r.Form)
			}
			h(w, r)
		})
	}
	answer(authtest.Fault("authorization_pending"))
	poll(auth.ErrPending)
	if b.Asked("/token") != 0 {
		t.Error("the provider was asked before the interval was over")
	}
	b.pass(5 * time.Second)
	poll(auth.ErrPending)
	poll(auth.ErrPending)
	if n := b.Asked("/token"); n != 1 {
		t.Errorf("the provider was asked %d times in an interval", n)
	}
	b.pass(5 * time.Second)
	answer(authtest.Fault("slow_down"))
	poll(auth.ErrPending)
	answer(authtest.Fault("authorization_pending"))
	b.pass(9 * time.Second)
	poll(auth.ErrPending)
	if n := b.Asked("/token"); n != 2 {
		t.Errorf("the provider was asked %d times though it wanted a longer interval", n)
	}
	b.pass(time.Second)
	answer(authtest.JSON(503, "busy"))
	poll(auth.ErrPending)
	if n := b.Asked("/token"); n != 3 {
		t.Errorf("the provider was asked %d times", n)
	}
	b.pass(15 * time.Second)
	id := b.Token(b.Claims("ada", b.now()))
	answer(authtest.Grant(id, "refresh-1"))
	if got := poll(nil); string(got.Access) != id || got.Refresh != "refresh-1" {
		t.Errorf("tokens %q", got)
	}
	// The code is used up.
	asked := b.Asked("/token")
	b.pass(time.Minute)
	poll(auth.ErrEnded)
	if b.Asked("/token") != asked {
		t.Error("a code that was used up came to the provider")
	}
	for _, secret := range []string{id, "refresh-1", "code-1", string(begun.Handle), authtest.Secret} {
		if strings.Contains(b.log.String(), secret) {
			t.Errorf("%q is in the log", secret)
		}
	}
	hidden := &lines{}
	slog.New(slog.NewJSONHandler(hidden, nil)).Info("x", "begun", begun, "handle", begun.Handle)
	slog.New(slog.NewTextHandler(hidden, nil)).Info("x", "begun", begun, "handle", begun.Handle)
	if text := fmt.Sprintf("%v %+v %s %#v %q %x %s", begun, begun, begun.Handle, begun, begun.Handle, begun.Handle, hidden); strings.Contains(text, string(begun.Handle[:10])) {
		t.Errorf("a token prints: %s", text)
	}
}

// TestLoginsThatEnd are those that give no tokens.
func TestLoginsThatEnd(t *testing.T) {
	t.Parallel()
	for what, x := range map[string]struct {
		answer func(*bench) http.HandlerFunc
		want   error
	}{
		"refused":          {func(*bench) http.HandlerFunc { return authtest.Fault("access_denied") }, auth.ErrEnded},
		"expired there":    {func(*bench) http.HandlerFunc { return authtest.Fault("expired_token") }, auth.ErrEnded},
		"no client":        {func(*bench) http.HandlerFunc { return authtest.Fault("invalid_client") }, auth.ErrProvider},
		"not allowed":      {func(b *bench) http.HandlerFunc { return authtest.Grant(b.Token(b.Claims("eve", b.now())), "r") }, auth.ErrDenied},
		"no refresh token": {func(b *bench) http.HandlerFunc { return authtest.Grant(b.Token(b.Claims("ada", b.now())), "") }, auth.ErrProvider},
		"no ID token":      {func(*bench) http.HandlerFunc { return authtest.Grant("", "r") }, auth.ErrProvider},
		"another's ID token": {func(b *bench) http.HandlerFunc {
			return authtest.Grant(b.Token(b.Claims("ada", b.now(), edit{"aud": "x"})), "r")
		}, auth.ErrProvider},
		"success and a fault": {func(*bench) http.HandlerFunc {
			return authtest.JSON(200, edit{"error": "access_denied", "id_token": "x"})
		}, auth.ErrEnded},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.Handle("/device", authtest.Device("c", 600, 5))
			begun, err := b.login.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			b.pass(5 * time.Second)
			b.Handle("/token", x.answer(b))
			_, err = b.login.Poll(t.Context(), begun.Handle)
			b.want("the first poll", err, x.want)
			b.pass(time.Minute)
			_, err = b.login.Poll(t.Context(), begun.Handle)
			b.want("another", err, auth.ErrEnded)
		})
	}
	b := newBench(t)
	_, err := b.login.Poll(t.Context(), "a guess")
	b.want("a guess", err, auth.ErrEnded)
	b.Handle("/device", authtest.Device("c", 60, 0))
	begun, err := b.login.Begin(t.Context())
	if err != nil || begun.Interval != 5*time.Second {
		t.Fatalf("%+v, %v", begun, err)
	}
	b.pass(time.Minute)
	_, err = b.login.Poll(t.Context(), begun.Handle)
	b.want("too late", err, auth.ErrEnded)
	if b.Asked("/token") != 0 {
		t.Error("the provider was asked for what had expired")
	}
}

// TestMany bounds what strangers begin.
func TestMany(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.Handle("/device", authtest.Device("c", 600, 5))
	for i := range 256 {
		if _, err := b.login.Begin(t.Context()); err != nil {
			t.Fatalf("login %d: %v", i, err)
		}
	}
	_, err := b.login.Begin(t.Context())
	b.want("one more", err, auth.ErrBusy)
	if n := b.Asked("/device"); n != 256 {
		t.Errorf("the provider was asked %d times", n)
	}
	b.pass(10 * time.Minute)
	_, err = b.login.Begin(t.Context())
	b.want("later", err, nil)
}

func TestRefresh(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	refresh := func(token auth.Token, want error) auth.Tokens {
		t.Helper()
		got, a, err := b.login.Refresh(t.Context(), token)
		b.want("refresh", err, want)
		if (err == nil) != (a != auth.Account{}) {
			t.Errorf("account %v with %v", a, err)
		}
		return got
	}
	id := b.Token(b.Claims("ada", b.now()))
	b.Handle("/token", func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("grant_type") != "refresh_token" || r.FormValue("refresh_token") != "r1" {
			t.Errorf("asked for %q", r.Form)
		}
		authtest.Grant(id, "r2")(w, r)
	})
	if got := refresh("r1", nil); string(got.Access) != id || got.Refresh != "r2" {
		t.Errorf("%q", got)
	}
	b.Handle("/token", authtest.Grant(id, ""))
	if got := refresh("r1", nil); got.Refresh != "r1" {
		t.Errorf("%q", got)
	}
	b.Handle("/token", authtest.Fault("invalid_grant"))
	refresh("r1", auth.ErrToken)
	b.Handle("/token", authtest.Fault("invalid_client"))
	refresh("r1", auth.ErrProvider)
	b.Handle("/token", authtest.Grant("", "r2"))
	refresh("r1", auth.ErrToken)
	b.Handle("/token", authtest.Grant(b.Token(b.Claims("eve", b.now())), "r2"))
	refresh("r1", auth.ErrDenied)
	asked := b.Asked("/token")
	refresh("", auth.ErrToken)
	refresh(auth.Token(strings.Repeat("r", 12<<10+1)), auth.ErrToken)
	if b.Asked("/token") != asked {
		t.Error("no token came to the provider")
	}
	b.Handle("/token", func(_ http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm() // a server hears that its client has gone once the body is read
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, _, err := b.login.Refresh(ctx, "r1"); !errors.Is(err, context.Canceled) {
		t.Errorf("a call that was given up: %v", err)
	}
}

// TestSecretInBody is the other way in which a client shows its secret, and that of one
// which has none.
func TestSecretInBody(t *testing.T) {
	t.Parallel()
	for _, secret := range []string{authtest.Secret, ""} {
		b := newBench(t, func(c *auth.Config) { c.Secret = auth.Token(secret) })
		b.Publish("token_endpoint_auth_methods_supported", []string{"client_secret_post", "private_key_jwt"})
		b.Handle("/device", func(w http.ResponseWriter, r *http.Request) {
			if _, _, basic := r.BasicAuth(); basic || r.FormValue("client_id") != authtest.Client || r.FormValue("client_secret") != secret {
				t.Errorf("asked with %q", r.Form)
			}
			authtest.Device("c", 60, 5)(w, r)
		})
		if _, err := b.login.Begin(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// TestAddresses: the address that a user opens has their code in it, and leads to a
// provider.
func TestAddresses(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.Handle("/device", authtest.JSON(200, edit{"device_code": "c", "user_code": "AB CD", "verification_uri": "https://login.example/device", "expires_in": 60}))
	if begun, err := b.login.Begin(t.Context()); err != nil || begun.Address != "https://login.example/device#your-code-is:AB%20CD" {
		t.Errorf("%+v, %v", begun, err)
	}
	for what, e := range map[string]edit{
		"a program":       {"verification_uri_complete": "file:///bin/sh"},
		"over HTTP":       {"verification_uri_complete": "http://login.example"},
		"two lines":       {"verification_uri_complete": "https://login.example/\nhttps://other.example"},
		"an escape":       {"verification_uri_complete": "https://login.example/\x1b[2J"},
		"no code":         {"user_code": ""},
		"a long code":     {"user_code": strings.Repeat("A", 65)},
		"no device code":  {"device_code": ""},
		"a huge one":      {"device_code": strings.Repeat("a", 12<<10+1)},
		"expired at once": {"expires_in": 0},
		"ages ago":        {"expires_in": -1e300},
	} {
		m := edit{"device_code": "c", "user_code": "ABCD", "verification_uri": "https://login.example/device", "expires_in": 60}
		for k, v := range e {
			m[k] = v
		}
		b.Handle("/device", authtest.JSON(200, m))
		_, err := b.login.Begin(t.Context())
		b.want(what, err, auth.ErrProvider)
	}
	b.Handle("/device", authtest.JSON(200, edit{"device_code": "c", "user_code": "A", "verification_uri": "https://login.example", "expires_in": 1e300, "interval": 1e300}))
	if begun, err := b.login.Begin(t.Context()); err != nil || begun.Expires != 30*time.Minute || begun.Interval != time.Minute {
		t.Errorf("%+v, %v", begun, err)
	}
}

// TestCallersWhoGo: one who gives up while the provider is asked takes nobody along.
func TestCallersWhoGo(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	asked := make(chan struct{}, 1)
	b.Handle("/.well-known/openid-configuration", func(_ http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	token := auth.Token(b.Token(b.Claims("ada", b.now())))
	go func() {
		_, err := b.login.Verify(ctx, token)
		gone <- err
	}()
	<-asked
	stayed := make(chan error, 1)
	go func() {
		_, err := b.login.Verify(t.Context(), token)
		stayed <- err
	}()
	b.Handle("/.well-known/openid-configuration", nil)
	cancel()
	b.want("who went", <-gone, context.Canceled)
	b.want("who stayed", <-stayed, nil)
}
