package auth

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4/json"
)

// Limits of asking a provider.
const (
	maxAnswer  = 256 << 10 // bytes
	answerTime = 10 * time.Second
	maxAsked   = 8 // connections at once; more wait

	factsAge = 1 * time.Hour    // after which a provider's facts and keys no longer count
	keysAge  = 10 * time.Second // before which a token with an unknown key does not have it asked for new ones
	restTime = 5 * time.Second  // after it could not be asked
)

// facts are what a provider publishes about itself (OpenID Connect Discovery, section 3;
// RFC 8628, section 4). They are not changed.
type facts struct {
	token, device string // addresses
	scopes        []string
	inBody        bool // the client's secret goes into the body, not into the header
	keys          keys
	at            time.Time
}

// provider asks a member's OpenID Connect provider.
type provider struct {
	issuer, client string
	secret         Token // empty: the client has none
	http           *http.Client
	now            func() time.Time

	asking chan struct{} // full while somebody asks for facts

	mu      sync.Mutex // owns all below
	known   *facts
	tried   time.Time
	failure error // of the last try
}

func newProvider(c Config) *provider {
	return &provider{issuer: c.Issuer, client: c.ClientID, secret: c.Secret, now: c.Now, asking: make(chan struct{}, 1), http: &http.Client{
		Timeout:       answerTime,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy: func(*http.Request) (*url.URL, error) { return c.Proxy, nil }, TLSClientConfig: &tls.Config{RootCAs: c.Roots, MinVersion: tls.VersionTLS12},
			MaxConnsPerHost: maxAsked, MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: 64 << 10, ForceAttemptHTTP2: true,
		},
	}}
}

// current returns the provider's facts, of the last hour.
func (p *provider) current(ctx context.Context) (*facts, error) {
	p.mu.Lock()
	f := p.known
	p.mu.Unlock()
	if f != nil && p.now().Sub(f.at) < factsAge {
		return f, nil
	}
	return p.renewed(ctx, f)
}

// renewed returns newer facts than the old ones. Whoever comes while others ask waits and
// gets what they got.
func (p *provider) renewed(ctx context.Context, old *facts) (*facts, error) {
	select {
	case p.asking <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-p.asking }()
	p.mu.Lock()
	known, failure, rested := p.known, p.failure, p.now().Sub(p.tried) >= restTime
	p.mu.Unlock()
	if known != old {
		return known, nil
	}
	if failure != nil && !rested {
		return nil, failure
	}
	f, err := p.discover(ctx)
	if ctx.Err() != nil { // the caller has gone; who waits asks for itself
		return nil, ctx.Err()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tried, p.failure = p.now(), err
	if err != nil {
		return nil, err
	}
	p.known = f
	return f, nil
}

func (p *provider) discover(ctx context.Context) (*facts, error) {
	b, err := p.get(ctx, strings.TrimSuffix(p.issuer, "/")+"/.well-known/openid-configuration")
	if err != nil {
		return nil, err
	}
	f, jwks, err := parseFacts(b, p.issuer)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.issuer, err)
	}
	if b, err = p.get(ctx, jwks); err != nil {
		return nil, err
	}
	if f.keys, err = parseKeys(b); err != nil {
		return nil, fmt.Errorf("%s: %w", p.issuer, err)
	}
	f.at = p.now()
	return f, nil
}

// parseFacts reads a provider's metadata, and the address of its keys.
func parseFacts(b []byte, issuer string) (f *facts, jwks string, err error) {
	var m struct {
		Issuer  string   `json:"issuer"`
		Token   string   `json:"token_endpoint"`
		Device  string   `json:"device_authorization_endpoint"`
		Keys    string   `json:"jwks_uri"`
		Scopes  []string `json:"scopes_supported"`
		Methods []string `json:"token_endpoint_auth_methods_supported"`
	}
	if json.Unmarshal(b, &m) != nil {
		return nil, "", errors.New("its openid-configuration is no JSON object of that kind")
	}
	if m.Issuer != issuer {
		return nil, "", fmt.Errorf("it calls itself %.200q", m.Issuer)
	}
	if m.Device == "" {
		return nil, "", errors.New("it has no device_authorization_endpoint (RFC 8628), by which Flower's command logs in")
	}
	for _, a := range []string{m.Token, m.Device, m.Keys} {
		if err := secure(a); err != nil {
			return nil, "", err
		}
	}
	post := slices.Contains(m.Methods, "client_secret_post") && !slices.Contains(m.Methods, "client_secret_basic")
	return &facts{token: m.Token, device: m.Device, scopes: m.Scopes, inBody: post}, m.Keys, nil
}

