package endorse

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/tdx"
)

// Intel is the provisioning certification service, version 4, or a caching one
// (PCCS) with the same addresses.
type Intel struct {
	Client *Client
	Base   string // "https://api.trustedservices.intel.com", or that of a PCCS
	Root   string // address of the root's list; empty: a PCCS, which has it itself
}

// Headers of the answers.
const (
	chainTCB = "Tcb-Info-Issuer-Chain"
	chainQE  = "Sgx-Enclave-Identity-Issuer-Chain"
	chainCRL = "Sgx-Pck-Crl-Issuer-Chain"
)

// Fetch returns the collateral for the quote's platform, as one document. A part
// that is not to be had is missing in it.
func (i *Intel) Fetch(ctx context.Context, it attestation.Item, _ *attestation.Endorsements) ([]attestation.Endorsement, error) {
	q, err := tdx.Parse(it.Raw)
	if err != nil {
		return nil, err
	}
	fmspc, ca, err := platform(q.Chain)
	if err != nil {
		return nil, err
	}
	c := new(tdx.Collateral)
	var errs []error
	try := func(err error) { errs = append(errs, err) }
	c.TCBInfo, err = i.signed(ctx, "/tdx/certification/v4/tcb?fmspc="+hex.EncodeToString(fmspc[:]), "tcbInfo", chainTCB)
	try(err)
	c.QEIdentity, err = i.signed(ctx, "/tdx/certification/v4/qe/identity", "enclaveIdentity", chainQE)
	try(err)
	list, err := i.Client.get(ctx, &request{url: i.Base + "/sgx/certification/v4/pckcrl?ca=" + ca + "&encoding=der", chain: chainCRL, check: func(a *answer) error {
		_, err := derList(a.Body)
		return errors.Join(err, pemChain([]byte(a.Chain), 2))
	}})
	if try(err); err == nil {
		c.PCKCRL, _ = derList(list.Body)
		c.PCKCRLChain = []byte(list.Chain)
	}
	root := i.Root
	if root == "" {
		root = i.Base + "/sgx/certification/v4/rootcacrl"
	}
	list, err = i.Client.get(ctx, &request{url: root, check: func(a *answer) error { _, err := derList(a.Body); return err }})
	if try(err); err == nil {
		c.RootCRL, _ = derList(list.Body)
	}
	err = errors.Join(errs...)
	if c.TCBInfo == nil && c.QEIdentity == nil && c.PCKCRL == nil && c.RootCRL == nil {
		return nil, err
	}
	return []attestation.Endorsement{{Type: attestation.TypeIntelCollateral, Data: c.Marshal()}}, err
}

// signed asks for {inner: document, "signature": hex}.
func (i *Intel) signed(ctx context.Context, path, inner, chain string) (*tdx.Signed, error) {
	a, err := i.Client.get(ctx, &request{url: i.Base + path, chain: chain, check: func(a *answer) error {
		_, err := readSigned(a, inner)
		return err
	}})
	if err != nil {
		return nil, err
	}
	return readSigned(a, inner)
}

func readSigned(a *answer, inner string) (*tdx.Signed, error) {
	var whole map[string]json.RawMessage // keeps the signed bytes as they are
	if err := json.Unmarshal(a.Body, &whole); err != nil {
		return nil, err
	}
	var signature string
	if err := json.Unmarshal(whole["signature"], &signature); err != nil || whole[inner] == nil {
		return nil, fmt.Errorf("no %q with a signature beside it", inner)
	}
	s := &tdx.Signed{Doc: whole[inner], Chain: []byte(a.Chain)}
	raw, err := hex.DecodeString(signature)
	if err != nil || len(raw) != len(s.Signature) {
		return nil, fmt.Errorf("signature of %d characters, want %d hex digits", len(signature), 2*len(s.Signature))
	}
	copy(s.Signature[:], raw)
	return s, pemChain(s.Chain, 2)
}

// platform returns what the PCK certificate says of its platform, and which CA
// issued it.
func platform(chain []byte) (fmspc [6]byte, ca string, err error) {
	block, _ := pem.Decode(chain)
	if block == nil {
		return fmspc, "", errors.New("tdx: no PCK certificate in the quote")
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return fmspc, "", fmt.Errorf("tdx: PCK certificate: %w", err)
	}
	switch name := c.Issuer.CommonName; {
	case strings.Contains(name, "Platform CA"):
		ca = "platform"
	case strings.Contains(name, "Processor CA"):
		ca = "processor"
	default:
		return fmspc, "", fmt.Errorf("tdx: PCK certificate of unknown CA %.60q", name)
	}
	for _, e := range c.Extensions {
		if e.Id.Equal(tdx.OIDSGX) {
			x, err := tdx.ParseSGXExtension(e.Value)
			if err != nil {
				return fmspc, "", err
			}
			return x.FMSPC, ca, nil
		}
	}
	return fmspc, "", errors.New("tdx: PCK certificate without SGX extension")
}

// derList returns the DER of a list that comes as DER, or, from a PCCS, as its
// hex.
func derList(b []byte) ([]byte, error) {
	der := b
	if h, err := hex.DecodeString(string(bytes.TrimSpace(b))); err == nil {
		der = h
	}
	if _, err := x509.ParseRevocationList(der); err != nil {
		return nil, err
	}
	return der, nil
}
