package snp

import (
	"crypto/x509"
	"embed"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/snp"
	"github.com/concordat/concordat/verifier/internal/check"
)

// arks are the roots of AMD: SHA-256 of the DER SubjectPublicKeyInfo of the ARK
// of every product line, computed from the certificates in amd/ (see its
// README).
var arks = map[snp.Product]attestation.Digest{
	snp.Milan: digest("9f056bee44377e29308cb5ffa895bdfb62d18881fa6bed8d6f075b0204089cb9"),
	snp.Genoa: digest("429a69c9422aa258ee4d8db5fcda9c6470ef15f8cd5a9cebd6cbc7d90b863831"),
	snp.Turin: digest("4f125410563a2ab9a50356f9243f6fe0b6f73de98603f53f90339c70e9d7ad08"),
}

func digest(s string) attestation.Digest {
	var d attestation.Digest
	if n, err := hex.Decode(d[:], []byte(s)); err != nil || n != len(d) {
		panic("snp: internal error: bad root digest " + s)
	}
	return d
}

// acceptsRoot reports whether ark is an accepted root of product. AMD's roots
// count for their own product line only. A simulator's root speaks for the line
// in its name, as all lines of one simulated vendor may share a key.
func acceptsRoot(want *check.Expect, ark *x509.Certificate, product snp.Product) bool {
	return ark.Subject.CommonName == "ARK-"+string(product) &&
		want.Accepts(ark, []attestation.Digest{arks[product]})
}

//go:embed amd/*.pem
var amdFiles embed.FS

// pair is a signing CA and its root.
type pair struct{ ask, ark *x509.Certificate }

// parsePair reads the two PEM certificates of a chain file: the signing CA, then
// the root.
func parsePair(b []byte) (pair, error) {
	var certs []*x509.Certificate
	for rest := b; len(certs) < 3; {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return pair{}, fmt.Errorf("PEM block %.40q in a certificate chain", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return pair{}, err
		}
		certs = append(certs, c)
	}
	if len(certs) != 2 {
		return pair{}, errors.New("a certificate chain is two PEM certificates: ASK, then ARK")
	}
	return pair{ask: certs[0], ark: certs[1]}, nil
}

// amdPairs returns AMD's own chains, which need not travel with evidence.
var amdPairs = sync.OnceValue(func() []pair {
	names, err := amdFiles.ReadDir("amd")
	if err != nil {
		panic("snp: internal error: " + err.Error())
	}
	var all []pair
	for _, e := range names { // in the order of their names
		if !strings.HasSuffix(e.Name(), ".pem") {
			continue
		}
		b, err := amdFiles.ReadFile("amd/" + e.Name())
		if err != nil {
			panic("snp: internal error: " + err.Error())
		}
		p, err := parsePair(b)
		if err != nil {
			panic("snp: internal error: amd/" + e.Name() + ": " + err.Error())
		}
		all = append(all, p)
	}
	return all
})
