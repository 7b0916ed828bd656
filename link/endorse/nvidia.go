package endorse

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/crypto/ocsp"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/nvgpu"
)

// NVIDIA is the OCSP responder and the service of reference integrity manifests.
type NVIDIA struct {
	Client *Client
	OCSP   string // "https://ocsp.ndis.nvidia.com"
	RIM    string // "https://rim.attestation.nvidia.com"
}

// Fetch returns the manifests of driver and VBIOS, and the status of every
// certificate below the root of the device's chain and of the manifests' signers.
// The chain comes from the machine: it must be among have.
func (n *NVIDIA) Fetch(ctx context.Context, it attestation.Item, have *attestation.Endorsements) ([]attestation.Endorsement, error) {
	r, err := nvgpu.Parse(it.Raw)
	if err != nil {
		return nil, err
	}
	chain, err := deviceChain(it, have)
	if err != nil {
		return nil, err
	}
	chip, err := chipOf(chain)
	if err != nil {
		return nil, err
	}
	// The leaf is made by the device itself: no responder knows it.
	docs, errs := n.statuses(ctx, chain[1:])
	for _, id := range []func(string) (string, error){r.DriverRIM, r.VBIOSRIM} {
		id, err := id(chip)
		if err != nil || id == "" {
			errs = append(errs, err)
			continue
		}
		m, err := n.manifest(ctx, id)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		docs = append(docs, attestation.Endorsement{Type: attestation.TypeNVIDIARIM, Data: m})
		more, err2 := n.statuses(ctx, signers(m))
		docs, errs = append(docs, more...), append(errs, err2...)
	}
	return docs, errors.Join(errs...)
}

// statuses asks for the status of every certificate whose issuer is there too.
func (n *NVIDIA) statuses(ctx context.Context, certs []*x509.Certificate) (docs []attestation.Endorsement, errs []error) {
	for _, c := range certs {
		i := slices.IndexFunc(certs, func(i *x509.Certificate) bool { return bytes.Equal(i.RawSubject, c.RawIssuer) })
		if i < 0 || certs[i] == c {
			continue
		}
		der, err := n.status(ctx, c, certs[i])
		if err != nil {
			errs = append(errs, fmt.Errorf("status of %.60q: %w", c.Subject.CommonName, err))
			continue
		}
		docs = append(docs, attestation.Endorsement{Type: attestation.TypeNVIDIAOCSP, Data: der})
	}
	return docs, errs
}

// maxSigners bounds the certificates that a manifest carries.
const maxSigners = 8

// x509Certificate finds them. Nothing is believed of them here.
var x509Certificate = regexp.MustCompile(`<(?:[A-Za-z0-9]+:)?X509Certificate>([A-Za-z0-9+/=\s]+)</`)

// signers returns the certificates in a manifest's signature.
func signers(manifest []byte) (certs []*x509.Certificate) {
	for _, m := range x509Certificate.FindAllSubmatch(manifest, maxSigners) {
		der, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(string(m[1])), ""))
		if err != nil {
			continue
		}
		if c, err := x509.ParseCertificate(der); err == nil {
			certs = append(certs, c)
		}
	}
	return certs
}

func (n *NVIDIA) status(ctx context.Context, cert, issuer *x509.Certificate) ([]byte, error) {
	req, err := ocsp.CreateRequest(cert, issuer, &ocsp.RequestOptions{Hash: crypto.SHA384}) // as NVIDIA's verifier asks
	if err != nil {
		return nil, err
	}
	a, err := n.Client.get(ctx, &request{url: n.OCSP, body: req, mediaType: "application/ocsp-request", check: func(a *answer) error {
		// Only the shape: who may sign it is for the verifier.
		_, err := ocsp.ParseResponse(a.Body, nil)
		return err
	}})
	if err != nil {
		return nil, err
	}
	return a.Body, nil
}

// manifest asks for a manifest by its id.
func (n *NVIDIA) manifest(ctx context.Context, id string) ([]byte, error) {
	read := func(a *answer) ([]byte, error) {
		var v struct {
			ID  string `json:"id"`
			RIM []byte `json:"rim"` // base64
		}
		if err := json.Unmarshal(a.Body, &v); err != nil {
			return nil, err
		}
		if v.ID != id || !bytes.Contains(v.RIM, []byte("SoftwareIdentity")) {
			return nil, fmt.Errorf("not the manifest %s", id)
		}
		return v.RIM, nil
	}
	a, err := n.Client.get(ctx, &request{url: n.RIM + "/v1/rim/" + id, check: func(a *answer) error { _, err := read(a); return err }})
	if err != nil {
		return nil, err
	}
	return read(a)
}

// deviceChain returns the chain, leaf first, whose leaf has signed the report.
func deviceChain(it attestation.Item, have *attestation.Endorsements) ([]*x509.Certificate, error) {
	for _, b := range have.ByType(attestation.TypeNVIDIAChain, it.Endorsements) {
		var chain []*x509.Certificate
		for len(chain) < 8 {
			var block *pem.Block
			if block, b = pem.Decode(b); block == nil {
				break
			}
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				break
			}
			chain = append(chain, c)
		}
		if len(chain) > 1 && signed(it.Raw, chain[0]) {
			return chain, nil
		}
	}
	return nil, errors.New("nvidia: no chain whose leaf signed the report: give the one that the machine handed out")
}

// signed reports whether leaf's key signed a report, which has been parsed.
func signed(raw []byte, leaf *x509.Certificate) bool {
	key, ok := leaf.PublicKey.(*ecdsa.PublicKey)
	if !ok {
		return false
	}
	cut := len(raw) - nvgpu.SignatureSize
	digest := sha512.Sum384(raw[:cut])
	return ecdsa.Verify(key, digest[:], new(big.Int).SetBytes(raw[cut:cut+48]), new(big.Int).SetBytes(raw[cut+48:]))
}

// chipNames are as NVIDIA's certificates name chips.
var chipNames = regexp.MustCompile(`^(G[A-Z][0-9]{3}|LS_10) `)

// chipOf returns the chip's name as ids of manifests have it.
func chipOf(chain []*x509.Certificate) (string, error) {
	m := chipNames.FindStringSubmatch(chain[0].Subject.CommonName)
	switch {
	case m == nil:
		return "", fmt.Errorf("nvidia: the certificate %.60q names no chip", chain[0].Subject.CommonName)
	case m[1] == "LS_10":
		return nvgpu.ChipSwitch, nil
	}
	return m[1], nil
}
