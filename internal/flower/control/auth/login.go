package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// Errors that callers decide on. What wraps them is for the user who called.
var (
	ErrToken    = errors.New("no valid token")                   // log in again
	ErrDenied   = errors.New("not let in")                       // verified, and not allowed
	ErrPending  = errors.New("the user has not approved it yet") // ask again after the interval
	ErrEnded    = errors.New("this login has ended")             // expired, refused, used up or never begun
	ErrBusy     = errors.New("too many logins have begun")
	ErrProvider = errors.New("the login provider does not answer as it should; the node's log says more")
)

// Config is what a login is made of.
type Config struct {
	Issuer   string // of the provider, as it calls itself: "https://login.example"
	ClientID string // under which the provider knows this node, and no other program
	Secret   Token  // the client's; empty: it has none
	Scopes   []string
	Allow    Allow
	Roots    *x509.CertPool // that sign the provider's certificate; nil: the system's
	Proxy    *url.URL       // that is asked to CONNECT; nil: none
	Now      func() time.Time
	Log      *slog.Logger // who logged in; why tokens are refused, at debug level
}

// maxPending bounds the logins that have begun. Whoever reaches the node begins them.
const maxPending = 256

// Login logs accounts in, and verifies what they show afterwards. It keeps no account and
// no token: a restart of the node ends only the logins that have begun. Make one with
// [New]; its methods are called concurrently.
type Login struct {
	cfg Config
	p   *provider

	mu      sync.Mutex // owns pending, and what is in it
	pending map[[sha256.Size]byte]*pending
}

// pending is a login that has begun. It is kept under the hash of what its user shows, so
// that no comparison tells how much of a guess was right.
type pending struct {
	code     Token // the provider's device code, which does not leave the node
	expires  time.Time
	interval time.Duration
	next     time.Time // before which the provider is not asked
	asking   bool
}

// New returns a login. It does not ask the provider: that may come up later than the node.
func New(c Config) (*Login, error) {
	if err := secure(c.Issuer); err != nil {
		return nil, fmt.Errorf("issuer: %w", err)
	}
	if u, _ := url.Parse(c.Issuer); u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("issuer: %q has a query or a fragment", c.Issuer)
	}
	if c.ClientID == "" {
		return nil, errors.New("client_id: none")
	}
	for _, s := range c.Scopes {
		if s == "" || !printable(s) || strings.ContainsAny(s, " \"\\") {
			return nil, fmt.Errorf("scopes: %q is none", s)
		}
	}
	if err := c.Allow.check(); err != nil {
		return nil, err
	}
	return &Login{cfg: c, p: newProvider(c), pending: map[[sha256.Size]byte]*pending{}}, nil
}

// Begun is a login that has begun.
type Begun struct {
	Handle   Token  // to be shown to [Login.Poll]
	Address  string // where the user approves it in a browser
	Expires  time.Duration
	Interval time.Duration // between polls
}

// Begin asks the provider for a new login.
func (l *Login) Begin(ctx context.Context) (Begun, error) {
	if !l.room() {
		return Begun{}, ErrBusy
	}
	f, err := l.p.current(ctx)
	if err != nil {
		return Begun{}, l.fault("its metadata", err)
	}
	code, body, err := l.p.post(ctx, f, f.device, url.Values{"scope": {l.scope(f)}})
	if err != nil {
		return Begun{}, l.fault("a login", err)
	}
	if code != 200 {
		g, err := parseGranted(code, body)
		if err == nil {
			err = errors.New(g.fault)
		}
		return Begun{}, l.fault("a login", err)
	}
	d, err := parseDevice(body)
	if err != nil {
		return Begun{}, l.fault("a login", err)
	}
	handle, now := Token(rand.Text()+rand.Text()), l.cfg.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.pending) >= maxPending { // others began meanwhile
		return Begun{}, ErrBusy
	}
	l.pending[sha256.Sum256([]byte(handle))] = &pending{code: d.code, expires: now.Add(d.expires), interval: d.interval, next: now.Add(d.interval)}
	return Begun{Handle: handle, Address: d.address, Expires: d.expires, Interval: d.interval}, nil
}

