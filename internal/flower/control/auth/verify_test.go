package auth_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/concordat/concordat/internal/flower/control/auth"
	"github.com/concordat/concordat/internal/flower/control/auth/authtest"
)

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
	text, err := json.Marshal(claims())
	if err != nil {
		t.Fatal(err)
	}
	b.want("two subjects", b.verify(b.Token(json.RawMessage(`{"sub":"ada",`+string(text[1:])))), auth.ErrToken)

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
