package cose

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"

	gocose "github.com/veraison/go-cose"
)

// Alg is a COSE algorithm identifier (RFC 9053 2).
type Alg int64

// The two algorithms of the profile. Enclaves sign ES256, everyone else EdDSA.
const (
	ES256 Alg = -7
	EdDSA Alg = -8
)

// String names the algorithm as the IANA registry does.
func (a Alg) String() string {
	switch a {
	case ES256:
		return "ES256"
	case EdDSA:
		return "EdDSA"
	}
	return fmt.Sprintf("alg %d", int64(a))
}

// ErrSignature is wrapped by every signature that does not verify.
var ErrSignature = errors.New("cose: signature does not verify")

// Key is a public key of one of the two algorithms. The zero value verifies
// nothing. Keys are comparable and safe for concurrent use.
type Key struct{ enc string } // the COSE_Key bytes: canonical, so == is equality of keys

// Both key forms hold exactly the fields of their RFC 9679 thumbprint.
type okpKey struct {
	Kty int64  `cbor:"1,keyasint"`
	Crv int64  `cbor:"-1,keyasint"`
	X   []byte `cbor:"-2,keyasint"`
}

type ec2Key struct {
	Kty int64  `cbor:"1,keyasint"`
	Crv int64  `cbor:"-1,keyasint"`
	X   []byte `cbor:"-2,keyasint"`
	Y   []byte `cbor:"-3,keyasint"`
}

// NewKey returns the key of an ed25519.PublicKey or a P-256 *ecdsa.PublicKey.
func NewKey(pub crypto.PublicKey) (Key, error) {
	switch p := pub.(type) {
	case ed25519.PublicKey:
		if len(p) != ed25519.PublicKeySize {
			return Key{}, errors.New("cose: bad Ed25519 key")
		}
		return Key{string(Marshal(okpKey{1, 6, p}))}, nil // kty OKP, crv Ed25519 (RFC 9053 7)
	case *ecdsa.PublicKey:
		if p.Curve != elliptic.P256() {
			return Key{}, fmt.Errorf("cose: ECDSA key on %s, want P-256", p.Curve.Params().Name)
		}
		b, err := p.Bytes()
		if err != nil {
			return Key{}, fmt.Errorf("cose: %w", err)
		}
		return Key{string(Marshal(ec2Key{2, 1, b[1:33], b[33:65]}))}, nil // kty EC2, crv P-256
	}
	return Key{}, fmt.Errorf("cose: %T is not a key of this profile", pub)
}

// ParseKey decodes a COSE_Key (RFC 9052 7) that holds exactly kty, crv and the
// coordinates, and checks that the point is on its curve.
func ParseKey(b []byte) (Key, error) {
	var o okpKey
	if err := Unmarshal(b, &o); err == nil {
		if o.Kty != 1 || o.Crv != 6 {
			return Key{}, fmt.Errorf("cose: key type %d on curve %d is not Ed25519", o.Kty, o.Crv)
		}
		return NewKey(ed25519.PublicKey(o.X))
	}
	var e ec2Key
	if err := Unmarshal(b, &e); err != nil {
		return Key{}, fmt.Errorf("cose: key: %w", err)
	}
	if e.Kty != 2 || e.Crv != 1 || len(e.X) != 32 || len(e.Y) != 32 {
		return Key{}, fmt.Errorf("cose: key type %d on curve %d is not P-256", e.Kty, e.Crv)
	}
	p, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(append([]byte{4}, e.X...), e.Y...))
	if err != nil {
		return Key{}, fmt.Errorf("cose: key: %w", err)
	}
	return NewKey(p)
}

// Encode returns the COSE_Key bytes.
func (k Key) Encode() []byte { return []byte(k.enc) }

// ID returns the RFC 9679 thumbprint: SHA-256 of [Key.Encode].
func (k Key) ID() Digest { return Sum([]byte(k.enc)) }

// IsZero reports whether k is no key.
func (k Key) IsZero() bool { return k.enc == "" }

// Alg returns the algorithm that k verifies.
func (k Key) Alg() Alg {
	if _, ok := k.Public().(*ecdsa.PublicKey); ok {
		return ES256
	}
	return EdDSA
}

// MarshalCBOR embeds the COSE_Key as a byte string.
func (k Key) MarshalCBOR() ([]byte, error) { return Marshal([]byte(k.enc)), nil }

// UnmarshalCBOR decodes what [Key.MarshalCBOR] wrote.
func (k *Key) UnmarshalCBOR(b []byte) error {
	var enc []byte
	if err := Unmarshal(b, &enc); err != nil {
		return err
	}
	p, err := ParseKey(enc)
	if err != nil {
		return err
	}
	*k = p
	return nil
}

