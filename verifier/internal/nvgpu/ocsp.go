package nvgpu

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/internal/check"
)

// maxResponses bounds the responses about one certificate whose signatures are
// checked, two P-384 verifications each.
const maxResponses = 8

// checkRevocation demands for every certificate between leaf and root a stapled
// OCSP response (RFC 6960) that is in force at the judged time and says good. The
// leaf has none: the device makes it at boot. An authentic response that says
// revoked, on hold included, decides whatever else is there. There is no nonce:
// freshness is the response's own window, and the policy's collateral age.
func checkRevocation(chain []*x509.Certificate, docs [][]byte, p *policy.Policy, want *check.Expect, r *check.Recorder) {
	const name = "revocation"
	var maxAge time.Duration
	if p != nil {
		maxAge = p.Evidence.MaxCollateralAge.Duration()
	}
	var missing, seen []string
	for i := device; i < root; i++ {
		subject := chain[i].Subject.CommonName
		best, err := status(chain[i], chain[i+1], docs, want)
		switch {
		case err != nil:
			r.Fail(name, "no certificate revoked", fmt.Sprintf("%q: %v", subject, err), "do not use this GPU")
			return
		case best == nil:
			missing = append(missing, fmt.Sprintf("%q", subject))
			continue
		}
		if err := fresh(best, want.At, maxAge, p != nil); err != nil {
			r.Fail(name, "a response in force at the judged time", fmt.Sprintf("%q: %v", subject, err), "staple fresh responses of ocsp.ndis.nvidia.com")
			return
		}
		seen = append(seen, best.ThisUpdate.UTC().Format(time.RFC3339))
	}
	switch {
	case len(missing) == 0:
		r.Pass(name, "good as of "+slices.Min(seen))
	case want.AllowMissingCollateral && p == nil:
		r.NotChecked(name, "no OCSP response for "+strings.Join(missing, ", "))
	default:
		r.Missing(name, "an OCSP response for "+strings.Join(missing, ", "), "staple responses of ocsp.ndis.nvidia.com")
	}
}

// status returns the newest authentic response about cert, or nil if there is
// none, and an error if one of them says that cert was revoked at the judged time
// or is not known to its issuer. Documents that are no authentic response about
// cert are ignored: anyone may put them into the set.
func status(cert, issuer *x509.Certificate, docs [][]byte, want *check.Expect) (*ocsp.Response, error) {
	var best *ocsp.Response
	serial := cert.SerialNumber.Bytes()
	tried := 0
	for _, d := range docs {
		if tried == maxResponses || !bytes.Contains(d, serial) { // cheap, before any signature
			continue
		}
		tried++
		resp, err := ocsp.ParseResponseForCert(d, cert, issuer)
		if err != nil || delegated(resp, want) != nil {
			continue
		}
		switch resp.Status {
		case ocsp.Good:
			if !resp.ThisUpdate.After(want.At) && (best == nil || resp.ThisUpdate.After(best.ThisUpdate)) {
				best = resp
			}
		case ocsp.Revoked:
			if !resp.RevokedAt.After(want.At) {
				return nil, fmt.Errorf("revoked at %s (%s)", resp.RevokedAt.UTC().Format(time.RFC3339), reason(resp.RevocationReason))
			}
		default:
			return nil, errors.New("unknown to its issuer's responder")
		}
	}
	return best, nil
}

// delegated says why the certificate embedded in resp, which issuer signed, may
// not answer for issuer (RFC 6960 4.2.2.2). A response without one was signed by
// the issuer itself.
func delegated(resp *ocsp.Response, want *check.Expect) error {
	c := resp.Certificate
	if c == nil {
		return nil
	}
	if !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning) {
		return errors.New("the responder's certificate is not for OCSP signing")
	}
	if want.At.Before(c.NotBefore) || want.At.After(c.NotAfter) {
		return errors.New("the responder's certificate is not valid at the judged time")
	}
	return check.CheckMark(c, want.Simulated)
}

// fresh says why a response is not in force at at.
func fresh(resp *ocsp.Response, at time.Time, maxAge time.Duration, bounded bool) error {
	this := resp.ThisUpdate.UTC().Format(time.RFC3339)
	switch {
	case resp.NextUpdate.IsZero() && !bounded:
		return fmt.Errorf("response of %s without an end", this)
	case !resp.NextUpdate.IsZero() && !at.Before(resp.NextUpdate):
		return fmt.Errorf("response of %s ended at %s", this, resp.NextUpdate.UTC().Format(time.RFC3339))
	case bounded && at.Sub(resp.ThisUpdate) > maxAge:
		return fmt.Errorf("response of %s is older than the policy's %s", this, maxAge)
	}
	return nil
}

// reason names a revocation reason as RFC 5280 5.3.1 does.
func reason(code int) string {
	names := map[int]string{
		ocsp.Unspecified: "unspecified", ocsp.KeyCompromise: "key compromise", ocsp.CACompromise: "CA compromise",
		ocsp.AffiliationChanged: "affiliation changed", ocsp.Superseded: "superseded", ocsp.CessationOfOperation: "cessation of operation",
		ocsp.CertificateHold: "certificate hold", ocsp.RemoveFromCRL: "remove from CRL", ocsp.PrivilegeWithdrawn: "privilege withdrawn",
		ocsp.AACompromise: "AA compromise",
	}
	if n, ok := names[code]; ok {
		return n
	}
	return fmt.Sprintf("reason %d", code)
}
