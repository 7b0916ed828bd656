// Package authtest is an OpenID Connect provider that does what a test wants, the wrong
// thing too.
package authtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Client is the id and the secret that the provider knows.
const (
	Client = "node-a"
	Secret = "s&cret of node-a"
)

// Key is one that the provider signs with.
type Key struct {
	ID     string
	Signer any // *rsa.PrivateKey or *ecdsa.PrivateKey
	Public any
	Alg    jose.SignatureAlgorithm
}

// NewKey returns a key for ES256.
func NewKey(id string) Key {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return Key{ID: id, Signer: k, Public: &k.PublicKey, Alg: jose.ES256}
}

// NewRSA returns a key for RS256.
func NewRSA(id string, bits int) Key {
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		panic(err)
	}
	return Key{ID: id, Signer: k, Public: &k.PublicKey, Alg: jose.RS256}
}

// Provider answers over TLS. Handlers replace what it does at a path.
type Provider struct {
	URL   string
	Roots *x509.CertPool

	mu       sync.Mutex // owns all below
	keys     []Key
	metadata map[string]any
	handlers map[string]http.HandlerFunc
	asked    map[string]int
}

// New starts a provider with a key "1", which ends with the test.
func New(t testing.TB) *Provider {
	p := &Provider{handlers: map[string]http.HandlerFunc{}, asked: map[string]int{}, keys: []Key{NewKey("1")}}
	s := httptest.NewTLSServer(p)
	t.Cleanup(s.Close)
	p.URL, p.Roots = s.URL, x509.NewCertPool()
	p.Roots.AddCert(s.Certificate())
	p.metadata = map[string]any{"issuer": p.URL, "token_endpoint": p.URL + "/token", "device_authorization_endpoint": p.URL + "/device", "jwks_uri": p.URL + "/keys"}
	return p
}

// Publish has the provider name something else about itself.
func (p *Provider) Publish(name string, value any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.metadata[name] = value
}

// Sign has the provider publish these keys alone.
func (p *Provider) Sign(keys ...Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys = keys
}

// Key is the first of the keys that it publishes, with which it signs.
func (p *Provider) Key() Key {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.keys[0]
}

// Handle replaces what it does at a path: "/device", "/token", "/keys".
func (p *Provider) Handle(path string, h http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.handlers[path] = h
}

// Asked is how often a path was asked for.
func (p *Provider) Asked(path string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked[path]
}

func (p *Provider) ServeHTTP(w http.ResponseWriter, r *http.Request) { p.handler(r.URL.Path)(w, r) }

func (p *Provider) handler(path string) http.HandlerFunc {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked[path]++
	if h := p.handlers[path]; h != nil {
		return h
	}
	switch path {
	case "/.well-known/openid-configuration":
		return JSON(http.StatusOK, maps.Clone(p.metadata))
	case "/keys":
		var set jose.JSONWebKeySet
		for _, k := range p.keys {
			set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.Public, KeyID: k.ID, Algorithm: string(k.Alg), Use: "sig"})
		}
		return JSON(http.StatusOK, set)
	}
	return http.NotFound
}

// JSON answers with v.
func JSON(code int, v any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(v)
	}
}

// Fault answers as RFC 6749 has errors.
func Fault(name string) http.HandlerFunc {
	return JSON(http.StatusBadRequest, map[string]string{"error": name, "error_description": "of no interest"})
}

// Claims are those of a token that counts for an hour; edits change them. A nil value
// takes a claim away.
func (p *Provider) Claims(subject string, now time.Time, edits ...map[string]any) map[string]any {
	c := map[string]any{"iss": p.URL, "sub": subject, "aud": Client, "iat": now.Unix(), "exp": now.Add(time.Hour).Unix()}
	for _, e := range edits {
		for k, v := range e {
			if c[k] = v; v == nil {
				delete(c, k)
			}
		}
	}
	return c
}

// Token signs claims with the first key.
func (p *Provider) Token(claims any) string { return p.Key().Token(claims, "JWT") }

// Token signs claims; typ "" leaves that header out.
func (k Key) Token(claims any, typ string) string {
	b, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	o := &jose.SignerOptions{}
	if typ != "" {
		o = o.WithType(jose.ContentType(typ))
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: k.Alg, Key: jose.JSONWebKey{Key: k.Signer, KeyID: k.ID}}, o)
	if err != nil {
		panic(err)
	}
	jws, err := s.Sign(b)
	if err != nil {
		panic(err)
	}
	t, err := jws.CompactSerialize()
	if err != nil {
		panic(err)
	}
	return t
}

// Device answers a login of this code.
func Device(code string, expires, interval int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		address := fmt.Sprintf("https://%s/approve", r.Host)
		JSON(http.StatusOK, map[string]any{"device_code": code, "user_code": "AB-CD", "verification_uri": address,
			"verification_uri_complete": address + "?user_code=AB-CD", "expires_in": expires, "interval": interval})(w, r)
	}
}

// Grant answers with tokens.
func Grant(id, refresh string) http.HandlerFunc {
	return JSON(http.StatusOK, map[string]any{"access_token": "opaque", "token_type": "Bearer", "id_token": id, "refresh_token": refresh})
}