// room forgets logins that have expired, and reports whether there is place for another.
func (l *Login) room() bool {
	now := l.cfg.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	for k, p := range l.pending {
		if !now.Before(p.expires) {
			delete(l.pending, k)
		}
	}
	return len(l.pending) < maxPending
}

// scope is what a login asks for: an ID token, its renewal, and what Allow looks at.
func (l *Login) scope(f *facts) string {
	scopes := []string{"openid"}
	add := func(s string) {
		if !slices.Contains(scopes, s) {
			scopes = append(scopes, s)
		}
	}
	// A provider that says which scopes it knows, and does not name this one, renews
	// without it.
	if len(f.scopes) == 0 || slices.Contains(f.scopes, "offline_access") {
		add("offline_access")
	}
	if len(l.cfg.Allow.Emails) > 0 {
		add("email")
	}
	for _, s := range l.cfg.Scopes {
		add(s)
	}
	return strings.Join(scopes, " ")
}

// Tokens are what an account shows: Access with each call, Refresh for new ones.
type Tokens struct{ Access, Refresh Token }

// Poll asks whether the user has approved a login: [ErrPending] until then, [ErrEnded] when
// that will not be any more. A login gives tokens once. The provider is asked no more often
// than it wishes, however often Poll is called.
func (l *Login) Poll(ctx context.Context, handle Token) (Tokens, error) {
	key := sha256.Sum256([]byte(handle))
	code, err := l.take(key)
	if err != nil {
		return Tokens{}, err
	}
	g, err := l.poll(ctx, code)
	if err := l.settle(key, g, err); err != nil {
		return Tokens{}, err
	}
	if g.refresh == "" {
		return Tokens{}, l.fault("a login", errors.New("it gave no refresh token, without which Flower's command does not log in: allow the client offline_access and the grant refresh_token"))
	}
	a, err := l.verify(ctx, g.id)
	if errors.Is(err, ErrToken) {
		return Tokens{}, l.fault("a login", err)
	} else if err != nil {
		return Tokens{}, err
	}
	l.cfg.Log.Info("logged in to use the flwr command", "account", a.String())
	return Tokens{Access: g.id, Refresh: g.refresh}, nil
}

// take returns the device code of a login, if it is time to ask the provider about it.
func (l *Login) take(key [sha256.Size]byte) (Token, error) {
	now := l.cfg.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.pending[key]
	if p == nil {
		return "", ErrEnded
	}
	if !now.Before(p.expires) {
		delete(l.pending, key)
		return "", fmt.Errorf("%w: it was not approved in time", ErrEnded)
	}
	if p.asking || now.Before(p.next) {
		return "", ErrPending
	}
	p.asking, p.next = true, now.Add(p.interval)
	return p.code, nil
}

func (l *Login) poll(ctx context.Context, code Token) (granted, error) {
	f, err := l.p.current(ctx)
	if err != nil {
		return granted{}, err
	}
	status, body, err := l.p.post(ctx, f, f.token, url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "device_code": {string(code)}})
	if err != nil {
		return granted{}, err
	}
	return parseGranted(status, body)
}

// settle does with a login what the provider said of it. It returns nil when that gave
// tokens.
func (l *Login) settle(key [sha256.Size]byte, g granted, err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.pending[key]
	if p == nil { // it expired meanwhile
		return ErrEnded
	}
	p.asking = false
	slower := func() {
		p.interval = min(p.interval+moreInterval, maxInterval)
		p.next = l.cfg.Now().Add(p.interval)
	}
	switch {
	case err != nil: // RFC 8628, section 3.5: ask less often
		slower()
		_ = l.fault("a login", err) // the command asks again
		return ErrPending
	case g.fault == "authorization_pending":
		return ErrPending
	case g.fault == "slow_down":
		slower()
		return ErrPending
	}
	delete(l.pending, key)
	switch g.fault {
	case "":
		return nil
	case "access_denied":
		return fmt.Errorf("%w: it was refused at the login provider", ErrEnded)
	case "expired_token":
		return fmt.Errorf("%w: it was not approved in time", ErrEnded)
	}
	return l.fault("a login", errors.New(g.fault))
}