// Public returns an ed25519.PublicKey or *ecdsa.PublicKey, or nil for the zero
// Key.
func (k Key) Public() crypto.PublicKey {
	var o okpKey
	if Unmarshal([]byte(k.enc), &o) == nil {
		return ed25519.PublicKey(o.X)
	}
	var e ec2Key
	if Unmarshal([]byte(k.enc), &e) != nil {
		return nil
	}
	p, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(append([]byte{4}, e.X...), e.Y...))
	if err != nil {
		return nil
	}
	return p
}

// VerifyRaw checks a signature over msg that is not a COSE message, in COSE's
// form (64 bytes; ES256 with low S). msg must start with a domain string of its
// caller: only the join (protocol part 2) signs so. The error wraps
// [ErrSignature].
func (k Key) VerifyRaw(msg, sig []byte) error {
	switch p := k.Public().(type) {
	case ed25519.PublicKey:
		if ed25519.Verify(p, msg, sig) {
			return nil
		}
	case *ecdsa.PublicKey:
		if len(sig) != 64 {
			break
		}
		r, s := new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])
		if s.Cmp(halfOrder) > 0 {
			return fmt.Errorf("%w: S is not low", ErrSignature)
		}
		h := sha256.Sum256(msg)
		if ecdsa.Verify(p, h[:], r, s) {
			return nil
		}
	}
	return ErrSignature
}

var halfOrder = new(big.Int).Rsh(elliptic.P256().Params().N, 1)

// Signer is a private key of the profile. It never prints its key: String and
// the slog value show the key's ID.
type Signer struct {
	priv crypto.Signer
	pub  Key
}

// NewSigner wraps an ed25519.PrivateKey or a P-256 *ecdsa.PrivateKey.
func NewSigner(priv crypto.Signer) (*Signer, error) {
	pub, err := NewKey(priv.Public())
	if err != nil {
		return nil, err
	}
	return &Signer{priv, pub}, nil
}

// GenerateSigner makes a new key of the algorithm.
func GenerateSigner(a Alg) (*Signer, error) {
	switch a {
	case EdDSA:
		_, priv, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		return NewSigner(priv)
	case ES256:
		priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		return NewSigner(priv)
	}
	return nil, fmt.Errorf("cose: no keys of %v", a)
}

// Public returns the public key.
func (s *Signer) Public() Key { return s.pub }

// String shows the key's ID only.
func (s *Signer) String() string { return "signer " + s.pub.ID().Short() }

// SignRaw signs msg outside a COSE message; see [Key.VerifyRaw].
func (s *Signer) SignRaw(msg []byte) ([]byte, error) { return s.Sign(rand.Reader, msg) }

// Algorithm implements go-cose's Signer.
func (s *Signer) Algorithm() gocose.Algorithm { return gocose.Algorithm(s.pub.Alg()) }

// Sign implements go-cose's Signer: 64 bytes, ES256 with low S.
func (s *Signer) Sign(random io.Reader, content []byte) ([]byte, error) {
	switch p := s.priv.(type) {
	case ed25519.PrivateKey:
		return ed25519.Sign(p, content), nil
	case *ecdsa.PrivateKey:
		h := sha256.Sum256(content)
		r, v, err := ecdsa.Sign(random, p, h[:])
		if err != nil {
			return nil, fmt.Errorf("cose: sign: %w", err)
		}
		if v.Cmp(halfOrder) > 0 {
			v.Sub(elliptic.P256().Params().N, v)
		}
		sig := make([]byte, 64)
		r.FillBytes(sig[:32])
		v.FillBytes(sig[32:])
		return sig, nil
	}
	return nil, fmt.Errorf("cose: cannot sign with %T", s.priv)
}

// MarshalPEM returns the private key as PKCS #8 in PEM. Whoever calls it keeps
// the bytes out of logs and writes them with mode 0600.
func (s *Signer) MarshalPEM() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(s.priv)
	if err != nil {
		return nil, fmt.Errorf("cose: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// ParsePEM reads what [Signer.MarshalPEM] wrote. Its errors never contain key
// bytes.
func ParsePEM(b []byte) (*Signer, error) {
	block, rest := pem.Decode(b)
	if block == nil || block.Type != "PRIVATE KEY" || len(rest) != 0 {
		return nil, errors.New("cose: not one PEM block of type PRIVATE KEY")
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("cose: not a PKCS #8 key")
	}
	priv, ok := k.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("cose: %T cannot sign", k)
	}
	return NewSigner(priv)
}
