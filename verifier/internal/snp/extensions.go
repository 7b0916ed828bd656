package snp

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/concordat/concordat/attestation/snp"
)

// vek is what the certificate of a signing key says about the chip or the
// provider: the extensions under 1.3.6.1.4.1.3704.1 of AMD 57230, tables 9 to
// 13.
type vek struct {
	version int
	product snp.Product
	hwID    []byte // VCEK: 64 bytes, Turin 8
	csp     string // VLEK
	tcb     snp.TCB
}

// kdsArc is 1.3.6.1.4.1.3704.1.
var kdsArc = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1}

// parseVEK reads the extensions of the certificate of a VCEK or VLEK. It refuses
// unknown and duplicate ones under AMD's arc, any critical one, and what belongs
// to the other kind of key. An unknown product line or version of the structure
// is for the caller to refuse.
func parseVEK(c *x509.Certificate, key snp.SigningKey) (*vek, error) {
	ext := map[string][]byte{}
	for _, e := range c.Extensions {
		if e.Critical {
			return nil, fmt.Errorf("critical extension %v", e.Id)
		}
		if len(e.Id) <= len(kdsArc) || !e.Id[:len(kdsArc)].Equal(kdsArc) {
			continue
		}
		name := strings.TrimPrefix(e.Id.String(), kdsArc.String()+".")
		if _, ok := ext[name]; ok {
			return nil, fmt.Errorf("extension %v is there twice", e.Id)
		}
		ext[name] = e.Value
	}
	r := reader{ext: ext}
	v := &vek{version: r.integer("1")}
	v.product = productNamed(r.text("2"))
	v.tcb = snp.TCB{
		BootLoader: r.byte("3.1"),
		TEE:        r.byte("3.2"),
		SNP:        r.byte("3.3"),
		Microcode:  r.byte("3.8"),
	}
	if v.product == snp.Turin {
		v.tcb.FMC = r.byte("3.9")
	}
	// spl4 to spl7 are reserved; Turin has no spl4. They are zero.
	for _, name := range []string{"3.4", "3.5", "3.6", "3.7"} {
		if _, ok := ext[name]; ok {
			if n := r.byte(name); n != 0 && r.err == nil {
				return nil, fmt.Errorf("reserved security version %s is %d", name, n)
			}
		}
	}
	if key == snp.VLEK {
		v.csp = r.text("5")
	} else {
		v.hwID = r.octets("4", v.product.ChipIDSize())
	}
	if r.err != nil {
		return nil, r.err
	}
	if len(ext) > 0 {
		return nil, fmt.Errorf("extension %v.%s does not belong into the certificate of a %s", kdsArc, slices.Sorted(maps.Keys(ext))[0], key)
	}
	return v, nil
}

// productNamed reads the productName of a certificate: "Milan-B0" in a VCEK,
// "Milan" in a VLEK, "Turin" in both. Bergamo and Siena are of Genoa's line.
func productNamed(name string) snp.Product {
	line, _, _ := strings.Cut(name, "-")
	switch line {
	case "Bergamo", "Siena":
		return snp.Genoa
	}
	return snp.Product(line)
}

// checkStructure checks structVersion: Turin's is 1, the structure with fmcSPL
// and the short chip id. Which extensions there are was checked with the
// extensions themselves.
func (v *vek) checkStructure() error {
	if v.version < 0 || v.version > 1 || v.product == snp.Turin && v.version != 1 {
		return fmt.Errorf("structure version %d of %.20q", v.version, string(v.product))
	}
	return nil
}

// reader takes extensions out of a map and keeps the first error.
type reader struct {
	ext map[string][]byte
	err error
}

func (r *reader) take(name string, v any, params string) {
	b, ok := r.ext[name]
	delete(r.ext, name)
	if r.err != nil {
		return
	}
	if !ok {
		r.err = fmt.Errorf("extension %v.%s is missing", kdsArc, name)
		return
	}
	rest, err := asn1.UnmarshalWithParams(b, v, params)
	if err != nil || len(rest) != 0 {
		r.err = fmt.Errorf("extension %v.%s is malformed", kdsArc, name)
	}
}

func (r *reader) integer(name string) (n int) {
	r.take(name, &n, "")
	return n
}

func (r *reader) byte(name string) uint8 {
	n := r.integer(name)
	if r.err == nil && (n < 0 || n > 255) {
		r.err = fmt.Errorf("extension %v.%s is %d, not a byte", kdsArc, name, n)
	}
	return uint8(n)
}

func (r *reader) text(name string) (s string) {
	r.take(name, &s, "ia5")
	return s
}

// octets returns an extension of size bytes, which AMD writes without the DER
// header of an octet string; newer certificates may have it.
func (r *reader) octets(name string, size int) []byte {
	b, ok := r.ext[name]
	delete(r.ext, name)
	if len(b) == size+2 && b[0] == asn1.TagOctetString && int(b[1]) == size {
		b = b[2:]
	}
	switch {
	case r.err != nil:
	case !ok:
		r.err = fmt.Errorf("extension %v.%s is missing", kdsArc, name)
	case len(b) != size:
		r.err = fmt.Errorf("extension %v.%s has %d bytes, want %d", kdsArc, name, len(b), size)
	}
	return b
}