// Refresh has the provider renew an account's tokens. The refresh token may stay the same.
func (l *Login) Refresh(ctx context.Context, refresh Token) (Tokens, Account, error) {
	if refresh == "" || len(refresh) > maxToken {
		return Tokens{}, Account{}, ErrToken
	}
	f, err := l.p.current(ctx)
	if err != nil {
		return Tokens{}, Account{}, l.fault("its metadata", err)
	}
	code, body, err := l.p.post(ctx, f, f.token, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {string(refresh)}})
	if err != nil {
		return Tokens{}, Account{}, l.fault("new tokens", err)
	}
	g, err := parseGranted(code, body)
	if err != nil {
		return Tokens{}, Account{}, l.fault("new tokens", err)
	}
	switch g.fault {
	case "":
	case "invalid_grant":
		l.cfg.Log.Debug("the login provider does not take a refresh token any more", "issuer", l.cfg.Issuer)
		return Tokens{}, Account{}, ErrToken
	default:
		return Tokens{}, Account{}, l.fault("new tokens", errors.New(g.fault))
	}
	a, err := l.verify(ctx, g.id)
	if errors.Is(err, ErrToken) {
		_ = l.fault("new tokens", err)
		return Tokens{}, Account{}, ErrToken
	} else if err != nil {
		return Tokens{}, Account{}, err
	}
	if g.refresh != "" {
		refresh = g.refresh
	}
	return Tokens{Access: g.id, Refresh: refresh}, a, nil
}

// Verify returns the account that a token is of: [ErrToken] if it is none that counts now,
// [ErrDenied] if its account is not let in. The reason for [ErrToken] is in the log alone:
// who shows a forged token learns nothing.
func (l *Login) Verify(ctx context.Context, t Token) (Account, error) {
	a, err := l.verify(ctx, t)
	if errors.Is(err, ErrToken) {
		l.cfg.Log.Debug("a token for the flwr command is refused", "why", err.Error())
		err = ErrToken
	}
	return a, err
}

// verify is [Login.Verify] with the reason.
func (l *Login) verify(ctx context.Context, t Token) (Account, error) {
	if t == "" {
		return Account{}, fmt.Errorf("%w: there is none", ErrToken)
	}
	s, err := parseToken(t)
	if err != nil {
		return Account{}, fmt.Errorf("%w: %w", ErrToken, err)
	}
	f, err := l.p.current(ctx)
	if err != nil {
		return Account{}, l.fault("its keys", err)
	}
	payload, err := f.keys.payload(s)
	if err != nil && l.cfg.Now().Sub(f.at) >= keysAge { // it may have new ones
		if f, err = l.p.renewed(ctx, f); err != nil {
			return Account{}, l.fault("its keys", err)
		}
		payload, err = f.keys.payload(s)
	}
	if err != nil {
		return Account{}, fmt.Errorf("%w: %w", ErrToken, err)
	}
	c, err := parseClaims(payload, l.cfg.Issuer, l.cfg.ClientID, l.cfg.Now())
	if err != nil {
		return Account{}, fmt.Errorf("%w: %w", ErrToken, err)
	}
	a := Account{issuer: l.cfg.Issuer, subject: c.subject}
	if !l.cfg.Allow.admits(c) {
		l.cfg.Log.Warn("an account of the login provider is not among those that may use the flwr command here", "account", a.String())
		return Account{}, fmt.Errorf("%w: the owner of this node has not allowed %s", ErrDenied, a)
	}
	return a, nil
}

// fault logs what a provider did not do. The user is told that it did not.
func (l *Login) fault(what string, err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	l.cfg.Log.Warn("the login provider does not give what it should", "issuer", l.cfg.Issuer, "asked", what, "err", err.Error())
	return ErrProvider
}
