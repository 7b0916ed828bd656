package endorse

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/snp"
)

// AMD is the key distribution service (AMD 57230, "VCEK Certificate and KDS
// Interface Specification").
type AMD struct {
	Client *Client
	Base   string // "https://kdsintf.amd.com"
}

// Fetch returns the certificate of the chip, the chain above it and the
// revocation list. A VLEK is given to the cloud provider alone, who hands it to
// the guest: of it only chain and list are to be had here.
func (a *AMD) Fetch(ctx context.Context, it attestation.Item, _ *attestation.Endorsements) ([]attestation.Endorsement, error) {
	r, err := snp.Parse(it.Raw)
	if err != nil {
		return nil, err
	}
	products := []snp.Product{snp.Milan, snp.Genoa} // a report of version 2 does not say
	if r.Version >= snp.Version3 {
		p, ok := r.CPUID.Product()
		if !ok {
			return nil, fmt.Errorf("snp: no product line is known of %s", r.CPUID)
		}
		products = []snp.Product{p}
	}
	switch key := r.SignerInfo.Key(); key {
	case snp.VCEK:
		return a.vcek(ctx, r, products)
	case snp.VLEK:
		if len(products) > 1 {
			return nil, errors.New("snp: a report of version 2 does not say of which product line its VLEK is")
		}
		return a.line(ctx, "vlek", products[0])
	default:
		return nil, fmt.Errorf("snp: signed by %s", key)
	}
}

func (a *AMD) vcek(ctx context.Context, r *snp.Report, products []snp.Product) ([]attestation.Endorsement, error) {
	if r.ChipID == [64]byte{} {
		return nil, errors.New("snp: the host hides the chip's id: its certificate cannot be asked for; have the host hand it to the guest")
	}
	var errs []error
	for _, p := range products {
		u, err := a.vcekURL(r, p)
		if err != nil {
			return nil, err
		}
		got, err := a.Client.get(ctx, &request{url: u, immutable: true, check: func(x *answer) error {
			_, err := x509.ParseCertificate(x.Body)
			return err
		}})
		if err != nil {
			errs = append(errs, err)
			if errors.Is(err, ErrStatus) {
				continue // perhaps a chip of the other line
			}
			break
		}
		docs, err := a.line(ctx, "vcek", p)
		return append([]attestation.Endorsement{{Type: attestation.TypeAMDVCEK, Data: got.Body}}, docs...), err
	}
	return nil, errors.Join(errs...)
}

// vcekURL is the address of a chip's certificate at its reported TCB.
func (a *AMD) vcekURL(r *snp.Report, p snp.Product) (string, error) {
	t, err := r.ReportedTCB.Decode(p)
	if err != nil {
		return "", err
	}
	u := fmt.Sprintf("%s/vcek/v1/%s/%s?", a.Base, p, hex.EncodeToString(r.ChipID[:p.ChipIDSize()]))
	if p == snp.Turin {
		u += fmt.Sprintf("fmcSPL=%02d&", t.FMC)
	}
	return u + fmt.Sprintf("blSPL=%02d&teeSPL=%02d&snpSPL=%02d&ucodeSPL=%02d", t.BootLoader, t.TEE, t.SNP, t.Microcode), nil
}

// line returns the chain and the revocation list of a product line.
func (a *AMD) line(ctx context.Context, key string, p snp.Product) (docs []attestation.Endorsement, _ error) {
	base := fmt.Sprintf("%s/%s/v1/%s/", a.Base, key, p)
	chain, err := a.Client.get(ctx, &request{url: base + "cert_chain", immutable: true, check: func(x *answer) error { return pemChain(x.Body, 2) }})
	if err == nil {
		docs = append(docs, attestation.Endorsement{Type: attestation.TypeAMDChain, Data: chain.Body})
	}
	list, err2 := a.Client.get(ctx, &request{url: base + "crl", check: func(x *answer) error {
		_, err := x509.ParseRevocationList(x.Body)
		return err
	}})
	if err2 == nil {
		docs = append(docs, attestation.Endorsement{Type: attestation.TypeAMDCRL, Data: list.Body})
	}
	return docs, errors.Join(err, err2)
}

// pemChain checks that b holds n certificates and nothing else.
func pemChain(b []byte, n int) error {
	for range n {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil || block.Type != "CERTIFICATE" {
			return fmt.Errorf("not %d certificates in PEM", n)
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return err
		}
	}
	if strings.TrimSpace(string(b)) != "" {
		return fmt.Errorf("more than %d certificates in PEM", n)
	}
	return nil
}
