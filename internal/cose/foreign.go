package cose

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	_ "crypto/sha512" // SHA-384 and SHA-512
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"

	"github.com/fxamacker/cbor/v2"
)

// foreignAlg is one signature algorithm of receipts that are not ours.
type foreignAlg struct {
	hash  crypto.Hash
	curve elliptic.Curve // ECDSA: the one curve; the identifier binds it
	pss   bool
}

// RFC 9053 2, RFC 8230 2, and the fully specified ones of RFC 9864. Curves are
// bound to algorithms throughout, as RFC 9864 does.
var foreignAlgs = map[int64]foreignAlg{
	-7:  {crypto.SHA256, elliptic.P256(), false}, // ES256
	-9:  {crypto.SHA256, elliptic.P256(), false}, // ESP256
	-35: {crypto.SHA384, elliptic.P384(), false}, // ES384
	-51: {crypto.SHA384, elliptic.P384(), false}, // ESP384
	-36: {crypto.SHA512, elliptic.P521(), false}, // ES512
	-52: {crypto.SHA512, elliptic.P521(), false}, // ESP512
	-8:  {},                                      // EdDSA, with Ed25519
	-19: {},                                      // Ed25519
	-37: {crypto.SHA256, nil, true},              // PS256
	-38: {crypto.SHA384, nil, true},              // PS384
	-39: {crypto.SHA512, nil, true},              // PS512
}

// RSA keys below this are refused (RFC 8230 6.1), and above only cost time.
const minRSA, maxRSA = 2048, 8192

func verifyForeign(alg int64, pub crypto.PublicKey, msg, sig []byte) error {
	a, ok := foreignAlgs[alg]
	if !ok {
		return fmt.Errorf("%w: algorithm %d is not supported", ErrSignature, alg)
	}
	var digest []byte
	if a.hash != 0 {
		h := a.hash.New()
		h.Write(msg)
		digest = h.Sum(nil)
	}
	switch k := pub.(type) {
	case ed25519.PublicKey:
		if a.hash == 0 && len(k) == ed25519.PublicKeySize && ed25519.Verify(k, msg, sig) {
			return nil
		}
	case *ecdsa.PublicKey:
		if a.curve == nil || k.Curve != a.curve {
			return fmt.Errorf("%w: algorithm %d with a key on %s", ErrSignature, alg, k.Curve.Params().Name)
		}
		n := (a.curve.Params().BitSize + 7) / 8
		if len(sig) != 2*n {
			return fmt.Errorf("%w: signature of %d bytes, want %d", ErrSignature, len(sig), 2*n)
		}
		if ecdsa.Verify(k, digest, new(big.Int).SetBytes(sig[:n]), new(big.Int).SetBytes(sig[n:])) {
			return nil
		}
	case *rsa.PublicKey:
		if n := k.N.BitLen(); !a.pss || n < minRSA || n > maxRSA {
			return fmt.Errorf("%w: algorithm %d with an RSA key of %d bits", ErrSignature, alg, n)
		}
		if rsa.VerifyPSS(k, a.hash, digest, sig, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil {
			return nil
		}
	}
	return ErrSignature
}

// maxKeyFile bounds a public key of anybody, in bytes.
const maxKeyFile = 64 << 10

// ParsePublicKey reads anybody's public key: a PEM block of type PUBLIC KEY or
// CERTIFICATE (whose dates and issuer are not looked at), or a COSE_Key (RFC 9052
// 7) on P-256, P-384, P-521 or Ed25519, or of RSA. alg is the algorithm that a
// COSE_Key restricts itself to, or 0.
func ParsePublicKey(b []byte) (pub crypto.PublicKey, alg int64, err error) {
	if len(b) > maxKeyFile {
		return nil, 0, fmt.Errorf("key: %d bytes, limit %d", len(b), maxKeyFile)
	}
	if block, rest := pem.Decode(b); block != nil {
		if len(bytes.TrimSpace(rest)) != 0 {
			return nil, 0, errors.New("key: more than one PEM block")
		}
		switch block.Type {
		case "PUBLIC KEY":
			pub, err = x509.ParsePKIXPublicKey(block.Bytes)
		case "CERTIFICATE":
			var c *x509.Certificate
			if c, err = x509.ParseCertificate(block.Bytes); err == nil {
				pub = c.PublicKey
			}
		default:
			err = fmt.Errorf("PEM block of type %q", block.Type)
		}
	} else {
		pub, alg, err = parseCOSEKey(b)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("key: %w", err)
	}
	return pub, alg, nil
}

func parseCOSEKey(b []byte) (crypto.PublicKey, int64, error) {
	if len(b) == 0 || b[0]>>5 != 5 {
		return nil, 0, errors.New("neither PEM nor a COSE_Key")
	}
	var k struct {
		Kty int64           `cbor:"1,keyasint"`
		Alg int64           `cbor:"3,keyasint"`
		A   cbor.RawMessage `cbor:"-1,keyasint"` // crv, or n
		B   cbor.RawMessage `cbor:"-2,keyasint"` // x, or e
		C   cbor.RawMessage `cbor:"-3,keyasint"` // y
	}
	if err := foreignMode.Unmarshal(b, &k); err != nil {
		return nil, 0, err
	}
	if k.Kty == 3 { // RSA (RFC 8230 4)
		var n, e []byte
		if err := errors.Join(decodeBytes(k.A, &n), decodeBytes(k.B, &e)); err != nil {
			return nil, 0, err
		}
		exp := new(big.Int).SetBytes(e)
		if !exp.IsInt64() || exp.Int64() > 1<<31-1 {
			return nil, 0, errors.New("RSA exponent is too large")
		}
		return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(exp.Int64())}, k.Alg, nil
	}
	var crv int64
	if len(k.A) == 0 {
		return nil, 0, errors.New("no curve")
	}
	if err := foreignMode.Unmarshal(k.A, &crv); err != nil {
		return nil, 0, err
	}
	var x []byte
	if err := decodeBytes(k.B, &x); err != nil {
		return nil, 0, err
	}
	curve := map[int64]elliptic.Curve{1: elliptic.P256(), 2: elliptic.P384(), 3: elliptic.P521()}[crv] // RFC 9053 7.1
	switch {
	case k.Kty == 1 && crv == 6 && len(x) == ed25519.PublicKeySize:
		return ed25519.PublicKey(x), k.Alg, nil
	case k.Kty != 2 || curve == nil:
		return nil, 0, fmt.Errorf("key type %d on curve %d", k.Kty, crv)
	}
	n := (curve.Params().BitSize + 7) / 8
	point := append([]byte{4}, x...)
	if len(k.C) == 1 && k.C[0]>>1 == 0xf4>>1 { // a sign bit: compressed
		px, py := elliptic.UnmarshalCompressed(curve, append([]byte{2 | k.C[0]&1}, x...))
		if px == nil {
			return nil, 0, errors.New("point is not on the curve")
		}
		point = append(point, py.FillBytes(make([]byte, n))...)
	} else {
		var y []byte
		if err := decodeBytes(k.C, &y); err != nil {
			return nil, 0, err
		}
		point = append(point, y...)
	}
	if len(x) != n || len(point) != 1+2*n {
		return nil, 0, fmt.Errorf("coordinates of %d bytes, want %d", len(x), n)
	}
	pub, err := ecdsa.ParseUncompressedPublicKey(curve, point)
	return pub, k.Alg, err
}
