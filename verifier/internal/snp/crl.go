package snp

import (
	"crypto/x509"
	"math"
	"time"

	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/internal/check"
)

const crlAdvice = "fetch the current list from https://kdsintf.amd.com/vcek/v1/<product>/crl (vlek for a VLEK)"

// checkRevocation records the check "revocation": a list signed by the chain's
// root, in force at the judged time and young enough, and no such list names a
// certificate of the chain.
func checkRevocation(docs [][]byte, s *signer, p *policy.Policy, want *check.Expect, r *check.Recorder) {
	const name = "revocation"
	var lists []*x509.RevocationList
	stale := ""
	for _, der := range docs {
		l, err := x509.ParseRevocationList(der)
		if err != nil || l.SignatureAlgorithm != x509.SHA384WithRSAPSS || l.CheckSignatureFrom(s.ark) != nil {
			continue // of another product line, or nobody's
		}
		if why := outdated(l, p, want.At); why != "" {
			stale = why
			continue
		}
		lists = append(lists, l)
	}
	switch {
	case lists != nil:
	case stale != "":
		r.Fail(name, "a revocation list in force at "+stamp(want.At), stale, crlAdvice)
		return
	case want.AllowMissingCollateral:
		r.NotChecked(name, "no revocation list signed by this root was given")
		return
	default:
		r.Missing(name, "a revocation list signed by "+s.ark.Subject.CommonName, crlAdvice)
		return
	}
	newest := lists[0]
	for _, l := range lists {
		if why := revoked(l, s, want.At); why != "" {
			r.Fail(name, "no certificate of the chain is revoked", why, "this key can no longer be trusted: use another machine or newer firmware")
			return
		}
		if number(l) > number(newest) {
			newest = l
		}
	}
	r.Rely("amd-crl/"+s.ark.Subject.CommonName, number(newest))
	r.Pass(name, "list of "+stamp(newest.ThisUpdate)+", valid until "+stamp(newest.NextUpdate))
}

// revoked names the certificate below the root that l revokes, or "". AMD gives
// all chip certificates the serial number 0 and revokes chips by their TCB; an
// entry for 0 would refuse every chip of the line.
func revoked(l *x509.RevocationList, s *signer, at time.Time) string {
	for _, c := range []*x509.Certificate{s.ask, s.cert} {
		for _, e := range l.RevokedCertificateEntries {
			if c.SerialNumber.Cmp(e.SerialNumber) == 0 && !e.RevocationTime.After(at) {
				return c.Subject.CommonName + " revoked at " + stamp(e.RevocationTime)
			}
		}
	}
	return ""
}

// outdated says why l does not count at the judged time, or "".
func outdated(l *x509.RevocationList, p *policy.Policy, at time.Time) string {
	switch {
	case at.Before(l.ThisUpdate):
		return "list of " + stamp(l.ThisUpdate) + " is from later"
	case !at.Before(l.NextUpdate): // an absent nextUpdate is the zero time
		return "list of " + stamp(l.ThisUpdate) + " expired at " + stamp(l.NextUpdate)
	case p != nil && at.Sub(l.ThisUpdate) > p.Evidence.MaxCollateralAge.Duration():
		return "list of " + stamp(l.ThisUpdate) + " is older than the policy allows"
	}
	return ""
}

// number returns the CRL number (RFC 5280 5.2.3), 0 if there is none, saturated.
func number(l *x509.RevocationList) uint64 {
	switch {
	case l.Number == nil || l.Number.Sign() <= 0:
		return 0
	case !l.Number.IsUint64():
		return math.MaxUint64
	}
	return l.Number.Uint64()
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