// secure says why an address is none to send secrets to, or a user.
func secure(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || len(address) > 2048 || !printable(address) {
		return fmt.Errorf("%.200q is no https address", address)
	}
	return nil
}

func (p *provider) get(ctx context.Context, address string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	code, b, err := p.ask(r)
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("%s: status %d", address, code)
	}
	return b, err
}

// post sends a form as this node's client (RFC 6749, section 2.3.1).
func (p *provider) post(ctx context.Context, f *facts, address string, form url.Values) (code int, body []byte, err error) {
	header := p.secret != "" && !f.inBody
	if !header {
		form.Set("client_id", p.client)
	}
	if p.secret != "" && f.inBody {
		form.Set("client_secret", string(p.secret))
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(form.Encode()))
	if err != nil {
		return 0, nil, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Accept", "application/json")
	if header {
		r.SetBasicAuth(url.QueryEscape(p.client), url.QueryEscape(string(p.secret)))
	}
	return p.ask(r)
}

// ask returns a bounded answer. Its errors have addresses in them, and no secrets: those
// are in headers and bodies.
func (p *provider) ask(r *http.Request) (code int, body []byte, err error) {
	res, err := p.http.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil {
		return 0, nil, fmt.Errorf("%s: %w", r.URL.Redacted(), err)
	}
	if len(b) > maxAnswer {
		return 0, nil, fmt.Errorf("%s: more than %d bytes", r.URL.Redacted(), maxAnswer)
	}
	return res.StatusCode, b, nil
}

// granted is an answer of the token endpoint (RFC 6749, section 5): tokens, or a fault.
type granted struct {
	id, refresh Token
	fault       string // such as "authorization_pending"; empty: none
}

func parseGranted(code int, b []byte) (granted, error) {
	var m struct {
		ID      string `json:"id_token"`
		Refresh string `json:"refresh_token"`
		Fault   string `json:"error"`
	}
	if json.Unmarshal(b, &m) != nil {
		return granted{}, fmt.Errorf("status %d with no answer of the token endpoint", code)
	}
	if code == http.StatusOK && m.Fault == "" {
		return granted{id: Token(m.ID), refresh: Token(m.Refresh)}, nil
	}
	if m.Fault == "" || len(m.Fault) > 64 || strings.Trim(m.Fault, "abcdefghijklmnopqrstuvwxyz_") != "" {
		return granted{}, fmt.Errorf("status %d with no error that RFC 6749 knows", code)
	}
	return granted{fault: m.Fault}, nil
}

// device is an answer of the device authorization endpoint (RFC 8628, section 3.2).
type device struct {
	code              Token
	address           string // for the user, with the code in it
	expires, interval time.Duration
}

// Bounds of a login: what a provider may say, and what is taken where it says nothing.
const (
	maxExpiry       = 30 * time.Minute
	defaultInterval = 5 * time.Second // RFC 8628, section 3.2
	maxInterval     = 1 * time.Minute
	moreInterval    = 5 * time.Second // RFC 8628, section 3.5
)

func parseDevice(b []byte) (device, error) {
	var m struct {
		Code     string  `json:"device_code"`
		User     string  `json:"user_code"`
		Address  string  `json:"verification_uri"`
		Complete string  `json:"verification_uri_complete"`
		Expires  float64 `json:"expires_in"`
		Interval float64 `json:"interval"`
	}
	if json.Unmarshal(b, &m) != nil || m.Code == "" || len(m.Code) > maxToken {
		return device{}, errors.New("no answer of the device authorization endpoint")
	}
	d := device{code: Token(m.Code), address: m.Complete, interval: defaultInterval, expires: maxExpiry}
	if d.address == "" {
		// Flower's command shows the user an address and nothing else. A fragment is seen,
		// and not sent.
		if m.User == "" || len(m.User) > 64 || !printable(m.User) || strings.Contains(m.Address, "#") {
			return device{}, errors.New("no verification_uri_complete, and no user_code")
		}
		d.address = m.Address + "#your-code-is:" + url.PathEscape(m.User)
	}
	if err := secure(d.address); err != nil {
		return device{}, err
	}
	if m.Expires < 1 {
		return device{}, errors.New("the login expires at once")
	}
	if m.Expires < maxExpiry.Seconds() {
		d.expires = time.Duration(m.Expires) * time.Second
	}
	if m.Interval >= 1 {
		d.interval = time.Duration(min(m.Interval, maxInterval.Seconds())) * time.Second
	}
	return d, nil
}
