package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// maxPending bounds the logins that have begun. Whoever reaches the node begins them.
const maxPending = 256

// pending is a login that has begun. It is kept under the hash of what its user shows, so
// that no comparison tells how much of a guess was right.
type pending struct {
	code     Token // the provider's device code, which does not leave the node
	expires  time.Time
	interval time.Duration
	next     time.Time // before which the provider is not asked
	asking   bool
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
