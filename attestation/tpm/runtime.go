package tpm

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
)

// The key that signs quotes, by the name that Azure's paravisor gives it.
const signingKeyID = "HCLAkPub"

// Sizes of an accepted RSA key, in bits, and its exponent: that of every TPM.
const (
	minRSABits  = 2048
	maxRSABits  = 4096
	rsaExponent = 65537
)

type jwk struct {
	ID  string   `json:"kid"`
	Ops []string `json:"key_ops"`
	Typ string   `json:"kty"`
	N   string   `json:"n"`
	E   string   `json:"e"`
	Crv string   `json:"crv"`
	X   string   `json:"x"`
	Y   string   `json:"y"`
}

// SigningKey returns the public key that runtime data name as the TPM's
// attestation key: the one JSON Web Key (RFC 7517) with the id "HCLAkPub", RSA of
// 2048 to 4096 bits or ECDSA on P-256. Data that two readers could read in two
// ways, with a name or the key twice, are refused.
func SigningKey(runtime []byte) (crypto.PublicKey, error) {
	if len(runtime) > MaxRuntime {
		return nil, fmt.Errorf("%w: runtime data of %d bytes, limit %d", ErrMalformed, len(runtime), MaxRuntime)
	}
	if err := strictJSON(runtime); err != nil {
		return nil, fmt.Errorf("%w: runtime data: %w", ErrMalformed, err)
	}
	var doc struct {
		Keys []jwk `json:"keys"`
	}
	if err := json.Unmarshal(runtime, &doc); err != nil {
		return nil, fmt.Errorf("%w: runtime data: %w", ErrMalformed, err)
	}
	var found *jwk
	for i := range doc.Keys {
		if doc.Keys[i].ID != signingKeyID {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("%w: runtime data: two keys %q", ErrMalformed, signingKeyID)
		}
		found = &doc.Keys[i]
	}
	if found == nil {
		return nil, fmt.Errorf("%w: runtime data: no key %q", ErrMalformed, signingKeyID)
	}
	key, err := found.public()
	if err != nil {
		return nil, fmt.Errorf("%w: runtime data: key %q: %w", ErrMalformed, signingKeyID, err)
	}
	return key, nil
}

func (k *jwk) public() (crypto.PublicKey, error) {
	if !slices.Equal(k.Ops, []string{"sign"}) {
		return nil, fmt.Errorf("key_ops %.80q, want [\"sign\"] alone", k.Ops)
	}
	number := func(s string) []byte {
		b, err := base64.RawURLEncoding.Strict().DecodeString(s)
		if err != nil {
			return nil
		}
		return b
	}
	switch k.Typ {
	case "RSA":
		n, e := new(big.Int).SetBytes(number(k.N)), new(big.Int).SetBytes(number(k.E))
		if bits := n.BitLen(); bits < minRSABits || bits > maxRSABits || n.Bit(0) == 0 {
			return nil, fmt.Errorf("RSA modulus of %d bits, want an odd one of %d to %d", bits, minRSABits, maxRSABits)
		}
		if !e.IsInt64() || e.Int64() != rsaExponent {
			return nil, fmt.Errorf("RSA exponent is not %d", rsaExponent)
		}
		return &rsa.PublicKey{N: n, E: rsaExponent}, nil
	case "EC":
		x, y := number(k.X), number(k.Y)
		if k.Crv != "P-256" || len(x) != 32 || len(y) != 32 {
			return nil, fmt.Errorf("curve %.20q with coordinates of %d and %d bytes, want P-256", k.Crv, len(x), len(y))
		}
		return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, x, y))
	}
	return nil, fmt.Errorf("type %.20q, want RSA or EC", k.Typ)
}

// MarshalRuntime returns runtime data that name pub, which is *rsa.PublicKey or
// an *ecdsa.PublicKey on P-256, as the signing key. For simulators.
func MarshalRuntime(pub crypto.PublicKey) ([]byte, error) {
	type key struct {
		ID  string   `json:"kid"`
		Ops []string `json:"key_ops"`
		Typ string   `json:"kty"`
		E   string   `json:"e,omitempty"`
		N   string   `json:"n,omitempty"`
		Crv string   `json:"crv,omitempty"`
		X   string   `json:"x,omitempty"`
		Y   string   `json:"y,omitempty"`
	}
	text := base64.RawURLEncoding.EncodeToString
	k := key{ID: signingKeyID, Ops: []string{"sign"}}
	switch pub := pub.(type) {
	case *rsa.PublicKey:
		k.Typ, k.E, k.N = "RSA", text(big.NewInt(int64(pub.E)).Bytes()), text(pub.N.Bytes())
	case *ecdsa.PublicKey:
		p, err := pub.Bytes()
		if err != nil || len(p) != 65 {
			return nil, errors.New("tpm: runtime data: want a key on P-256")
		}
		k.Typ, k.Crv, k.X, k.Y = "EC", "P-256", text(p[1:33]), text(p[33:])
	default:
		return nil, fmt.Errorf("tpm: runtime data: key of type %T", pub)
	}
	return json.Marshal(map[string]any{"keys": []key{k}, "vm-configuration": map[string]bool{"secure-boot": true, "tpm-enabled": true}})
}

// maxDepth bounds the nesting of runtime data; Azure's have 3 levels.
const maxDepth = 8

// strictJSON refuses what encoding/json accepts and others read differently: a
// name twice in an object, by any case, and anything after the document.
func strictJSON(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	if err := strictValue(d, 0); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("something after the document")
	}
	return nil
}

func strictValue(d *json.Decoder, depth int) error {
	t, err := d.Token()
	if err != nil {
		return err
	}
	open, nested := t.(json.Delim)
	if !nested {
		return nil
	}
	if depth == maxDepth {
		return fmt.Errorf("nested deeper than %d", maxDepth)
	}
	var names []string
	for d.More() {
		if open == '{' {
			t, err := d.Token()
			if err != nil {
				return err
			}
			name := t.(string) // encoding/json has checked
			if slices.ContainsFunc(names, func(n string) bool { return bytes.EqualFold([]byte(n), []byte(name)) }) {
				return fmt.Errorf("name %.40q twice", name)
			}
			names = append(names, name)
		}
		if err := strictValue(d, depth+1); err != nil {
			return err
		}
	}
	_, err = d.Token() // the closing one
	return err
}
