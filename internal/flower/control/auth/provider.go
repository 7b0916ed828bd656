package auth

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
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
