package policy

import (
	"fmt"
	"slices"

	"github.com/concordat/concordat/internal/cose"
)

// TypeApp is the typ of a signature of an app.
const TypeApp = "application/vnd.concordat.app+cose"

// AppSignature is a signer's word that a bundle is a version of an app. What a policy lets
// in by [SignedApp] has them in the log.
type AppSignature struct {
	Federation Digest `cbor:"1,keyasint"`
	App        string `cbor:"2,keyasint"` // publisher/name of the bundle
	Version    string `cbor:"3,keyasint"` // as the bundle says, for people
	Digest     Digest `cbor:"4,keyasint"` // SHA-256 of the bundle
}

func (a *AppSignature) check() error {
	var c checker
	c.text("app", a.App)
	c.text("version", a.Version)
	if a.Federation.IsZero() || a.Digest.IsZero() {
		c.add("digest", "federation and digest are required")
	}
	return c.err()
}

// appHeader is the protected header of what signers of an app sign.
func appHeader(app string, federation Digest) cose.Header {
	return cose.Header{Type: TypeApp, Issuer: "app:" + app, Subject: federation.String()}
}

// SignApp signs a with a signer's key: a COSE_Sign1 with a as payload and the federation id
// as external data. Whether the key is a signer's is for a policy to say.
func SignApp(s *cose.Signer, a AppSignature) ([]byte, error) {
	if err := a.check(); err != nil {
		return nil, fmt.Errorf("app signature: %w", err)
	}
	raw, err := cose.Sign(s, appHeader(a.App, a.Federation), cose.Marshal(&a), a.Federation[:])
	if err != nil {
		return nil, fmt.Errorf("app signature: %w", err)
	}
	return raw, nil
}

// VerifyAppSignature checks that raw is a signature of an app by one of its signers in p,
// and returns that key's id too.
func (p *Policy) VerifyAppSignature(raw []byte) (*AppSignature, Digest, error) {
	msg, a, err := parseAppSignature(raw)
	if err != nil {
		return nil, Digest{}, err
	}
	federation := p.FederationID()
	if a.Federation != federation {
		return nil, Digest{}, fmt.Errorf("app signature: of federation %s, want %s", a.Federation.Short(), federation.Short())
	}
	for i := range p.SignedApps {
		if p.SignedApps[i].App != a.App {
			continue
		}
		for _, k := range p.SignedApps[i].Signers {
			if k.ID() != msg.KeyID {
				continue
			}
			if err := msg.Verify(k, federation[:]); err != nil {
				return nil, Digest{}, fmt.Errorf("app signature of %s: %w", a.App, err)
			}
			return a, msg.KeyID, nil
		}
	}
	return nil, Digest{}, fmt.Errorf("app signature: key %s is no signer of %.80q in policy version %d", msg.KeyID.Short(), a.App, p.Version)
}

// parseAppSignature reads a signature without verifying it.
func parseAppSignature(raw []byte) (*cose.Message, *AppSignature, error) {
	msg, err := cose.Parse(raw)
	if err != nil {
		return nil, nil, fmt.Errorf("app signature: %w", err)
	}
	a := new(AppSignature)
	if err := cose.Unmarshal(msg.Payload, a); err != nil {
		return nil, nil, fmt.Errorf("app signature: %w", err)
	}
	if err := a.check(); err != nil {
		return nil, nil, fmt.Errorf("app signature: %w", err)
	}
	if want := appHeader(a.App, a.Federation); msg.Header != want {
		return nil, nil, fmt.Errorf("app signature: header is %q by %.80q, want %q by %q", msg.Header.Type, msg.Header.Issuer, want.Type, want.Issuer)
	}
	return msg, a, nil
}

// maxSignatures bounds what a party keeps, of signatures that verify.
const maxSignatures = 1 << 16

// AppSignatures is the signatures of apps that a party has seen in the log. The zero value
// is empty and ready; it is not safe for concurrent use.
type AppSignatures struct {
	// Denials, if set, are asked for each signer's key: what a denied key has signed does
	// not count.
	Denials *Denials

	of    map[Digest][]signature // by bundle
	count int
}

// signature is one that verified. Of one key for one app and bundle there is one.
type signature struct {
	app string
	key Digest // id
}

// Add takes an entry of the log, of which anybody may have written any, and reports whether
// it is a signature by a signer of p, the policy in force. What is beyond its bound does
// not count.
func (s *AppSignatures) Add(p *Policy, raw []byte) bool {
	a, key, err := p.VerifyAppSignature(raw)
	if err != nil {
		return false
	}
	x := signature{a.App, key}
	if s.count == maxSignatures || slices.Contains(s.of[a.Digest], x) {
		return true
	}
	if s.of == nil {
		s.of = make(map[Digest][]signature)
	}
	s.of[a.Digest] = append(s.of[a.Digest], x)
	s.count++
	return true
}

// signedBy returns the ids of the keys whose signatures of a bundle count for an entry of
// a policy. A nil set is empty.
func (s *AppSignatures) signedBy(entry *SignedApp, bundle Digest) (keys []Digest) {
	if s == nil {
		return nil
	}
	for _, x := range s.of[bundle] {
		signs := slices.ContainsFunc(entry.Signers, func(k cose.Key) bool { return k.ID() == x.key })
		if x.app == entry.App && signs && (s.Denials == nil || !s.Denials.Contains(DenyKey, x.key[:])) {
			keys = append(keys, x.key)
		}
	}
	return keys
}

// App returns the app with the digest, or nil: one that p lists, or one that enough of the
// signers of an entry of [Policy.SignedApps] have signed. signed may be nil.
func (p *Policy) App(digest Digest, signed *AppSignatures) *App {
	for i := range p.Apps {
		if p.Apps[i].Digest == digest {
			return &p.Apps[i]
		}
	}
	for i := range p.SignedApps {
		e := &p.SignedApps[i]
		if uint64(len(signed.signedBy(e, digest))) >= e.Threshold {
			return &App{Digest: digest, Name: e.App, Exposure: ExposureAggregate, Configs: e.Configs, Strategies: e.Strategies, MaxRounds: e.MaxRounds}
		}
	}
	return nil
}

// SignersOf returns the ids of the keys by which [Policy.App] finds a bundle that p does
// not list; none for one that it lists.
func (p *Policy) SignersOf(digest Digest, signed *AppSignatures) []Digest {
	if slices.ContainsFunc(p.Apps, func(a App) bool { return a.Digest == digest }) {
		return nil
	}
	for i := range p.SignedApps {
		if keys := signed.signedBy(&p.SignedApps[i], digest); uint64(len(keys)) >= p.SignedApps[i].Threshold {
			return keys
		}
	}
	return nil
}

// Signed returns how many signers of the app have signed the bundle of a, with the one who
// has this key, and how many p wants.
func (p *Policy) Signed(a *AppSignature, key Digest, signed *AppSignatures) (have, want uint64) {
	for i := range p.SignedApps {
		if e := &p.SignedApps[i]; e.App == a.App {
			keys := signed.signedBy(e, a.Digest)
			if have = uint64(len(keys)); !slices.Contains(keys, key) {
				have++
			}
			return have, e.Threshold
		}
	}
	return 0, 0
}
