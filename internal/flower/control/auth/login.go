package auth

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
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

// Login logs accounts in, and verifies what they show afterwards. It keeps no account and
// no token: a restart of the node ends only the logins that have begun. Make one with
// [New]; its methods are called concurrently.
type Login struct {
	cfg Config
	p   *provider

	mu      sync.Mutex // owns pending, and what is in it
	pending map[[sha256.Size]byte]*pending
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

// Tokens are what an account shows: Access with each call, Refresh for new ones.
type Tokens struct{ Access, Refresh Token }

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
