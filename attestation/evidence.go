package attestation

import (
	"context"
	"errors"
	"fmt"

	"github.com/concordat/concordat/internal/cose"
)

// Limits of an evidence envelope, checked before and after decoding.
const (
	MaxCPUItem  = 64 << 10 // bytes of one item that is not of a GPU
	MaxGPUItem  = 16 << 10 // bytes of one GPU item
	MaxEvidence = 1 << 20  // bytes of the encoded envelope
	MaxItems    = 32
	maxRefs     = 32 // endorsements that one item names
)

// Collector gets evidence from the machine that it runs on: CPU evidence whose
// report data is reportData, with the endorsements that it found beside it.
// Vendors throttle this; call it once a nonce window. Implementations are safe
// for concurrent use.
type Collector interface {
	Collect(ctx context.Context, reportData [64]byte) ([]Item, error)
}

// Item is one piece of evidence from one component.
type Item struct {
	_    struct{} `cbor:",toarray"`
	Kind Kind
	Raw  []byte // as the hardware gave it
	// Endorsements names the vendor documents that the attester suggests for
	// checking Raw, by [Endorsement.Digest]. A verifier may use newer ones.
	Endorsements []Digest
}

// Evidence is an envelope: claims, and the items that vouch for them.
type Evidence struct {
	Claims []byte // the exact bytes that were hashed into the report data
	Items  []Item // one of a CPU, then the GPUs in the order that the claims hash
}

const envelopeDomain = "concordat/envelope/1"

type envelope struct {
	_      struct{} `cbor:",toarray"`
	Domain string
	Claims []byte
	Items  []Item
}

// Encode returns the canonical bytes of e. It does not check the limits:
// [ParseEvidence] refuses what exceeds them.
func (e *Evidence) Encode() []byte {
	return cose.Marshal(envelope{Domain: envelopeDomain, Claims: e.Claims, Items: e.Items})
}

// Digest returns the SHA-256 of [Evidence.Encode]: what the log entry names.
func (e *Evidence) Digest() Digest { return cose.Sum(e.Encode()) }

// ParseEvidence decodes an envelope and checks its limits. It looks at neither
// claims nor items. Nothing of the result aliases b.
func ParseEvidence(b []byte) (*Evidence, error) {
	if len(b) > MaxEvidence {
		return nil, fmt.Errorf("evidence: %d bytes, limit %d", len(b), MaxEvidence)
	}
	var w envelope
	if err := cose.Unmarshal(b, &w); err != nil {
		return nil, fmt.Errorf("evidence: %w", err)
	}
	if w.Domain != envelopeDomain {
		return nil, fmt.Errorf("evidence: domain %.40q, want %q", w.Domain, envelopeDomain)
	}
	e := &Evidence{Claims: w.Claims, Items: w.Items}
	if err := e.checkLimits(); err != nil {
		return nil, fmt.Errorf("evidence: %w", err)
	}
	return e, nil
}

func (e *Evidence) checkLimits() error {
	switch {
	case len(e.Claims) == 0 || len(e.Claims) > MaxClaims:
		return fmt.Errorf("claims of %d bytes, limit %d", len(e.Claims), MaxClaims)
	case len(e.Items) == 0:
		return errors.New("no items")
	case len(e.Items) > MaxItems:
		return fmt.Errorf("%d items, limit %d", len(e.Items), MaxItems)
	}
	for i, it := range e.Items {
		if err := it.checkLimits(); err != nil {
			return fmt.Errorf("item %d: %w", i, err)
		}
	}
	return nil
}

func (it *Item) checkLimits() error {
	limit := MaxCPUItem
	switch it.Kind {
	case KindSNP, KindTDX, KindTPM:
	case KindGPU:
		limit = MaxGPUItem
	default:
		return fmt.Errorf("unknown kind %.40q", string(it.Kind))
	}
	if len(it.Raw) == 0 || len(it.Raw) > limit {
		return fmt.Errorf("%s of %d bytes, limit %d", it.Kind, len(it.Raw), limit)
	}
	if len(it.Endorsements) > maxRefs {
		return fmt.Errorf("%s names %d endorsements, limit %d", it.Kind, len(it.Endorsements), maxRefs)
	}
	for _, d := range it.Endorsements {
		if d.IsZero() {
			return fmt.Errorf("%s names endorsement none", it.Kind)
		}
	}
	return nil
}
