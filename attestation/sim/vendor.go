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
	"fmt"
	"math/big"
	"sync"

	"github.com/concordat/concordat/attestation"
)

// Vendor is the hardware vendors of a simulated world: every key that AMD, Intel
// and NVIDIA hold. All follow from the seed. It is safe for concurrent use.
type Vendor struct {
	seed [32]byte

	mu  sync.Mutex // guards rsa
	rsa map[string]*rsa.PrivateKey
}

// NewVendor returns the vendors of a fresh seed.
func NewVendor() (*Vendor, error) {
	v := new(Vendor)
	if _, err := rand.Read(v.seed[:]); err != nil {
		return nil, err
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
	Seed Hex            `json:"seed"`
	AMD  map[string]Hex `json:"amd,omitempty"` // keys that were derived already, by label: PKCS #8
}

// MarshalJSON writes the seed, which is all private keys at once, and AMD's keys
// that were used, so that who reads it need not derive them again.
func (v *Vendor) MarshalJSON() ([]byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	f := vendorFile{Seed: v.seed[:], AMD: make(map[string]Hex)}
	for label, k := range v.rsa {
		der, err := x509.MarshalPKCS8PrivateKey(k)
		if err != nil {
			return nil, err
		}
		f.AMD[label] = der
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
	keys := make(map[string]*rsa.PrivateKey, len(f.AMD))
	for label, der := range f.AMD {
		k, err := x509.ParsePKCS8PrivateKey(der)
		if err != nil {
			return fmt.Errorf("vendor: key %.20q: %w", label, err)
		}
		rk, ok := k.(*rsa.PrivateKey)
		if !ok {
			return fmt.Errorf("vendor: key %.20q is %T, want an RSA key", label, k)
		}
		keys[label] = rk
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	copy(v.seed[:], f.Seed)
	v.rsa = keys
	return nil
}
