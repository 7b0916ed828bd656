package endorse

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/concordat/concordat/attestation"
)

// Source is the service of one vendor.
type Source interface {
	// Fetch returns the documents for checking it. have are those that came with
	// the evidence, such as the chain of a GPU. It returns what it got beside an
	// error: a verdict says what is missing.
	Fetch(ctx context.Context, it attestation.Item, have *attestation.Endorsements) ([]attestation.Endorsement, error)
}

// Vendors are the sources by kind of evidence.
type Vendors map[attestation.Kind]Source

// Addresses are the base addresses of services, without a slash at the end. A
// field that is empty stands for the vendor's own.
type Addresses struct {
	AMD        string // KDS, or a mirror of it
	Intel      string // PCS, or a PCCS: then a root list is asked there too
	IntelRoot  string // address of the list of Intel's root; not for a PCCS
	NVIDIAOCSP string
	NVIDIARIM  string
}

// The vendors' own addresses.
const (
	kdsHost     = "kdsintf.amd.com"
	kds         = "https://" + kdsHost
	kdsDistance = 10 * time.Second // what AMD's service grants to one client
	pcs         = "https://api.trustedservices.intel.com"
	pcsRoot     = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"
	nvidiaOCSP  = "https://ocsp.ndis.nvidia.com"
	nvidiaRIM   = "https://rim.attestation.nvidia.com"
)

// NewVendors returns the three vendors' services. AMD's own is asked for
// certificates of chips no more than once in ten seconds.
func NewVendors(cfg Config, a Addresses) Vendors {
	or := func(s, otherwise string) string {
		if s == "" {
			return otherwise
		}
		return s
	}
	distance := map[string]time.Duration{kdsHost: kdsDistance}
	for host, d := range cfg.Distance {
		distance[host] = d
	}
	cfg.Distance = distance
	c := NewClient(cfg)
	intel := &Intel{Client: c, Base: or(a.Intel, pcs), Root: a.IntelRoot}
	if a.Intel == "" {
		intel.Root = or(a.IntelRoot, pcsRoot)
	}
	return Vendors{
		attestation.KindSNP: &AMD{Client: c, Base: or(a.AMD, kds)},
		attestation.KindTDX: intel,
		attestation.KindGPU: &NVIDIA{Client: c, OCSP: or(a.NVIDIAOCSP, nvidiaOCSP), RIM: or(a.NVIDIARIM, nvidiaRIM)},
	}
}

// Fetch returns have with all that is to be had for the items. The error names
// every document that is not, and comes with the set of the others.
func (v Vendors) Fetch(ctx context.Context, items []attestation.Item, have *attestation.Endorsements) (*attestation.Endorsements, error) {
	set, err := attestation.NewEndorsements(have.All()...)
	if err != nil {
		return nil, err
	}
	var errs []error
	for i, it := range items {
		if it.Kind == attestation.KindTPM {
			continue // vouched for by the CPU's evidence
		}
		s, ok := v[it.Kind]
		if !ok {
			errs = append(errs, fmt.Errorf("item %d: no vendor publishes documents for %s", i, it.Kind))
			continue
		}
		docs, err := s.Fetch(ctx, it, have)
		if err != nil {
			errs = append(errs, fmt.Errorf("item %d, %s: %w", i, it.Kind, err))
		}
		for _, d := range docs {
			if _, err := set.Add(d); err != nil {
				errs = append(errs, fmt.Errorf("item %d: %w", i, err))
			}
		}
	}
	return set, errors.Join(errs...)
}
