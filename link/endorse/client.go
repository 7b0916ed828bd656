package endorse

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/concordat/concordat/attestation"
)

// The limits of a Client.
const (
	maxBody     = 2*attestation.MaxEndorsement + 4<<10 // a manifest comes as base64 in JSON
	attempts    = 4
	maxPause    = 2 * time.Minute // a server that asks for more is given up
	firstPause  = 5 * time.Second // where a server does not say how long; doubled each time
	callTimeout = 30 * time.Second
)

// DefaultDistance is the time between two requests to one host.
const DefaultDistance = 200 * time.Millisecond

// ErrStatus is wrapped by the error about an answer that is not 200.
var ErrStatus = errors.New("unexpected answer")

// Config of a [Client]. The zero value works, without a cache.
type Config struct {
	// Cache keeps answers between programs; nil keeps none.
	Cache *Cache
	// Fresh is how long an answer that changes with time is good without asking
	// again; zero asks every time.
	Fresh time.Duration
	// Distance between requests, by host; [DefaultDistance] for others.
	Distance map[string]time.Duration
	// Transport makes the requests; nil goes through the proxies that the
	// environment names (HTTPS_PROXY, NO_PROXY).
	Transport http.RoundTripper
	// Offline answers from the cache alone.
	Offline bool
}

// Client asks vendors' services over HTTP. It is safe for concurrent use.
type Client struct {
	cfg  Config
	http *http.Client

	mu    sync.Mutex
	hosts map[string]*host
}

// host serializes the requests to one host. Whoever holds turn may ask.
type host struct {
	turn chan struct{} // capacity 1
	next time.Time     // not before
}

// NewClient returns a client.
func NewClient(cfg Config) *Client {
	if cfg.Transport == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.Proxy = http.ProxyFromEnvironment
		cfg.Transport = t
	}
	return &Client{
		cfg: cfg,
		http: &http.Client{Transport: cfg.Transport, Timeout: callTimeout, CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if len(via) >= 3 || req.URL.Scheme != via[0].URL.Scheme || req.URL.Host != via[0].URL.Host {
				return fmt.Errorf("redirected to %s", req.URL.Redacted())
			}
			return nil
		}},
		hosts: map[string]*host{},
	}
}

// answer is the body of an answer, and the chain that Intel puts into a header.
type answer struct {
	Body  []byte
	Chain string
}

// request is one document to ask for.
type request struct {
	url       string
	body      []byte // nil: GET
	mediaType string // of the body
	chain     string // header of the answer to keep
	immutable bool   // what is at this address never changes
	check     func(*answer) error
}

// get answers from the cache or the network. What fails check is not kept.
func (c *Client) get(ctx context.Context, r *request) (*answer, error) {
	key := r.url + "\n" + string(r.body)
	if a, at, ok := c.cfg.Cache.get(key); ok && r.check(a) == nil {
		if r.immutable || c.cfg.Offline || time.Since(at) < c.cfg.Fresh {
			return a, nil
		}
	}
	if c.cfg.Offline {
		return nil, fmt.Errorf("%s: not in the cache", r.url)
	}
	a, err := c.ask(ctx, r)
	if err != nil {
		return nil, err
	}
	if err := r.check(a); err != nil {
		return nil, fmt.Errorf("%s: %w", r.url, err)
	}
	if err := c.cfg.Cache.put(key, a, time.Now()); err != nil {
		return nil, err
	}
	return a, nil
}

// ask makes the request, again where the server asks for patience.
func (c *Client) ask(ctx context.Context, r *request) (*answer, error) {
	u, err := url.Parse(r.url)
	if err != nil {
		return nil, err
	}
	h := c.host(u.Host)
	select {
	case h.turn <- struct{}{}:
		defer func() { <-h.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	pause := firstPause
	for n := 1; ; n++ {
		if err := sleep(ctx, time.Until(h.next)); err != nil {
			return nil, fmt.Errorf("%s: %w", r.url, err)
		}
		a, after, err := c.once(ctx, r)
		h.next = time.Now().Add(c.distance(u.Host))
		if err == nil {
			return a, nil
		}
		if after < 0 || n == attempts {
			return nil, fmt.Errorf("%s: %w", r.url, err)
		}
		if after == 0 {
			after, pause = pause, 2*pause
		}
		if after > maxPause {
			return nil, fmt.Errorf("%s: %w; it asks to come back in %s", r.url, err, after)
		}
		h.next = time.Now().Add(max(after, c.distance(u.Host)))
	}
}

func (c *Client) host(name string) *host {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.hosts[name]
	if h == nil {
		h = &host{turn: make(chan struct{}, 1)}
		c.hosts[name] = h
	}
	return h
}

func (c *Client) distance(host string) time.Duration {
	if d, ok := c.cfg.Distance[host]; ok {
		return d
	}
	return DefaultDistance
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// once makes one request. after says when to come back: negative never, zero if
// the server does not say.
func (c *Client) once(ctx context.Context, r *request) (a *answer, after time.Duration, err error) {
	method, body := http.MethodGet, io.Reader(nil)
	if r.body != nil {
		method, body = http.MethodPost, bytes.NewReader(r.body)
	}
	req, err := http.NewRequestWithContext(ctx, method, r.url, body)
	if err != nil {
		return nil, -1, err
	}
	req.Header.Set("User-Agent", "concordat")
	if r.mediaType != "" {
		req.Header.Set("Content-Type", r.mediaType)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, -1, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		after = -1
		if resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusServiceUnavailable {
			after = retryAfter(resp.Header.Get("Retry-After"))
		}
		return nil, after, fmt.Errorf("%w %s", ErrStatus, resp.Status)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	switch {
	case err != nil:
		return nil, -1, err
	case len(b) > maxBody:
		return nil, -1, fmt.Errorf("%w: more than %d bytes", ErrStatus, maxBody)
	}
	a = &answer{Body: b}
	if r.chain != "" {
		// Percent-encoded PEM; a "+" is base64's.
		if a.Chain, err = url.PathUnescape(resp.Header.Get(r.chain)); err != nil {
			return nil, -1, fmt.Errorf("%w: header %s: %w", ErrStatus, r.chain, err)
		}
	}
	return a, 0, nil
}

// retryAfter reads the header in both its forms (RFC 9110 10.2.3); zero where
// there is none.
func retryAfter(s string) time.Duration {
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if t, err := http.ParseTime(s); err == nil {
		return max(time.Until(t), time.Second)
	}
	return 0
}
