package auth

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json" // exact names, and no name twice, unlike the standard library's
)

// Token is a secret that a provider gave. It prints as a word that says so, in every way of
// fmt, encoding/json and log/slog; a conversion to string has it.
type Token string

// String hides the token from %v and %s.
func (Token) String() string { return "(token)" }

// GoString hides it from %#v.
func (Token) GoString() string { return "(token)" }

// MarshalText hides it from encoders and from log/slog.
func (Token) MarshalText() ([]byte, error) { return []byte("(token)"), nil }

// Limits of what a provider and its users send.
const (
	maxToken   = 12 << 10 // bytes; headers of a request may have 16 KiB together
	maxSubject = 255      // OpenID Connect Core, section 2
	maxKeys    = 64
	minRSA     = 2048            // bits
	skew       = 1 * time.Minute // between the provider's clock and this one
)

// algorithms are the asymmetric ones of RFC 7518 and RFC 8037. With "none", or with a
// secret that both sides know, everybody could sign.
var algorithms = []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA}

// errNoKey: no key that is known signed the token.
var errNoKey = errors.New("no key of the provider fits its signature")

// keys are those that a provider signs tokens with.
type keys []jose.JSONWebKey

// parseKeys reads a JWK Set (RFC 7517, section 5). Keys that are not for signatures, or of
// kinds that are not known or too weak, are left out.
func parseKeys(b []byte) (keys, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(b, &set); err != nil {
		return nil, errors.New("its keys are no JWK Set")
	}
	if len(set.Keys) > maxKeys {
		return nil, fmt.Errorf("it has %d keys, limit %d", len(set.Keys), maxKeys)
	}
	var out keys
	for _, raw := range set.Keys {
		var k jose.JSONWebKey
		if json.Unmarshal(raw, &k) == nil && k.Valid() && (k.Use == "" || k.Use == "sig") && verifies(k.Key) {
			out = append(out, k)
		}
	}
	if len(out) == 0 {
		return nil, errors.New("it has no key that could sign tokens")
	}
	return out, nil
}

func verifies(key any) bool {
	switch k := key.(type) {
	case *rsa.PublicKey:
		return k.N.BitLen() >= minRSA
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return true
	}
	return false // private, or a shared secret
}

// signed is a token that parses; nothing in it has been verified.
type signed struct {
	jws *jose.JSONWebSignature
	id  string // of its key; empty: not said
	alg string
}

func parseToken(t Token) (signed, error) {
	if len(t) > maxToken {
		return signed{}, fmt.Errorf("it has %d bytes, limit %d", len(t), maxToken)
	}
	jws, err := jose.ParseSignedCompact(string(t), algorithms)
	if err != nil || len(jws.Signatures) != 1 {
		return signed{}, errors.New("it is no JWT with a signature of a kind that counts")
	}
	h := jws.Signatures[0].Protected
	// Tokens for other uses say so (RFC 9068, section 2.1; OpenID Connect Back-Channel Logout, section 2.4).
	if typ, said := h.ExtraHeaders[jose.HeaderType]; said {
		if s, ok := typ.(string); !ok || !strings.EqualFold(s, "JWT") {
			return signed{}, errors.New("its typ is not JWT")
		}
	}
	return signed{jws, h.KeyID, h.Algorithm}, nil
}

// payload returns what one of the keys signed.
func (k keys) payload(s signed) ([]byte, error) {
	for _, key := range k {
		if s.id != "" && key.KeyID != s.id || key.Algorithm != "" && key.Algorithm != s.alg {
			continue
		}
		if p, err := s.jws.Verify(key.Key); err == nil {
			return p, nil
		}
	}
	return nil, errNoKey
}

// claims are what a provider signed about an account.
type claims struct {
	subject string
	email   string // empty: none that was verified
	all     map[string]json.RawMessage
}

// parseClaims reads the payload of an ID token and makes the checks of OpenID Connect
// Core, section 3.1.3.7.
func parseClaims(payload []byte, issuer, client string, now time.Time) (*claims, error) {
	c := &claims{}
	if err := json.Unmarshal(payload, &c.all); err != nil || c.all == nil {
		return nil, errors.New("its claims are no JSON object")
	}
	if iss := c.string("iss"); iss != issuer {
		return nil, fmt.Errorf("its issuer is %.200q, want %q", iss, issuer)
	}
	audience := c.strings("aud")
	if !slices.Contains(audience, client) {
		return nil, fmt.Errorf("it is for %.200q, want %q", audience, client)
	}
	_, said := c.all["azp"]
	if azp := c.string("azp"); (said || len(audience) > 1) && azp != client {
		return nil, fmt.Errorf("it was given to %.200q, want %q", azp, client)
	}
	if _, event := c.all["events"]; event {
		return nil, errors.New("it tells of an event, and is no ID token")
	}
	expires, err := c.time("exp")
	if err != nil {
		return nil, err
	}
	if !now.Before(expires.Add(skew)) {
		return nil, fmt.Errorf("it expired at %s", expires.UTC().Format(time.RFC3339))
	}
	issued, err := c.time("iat")
	if err != nil {
		return nil, err
	}
	if issued.After(now.Add(skew)) {
		return nil, fmt.Errorf("it was issued at %s, which is to come", issued.UTC().Format(time.RFC3339))
	}
	if _, said := c.all["nbf"]; said {
		if from, err := c.time("nbf"); err != nil {
			return nil, err
		} else if from.After(now.Add(skew)) {
			return nil, fmt.Errorf("it counts from %s on", from.UTC().Format(time.RFC3339))
		}
	}
	if c.subject = c.string("sub"); c.subject == "" || len(c.subject) > maxSubject || !printable(c.subject) {
		return nil, fmt.Errorf("its subject is no text of 1 to %d printable ASCII characters", maxSubject)
	}
	if bytes.Equal(c.all["email_verified"], []byte("true")) {
		c.email = c.string("email")
	}
	return c, nil
}

// string returns a claim that is a string, or "".
func (c *claims) string(name string) string {
	var s string
	if json.Unmarshal(c.all[name], &s) != nil {
		return ""
	}
	return s
}

// strings returns a claim that is a string or a list of strings, or nil.
func (c *claims) strings(name string) []string {
	if s := c.string(name); s != "" {
		return []string{s}
	}
	var list []string
	if json.Unmarshal(c.all[name], &list) != nil {
		return nil
	}
	return list
}

// time returns a NumericDate (RFC 7519, section 2).
func (c *claims) time(name string) (time.Time, error) {
	var s float64
	if json.Unmarshal(c.all[name], &s) != nil || s <= 0 || s > math.MaxUint32*16 {
		return time.Time{}, fmt.Errorf("its %s is no time", name)
	}
	return time.Unix(int64(s), 0), nil
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}
