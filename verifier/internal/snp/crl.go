package snp

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/concordat/concordat/attestation/snp"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/internal/check"
)

// checkRevocation records the check "revocation": a list signed by the chain's
// root, in force at the judged time and young enough, and no list of that root,
// whatever its age, names a certificate of the chain. AMD publishes one list for
// VCEKs and one for VLEKs; they say nothing of which they are, so that each
// counts for both.
func checkRevocation(docs [][]byte, s *signer, key snp.SigningKey, product snp.Product, p *policy.Policy, want *check.Expect, r *check.Recorder) {
	const name = "revocation"
	advice := "fetch the current list from " + product.CRLURL(key)
	var newest *x509.RevocationList
	unfit := ""
	for _, der := range docs {
		l, err := parseList(der, s.ark)
		if err != nil {
			continue // of another product line, or nobody's
		}
		if why := revoked(l, s, want.At); why != "" {
			r.Fail(name, "no certificate of the chain is revoked", why,
				"AMD no longer stands by this key: do not send data; use another machine, or newer firmware, which has another key")
			return
		}
		if why := outdated(l, p, want.At); why != "" {
			unfit = why
		} else if newest == nil || number(l) > number(newest) {
			newest = l
		}
	}
	switch {
	case newest != nil:
		r.Rely("amd-crl/"+s.ark.Subject.CommonName, number(newest))
		r.Pass(name, "list of "+stamp(newest.ThisUpdate)+", valid until "+stamp(newest.NextUpdate))
	case unfit != "":
		r.Fail(name, "a revocation list in force at "+stamp(want.At), unfit, advice)
	case want.AllowMissingCollateral:
		r.NotChecked(name, "no revocation list signed by this root was given")
	default:
		r.Missing(name, "a revocation list signed by "+s.ark.Subject.CommonName, advice)
	}
}

// goodLists remembers the lists of accepted roots, for a few product lines and months.
var goodLists = check.NewMemory[*x509.RevocationList](32)

// parseList reads a revocation list that ark signed. It refuses critical
// extensions, of the list and of its entries: they narrow what a list speaks for
// (RFC 5280, 5.2.4 and 5.2.5), and whose certificates an entry is about (5.3.3).
// What it returns is shared.
func parseList(der []byte, ark *x509.Certificate) (*x509.RevocationList, error) {
	key := check.Key(der, ark.Raw)
	if l, ok := goodLists.Get(key); ok {
		return l, nil
	}
	l, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, err
	}
	critical := func(e pkix.Extension) bool { return e.Critical }
	entry := func(e x509.RevocationListEntry) bool { return slices.ContainsFunc(e.Extensions, critical) }
	if l.SignatureAlgorithm != x509.SHA384WithRSAPSS || !bytes.Equal(l.RawIssuer, ark.RawSubject) ||
		slices.ContainsFunc(l.Extensions, critical) || slices.ContainsFunc(l.RevokedCertificateEntries, entry) {
		return nil, errors.New("not a full list of this root")
	}
	if err := l.CheckSignatureFrom(ark); err != nil {
		return nil, err
	}
	goodLists.Put(key, l)
	return l, nil
}

// revoked names the certificate below the root that l revokes, or "". AMD gives
// all VCEKs and VLEKs the serial number 0 and revokes chips by their TCB; an
// entry for 0 would refuse every chip of the line.
func revoked(l *x509.RevocationList, s *signer, at time.Time) string {
	for _, c := range []*x509.Certificate{s.ask, s.cert} {
		for _, e := range l.RevokedCertificateEntries {
			if c.SerialNumber.Cmp(e.SerialNumber) == 0 && !e.RevocationTime.After(at) {
				return c.Subject.CommonName + " (serial " + c.SerialNumber.String() + ") revoked at " + stamp(e.RevocationTime)
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
	case l.NextUpdate.IsZero():
		return "list of " + stamp(l.ThisUpdate) + " does not say until when it is valid"
	case !at.Before(l.NextUpdate):
		return "list of " + stamp(l.ThisUpdate) + " expired at " + stamp(l.NextUpdate)
	case p != nil && at.Sub(l.ThisUpdate) > p.Evidence.MaxCollateralAge.Duration():
		return "list of " + stamp(l.ThisUpdate) + " is older than the policy allows (" + p.Evidence.MaxCollateralAge.Duration().String() + ")"
	}
	return ""
}

// number returns the CRL number (RFC 5280, 5.2.3), 0 if there is none, saturated.
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
