package sim

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"

	"github.com/concordat/concordat/attestation"
)

// Vendor is the hardware vendors of a simulated world: every key that AMD, Intel
// and NVIDIA hold. All follow from the seed but AMD's two RSA keys, which Go
// makes only from fresh randomness; they are stored beside it.
type Vendor struct {
	seed     [32]byte
	ark, ask *rsa.PrivateKey
}

// amdKeyBits is the size of AMD's own ARK and ASK (AMD 57230).
const amdKeyBits = 4096

// NewVendor returns the vendors of a fresh seed. It takes a second or two: it
// makes two RSA-4096 keys.
func NewVendor() (*Vendor, error) {
	v := new(Vendor)
	if _, err := rand.Read(v.seed[:]); err != nil {
		return nil, err
	}
	for _, k := range []**rsa.PrivateKey{&v.ark, &v.ask} {
		var err error
		if *k, err = rsa.GenerateKey(rand.Reader, amdKeyBits); err != nil {
			return nil, fmt.Errorf("sim: vendor: %w", err)
		}
	}
	return v, nil
}

// bytes derives n bytes under a label.
func (v *Vendor) bytes(label string, n int) []byte {
	b, err := hkdf.Key(sha256.New, v.seed[:], nil, "concordat/sim/1/"+label, n)
	if err != nil {
		panic("sim: internal error: " + err.Error()) // n is a small constant
	}
	return b
}

// Key derives the private key with the given label. Sign with it by passing a
// nil random source: signatures are then deterministic too (RFC 6979).
func (v *Vendor) Key(label string, curve elliptic.Curve) *ecdsa.PrivateKey {
	// 16 bytes more than the order: the bias of the reduction is below 2^-128.
	n := new(big.Int).Sub(curve.Params().N, big.NewInt(1))
	size := (n.BitLen() + 7) / 8
	d := new(big.Int).SetBytes(v.bytes("key/"+label, size+16))
	d.Mod(d, n).Add(d, big.NewInt(1))
	k, err := ecdsa.ParseRawPrivateKey(curve, d.FillBytes(make([]byte, size)))
	if err != nil {
		panic("sim: internal error: " + err.Error()) // d is in [1, N-1]
	}
	return k
}

// chipKey derives a key of this machine's chip.
func (m *Machine) chipKey(label string, curve elliptic.Curve) *ecdsa.PrivateKey {
	return m.cfg.Vendor.Key("chip/"+m.cfg.Chip+"/"+label, curve)
}

// chipBytes derives bytes of this machine's chip, such as its id.
func (m *Machine) chipBytes(label string, n int) []byte {
	return m.cfg.Vendor.bytes("chip/"+m.cfg.Chip+"/"+label, n)
}

// markCert puts the marks of a simulated certificate into c: the serial number,
// derived from label, and for a CA the extension.
func (v *Vendor) markCert(c *x509.Certificate, label string) {
	serial := append([]byte(attestation.SimulatedSerial), v.bytes("serial/"+label, 8)...)
	c.SerialNumber = new(big.Int).SetBytes(serial)
	if c.IsCA {
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: attestation.OIDSimulated, Value: []byte{5, 0}})
	}
}

type vendorFile struct {
	Seed Hex    `json:"seed"`
	ARK  string `json:"ark"` // PKCS #8, PEM
	ASK  string `json:"ask"`
}

// MarshalJSON writes the seed and the private keys.
func (v *Vendor) MarshalJSON() ([]byte, error) {
	f := vendorFile{Seed: v.seed[:]}
	for k, s := range map[*rsa.PrivateKey]*string{v.ark: &f.ARK, v.ask: &f.ASK} {
		der, err := x509.MarshalPKCS8PrivateKey(k)
		if err != nil {
			return nil, err
		}
		*s = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	}
	return json.Marshal(f)
}

// UnmarshalJSON reads what [Vendor.MarshalJSON] wrote.
func (v *Vendor) UnmarshalJSON(b []byte) error {
	var f vendorFile
	if err := json.Unmarshal(b, &f); err != nil {
		return err
	}
	if len(f.Seed) != len(v.seed) {
		return fmt.Errorf("vendor: seed of %d bytes, want %d", len(f.Seed), len(v.seed))
	}
	copy(v.seed[:], f.Seed)
	for s, k := range map[string]**rsa.PrivateKey{f.ARK: &v.ark, f.ASK: &v.ask} {
		p, _ := pem.Decode([]byte(s))
		if p == nil {
			return errors.New("vendor: no PEM key")
		}
		key, err := x509.ParsePKCS8PrivateKey(p.Bytes)
		if err != nil {
			return fmt.Errorf("vendor: %w", err)
		}
		rk, ok := key.(*rsa.PrivateKey)
		if !ok {
			return fmt.Errorf("vendor: %T, want an RSA key", key)
		}
		*k = rk
	}
	return nil
}
