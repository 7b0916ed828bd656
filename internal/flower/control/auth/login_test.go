package auth_test

import (
	"bytes"
	"context"
	"encoding/base64"
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

// TestVerify shows tokens of every wrong kind, and each is refused for its own reason.
func TestVerify(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	now := b.now()
	at := func(d time.Duration) int64 { return now.Add(d).Unix() }
	claims := func(edits ...edit) map[string]any { return b.Claims("ada", now, edits...) }
	other := authtest.NewKey("1")
	b.want("a good token", b.verify(b.Token(claims())), nil)
	for what, e := range map[string]edit{
		"several audiences": {"aud": []string{"x", authtest.Client}, "azp": authtest.Client},
		"skew":              {"exp": at(-59 * time.Second)},
		"skew of iat":       {"iat": at(59 * time.Second)},
		"nbf":               {"nbf": at(-time.Hour)},
		"a fraction":        {"exp": float64(at(time.Hour)) + 0.5},
	} {
		b.want(what, b.verify(b.Token(claims(e))), nil)
	}
	for what, x := range map[string]struct {
		e   edit
		why string
	}{
		"issuer":               {edit{"iss": "https://other.example"}, "issuer is"},
		"issuer with a slash":  {edit{"iss": b.URL + "/"}, "issuer is"},
		"no issuer":            {edit{"iss": nil}, "issuer is"},
		"issuers":              {edit{"iss": []string{b.URL}}, "issuer is"},
		"audience":             {edit{"aud": "node-b"}, "it is for"},
		"audience's prefix":    {edit{"aud": "node-"}, "it is for"},
		"no audience":          {edit{"aud": nil}, "it is for"},
		"several, no azp":      {edit{"aud": []string{"x", authtest.Client}}, "given to"},
		"azp":                  {edit{"azp": "node-b"}, "given to"},
		"azp of no text":       {edit{"azp": 5}, "given to"},
		"expired":              {edit{"exp": at(-time.Minute)}, "expired at"},
		"no expiry":            {edit{"exp": nil}, "exp is no time"},
		"expiry of text":       {edit{"exp": "9999999999"}, "exp is no time"},
		"expiry without end":   {edit{"exp": 1e300}, "exp is no time"},
		"negative":             {edit{"exp": -5}, "exp is no time"},
		"no iat":               {edit{"iat": nil}, "iat is no time"},
		"to come":              {edit{"iat": at(2 * time.Minute)}, "to come"},
		"not before":           {edit{"nbf": at(2 * time.Minute)}, "counts from"},
		"nbf of text":          {edit{"nbf": "soon"}, "nbf is no time"},
		"no subject":           {edit{"sub": nil}, "subject"},
		"long subject":         {edit{"sub": strings.Repeat("a", 256)}, "subject"},
		"subject of two lines": {edit{"sub": "ada\nbob"}, "subject"},
		"subject in Cyrillic":  {edit{"sub": "аda"}, "subject"},
		"a logout token":       {edit{"events": edit{}}, "event"},
		"other letters":        {edit{"sub": nil, "SUB": "ada"}, "subject"},
	} {
		b.want(what, b.verify(b.Token(claims(x.e))), auth.ErrToken)
		if log := b.log.String(); !strings.Contains(log[strings.LastIndex(strings.TrimSpace(log), "\n")+1:], x.why) {
			t.Errorf("%s: the log's last line has no %q:\n%s", what, x.why, log)
		}
	}
	b.want("another account", b.verify(b.Token(b.Claims("bob", now))), auth.ErrDenied)
	b.want("claims that are a list", b.verify(b.Token([]int{1})), auth.ErrToken)
	b.want("no claims", b.verify(b.Token(nil)), auth.ErrToken)

	good := b.Token(claims())
	parts := strings.Split(good, ".")
	enc := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	twice := enc(`{"sub":"eve",` + strings.TrimPrefix(dec(t, parts[1]), "{"))
	for what, token := range map[string]string{
		"nothing":                   "",
		"no JWT":                    "token",
		"alg none":                  enc(`{"alg":"none","typ":"JWT"}`) + "." + parts[1] + ".",
		"alg none, signed":          enc(`{"alg":"none","kid":"1"}`) + "." + parts[1] + "." + parts[2],
		"another algorithm":         enc(`{"alg":"ES384","kid":"1"}`) + "." + parts[1] + "." + parts[2],
		"another key of that name":  other.Token(claims(), "JWT"),
		"a key in the token":        selfSigned(t, claims()),
		"an access token":           b.Key().Token(claims(), "at+jwt"),
		"a logout token":            b.Key().Token(claims(), "logout+jwt"),
		"changed":                   parts[0] + "." + enc(strings.Replace(dec(t, parts[1]), "ada", "eve", 1)) + "." + parts[2],
		"no signature":              parts[0] + "." + parts[1] + ".",
		"cut off":                   good[:len(good)-2],
		"a claim twice":             parts[0] + "." + twice + "." + parts[2],
		"more at its end":           good + ".x",
		"huge":                      b.Token(claims(edit{"more": strings.Repeat("a", 9<<10)})),
		"JSON":                      `{"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` + parts[2] + `"}`,
		"a secret that all know":    hmacSigned(t, b, claims()),
		"signed with crit":          enc(`{"alg":"ES256","kid":"1","crit":["x"],"x":1}`) + "." + parts[1] + "." + parts[2],
		"spaces around":             " " + good,
		"an encrypted one":          enc(`{"alg":"dir","enc":"A256GCM"}`) + "...." + parts[2],
		"two in one, with a comma":  good + "," + good,
		"the same with its padding": good + "==",
	} {
		b.want(what, b.verify(token), auth.ErrToken)
	}
	b.want("a good token, after all that", b.verify(good), nil)
	if strings.Contains(b.log.String(), parts[2]) {
		t.Error("a token is in the log")
	}
}

// TestKeys: a provider changes its keys.
func TestKeys(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	first := b.Token(b.Claims("ada", b.now()))
	b.want("the first key", b.verify(first), nil)
	second, weak := authtest.NewRSA("2", 2048), authtest.NewRSA("3", 1024)
	b.Sign(second, weak)
	token := b.Token(b.Claims("ada", b.now()))
	b.want("a new key, at once", b.verify(token), auth.ErrToken)
	asked := b.Asked("/keys")
	for range 20 {
		b.want("garbage", b.verify(authtest.NewKey("9").Token(b.Claims("ada", b.now()), "JWT")), auth.ErrToken)
	}
	if b.Asked("/keys") != asked {
		t.Error("tokens with unknown keys have the provider asked each time")
	}
	b.pass(11 * time.Second)
	b.want("a new key", b.verify(token), nil)
	b.want("the key that was taken back", b.verify(first), auth.ErrToken)
	b.want("a weak key", b.verify(weak.Token(b.Claims("ada", b.now()), "JWT")), auth.ErrToken)

	// Keys are not for ever, also where nobody shows a new one.
	b.Sign(authtest.NewKey("4"))
	b.pass(59 * time.Minute)
	b.want("within an hour", b.verify(second.Token(b.Claims("ada", b.now()), "JWT")), nil)
	b.pass(2 * time.Minute)
	b.want("after an hour", b.verify(second.Token(b.Claims("ada", b.now()), "JWT")), auth.ErrToken)

	// A provider that is away lets nobody in with keys of an hour ago, and is not asked by
	// every call.
	b.pass(2 * time.Hour)
	b.Handle("/keys", http.NotFound)
	asked = b.Asked("/keys")
	for range 20 {
		b.want("away", b.verify(b.Token(b.Claims("ada", b.now()))), auth.ErrProvider)
	}
	if n := b.Asked("/keys") - asked; n != 1 {
		t.Errorf("asked %d times", n)
	}
	b.Handle("/keys", nil)
	b.pass(6 * time.Second)
	b.want("back", b.verify(b.Token(b.Claims("ada", b.now()))), nil)
}

// TestHostileProvider: what a provider says about itself is bounded and checked.
func TestHostileProvider(t *testing.T) {
	t.Parallel()
	huge := func(w http.ResponseWriter, _ *http.Request) {
		for range 1024 {
			if _, err := w.Write(bytes.Repeat([]byte(" "), 1<<10)); err != nil {
				return
			}
		}
	}
	const metadata = "/.well-known/openid-configuration"
	for what, do := range map[string]func(*bench){
		"another issuer":  func(b *bench) { b.Publish("issuer", "https://other.example") },
		"no device flow":  func(b *bench) { b.Publish("device_authorization_endpoint", "") },
		"keys over HTTP":  func(b *bench) { b.Publish("jwks_uri", "http://127.0.0.1/keys") },
		"token over HTTP": func(b *bench) { b.Publish("token_endpoint", "http://127.0.0.1/token") },
		"token elsewhere": func(b *bench) { b.Publish("token_endpoint", "file:///etc/passwd") },
		"with a password": func(b *bench) { b.Publish("token_endpoint", "https://a:b@127.0.0.1/token") },
		"numbers":         func(b *bench) { b.Publish("token_endpoint", 5) },
		"huge metadata":   func(b *bench) { b.Handle(metadata, huge) },
		"huge keys":       func(b *bench) { b.Handle("/keys", huge) },
		"no JSON": func(b *bench) {
			b.Handle(metadata, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") })
		},
		"an error": func(b *bench) { b.Handle(metadata, authtest.JSON(500, edit{"issuer": b.URL})) },
		"elsewhere": func(b *bench) {
			b.Handle("/there", authtest.JSON(200, edit{"issuer": b.URL, "token_endpoint": b.URL + "/token", "device_authorization_endpoint": b.URL + "/device", "jwks_uri": b.URL + "/keys"}))
			b.Handle(metadata, http.RedirectHandler(b.URL+"/there", http.StatusFound).ServeHTTP)
		},
		"no keys":         func(b *bench) { b.Handle("/keys", authtest.JSON(200, edit{"keys": []any{}})) },
		"keys of no kind": func(b *bench) { b.Handle("/keys", authtest.JSON(200, edit{"keys": []any{5, edit{"kty": "x"}}})) },
		"a shared secret": func(b *bench) {
			b.Handle("/keys", authtest.JSON(200, edit{"keys": []any{edit{"kty": "oct", "k": "AAAA"}}}))
		},
		"too many keys": func(b *bench) { b.Handle("/keys", authtest.JSON(200, edit{"keys": make([]edit, 65)})) },
		"encryption alone": func(b *bench) {
			b.Handle("/keys", authtest.JSON(200, edit{"keys": []any{edit{"kty": "EC", "crv": "P-256", "use": "enc"}}}))
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			do(b)
			b.want("verify", b.verify(b.Token(b.Claims("ada", b.now()))), auth.ErrProvider)
			_, err := b.login.Begin(t.Context())
			b.want("begin", err, auth.ErrProvider)
		})
	}
	t.Run("another certificate", func(t *testing.T) {
		t.Parallel()
		b := newBench(t, func(c *auth.Config) { c.Roots = nil })
		b.want("verify", b.verify(b.Token(b.Claims("ada", b.now()))), auth.ErrProvider)
	})
}

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

func TestAllow(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(c *auth.Config) {
		c.Allow = auth.Allow{Subjects: []string{"ada"}, Emails: []string{"bob@hospital.example"}, Claims: map[string][]string{"groups": {"researchers"}, "hd": {"hospital.example"}}}
	})
	for what, x := range map[string]struct {
		subject string
		e       edit
		in      bool
	}{
		"subject":             {"ada", nil, true},
		"another":             {"Ada", nil, false},
		"email":               {"b", edit{"email": "bob@hospital.example", "email_verified": true}, true},
		"email not verified":  {"b", edit{"email": "bob@hospital.example", "email_verified": false}, false},
		"verified as text":    {"b", edit{"email": "bob@hospital.example", "email_verified": "true"}, false},
		"nothing about it":    {"b", edit{"email": "bob@hospital.example"}, false},
		"another email":       {"b", edit{"email": "bob@hospital.example.org", "email_verified": true}, false},
		"group":               {"c", edit{"groups": []string{"x", "researchers"}}, true},
		"one group":           {"c", edit{"groups": "researchers"}, true},
		"another group":       {"c", edit{"groups": []string{"researchers-2"}}, false},
		"groups of all kinds": {"c", edit{"groups": []any{"researchers", 5}}, false},
		"group by other name": {"c", edit{"Groups": []string{"researchers"}}, false},
		"domain":              {"d", edit{"hd": "hospital.example"}, true},
		"value in the wrong":  {"d", edit{"groups": "hospital.example"}, false},
	} {
		err := b.verify(b.Token(b.Claims(x.subject, b.now(), x.e)))
		if x.in && err != nil || !x.in && !errors.Is(err, auth.ErrDenied) {
			t.Errorf("%s: %v", what, err)
		}
	}
	good := auth.Config{Issuer: b.URL, ClientID: "x", Allow: auth.Allow{Subjects: []string{"ada"}}}
	for what, change := range map[string]func(*auth.Config){
		"nobody":            func(c *auth.Config) { c.Allow = auth.Allow{} },
		"an empty subject":  func(c *auth.Config) { c.Allow.Subjects = []string{""} },
		"email as claim":    func(c *auth.Config) { c.Allow.Claims = map[string][]string{"email": {"x"}} },
		"audience as claim": func(c *auth.Config) { c.Allow.Claims = map[string][]string{"aud": {"x"}} },
		"claim of nothing":  func(c *auth.Config) { c.Allow.Claims = map[string][]string{"groups": nil} },
		"issuer over HTTP":  func(c *auth.Config) { c.Issuer = "http://login.example" },
		"no issuer":         func(c *auth.Config) { c.Issuer = "" },
		"a query":           func(c *auth.Config) { c.Issuer += "/?x=y" },
		"no client":         func(c *auth.Config) { c.ClientID = "" },
		"scopes in one":     func(c *auth.Config) { c.Scopes = []string{"a b"} },
	} {
		c := good
		c.Allow.Subjects = append([]string(nil), good.Allow.Subjects...)
		change(&c)
		if _, err := auth.New(c); err == nil {
			t.Errorf("%s is taken", what)
		}
	}
	if a := (auth.Account{}); a == auth.Local() || a.String() != "nobody" {
		t.Error("nobody is somebody")
	}
}

func dec(t *testing.T, s string) string {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
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
