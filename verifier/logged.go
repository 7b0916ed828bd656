package verifier

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/receipt"
)

// AppraiseLogged says whether an evidence statement of the log counts: whether its
// envelope, which blob fetches with its endorsements by digest, passes under the
// policy version that the claims name. An epoch belongs to the first instance whose
// evidence counts; statements that do not are void, so that nobody stops a log by
// claiming epochs. There is no challenge of one's own in it: it makes no
// [Passed]. What blob returns is checked.
func AppraiseLogged(ctx context.Context, u *receipt.Unverified, chain *policy.Chain, blob func(context.Context, cose.Digest) ([]byte, error), at time.Time) error {
	claims, err := receipt.SelfSigned(u)
	if err != nil {
		return err
	}
	p := chain.At(claims.PolicyVersion)
	if p == nil || p.Digest() != claims.Policy {
		return fmt.Errorf("claims name policy version %d, which is not in the chain", claims.PolicyVersion)
	}
	raw, err := blob(ctx, u.Envelope())
	if err != nil {
		return err
	}
	e, err := attestation.ParseEvidence(raw)
	if err != nil {
		return err
	}
	if e.Digest() != u.Envelope() || !bytes.Equal(e.Claims, u.Claims()) {
		return errors.New("the envelope is not the one that the statement names, or has other claims")
	}
	ends := new(attestation.Endorsements)
	for _, it := range e.Items {
		for _, d := range it.Endorsements {
			b, err := blob(ctx, d)
			if err != nil {
				return err
			}
			doc, err := attestation.ParseEndorsement(b)
			if err != nil {
				return err
			}
			if _, err := ends.Add(doc); err != nil {
				return err
			}
		}
	}
	r, err := Appraise(e, ends, p, nil, at)
	if err != nil {
		return err
	}
	if v := r.Verdict(); v != Pass && v != PassSimulated {
		return fmt.Errorf("the evidence does not pass: %s: %s", v, r.obstacle(v))
	}
	return nil
}
