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

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/verifier/internal/check"
)

// maxResponses bounds the responses about one certificate whose signatures are
// checked, two P-384 verifications each.
const maxResponses = 8

// checkRevocation demands for every certificate between leaf and root a stapled
// OCSP response (RFC 6960) that is in force at the judged time and says good. The
// leaf has none: the device makes it at boot. A device on hold is as good as
// revoked.
func (s *Set) checkRevocation(d *device) {
	const name = "revocation"
	s.recordRevocation(name, s.revocation(d.chain[own:], false, d), "do not use this GPU", d)
}

// standing is what stapled OCSP responses say about the certificates of a chain.
type standing struct {
	err     error    // one is revoked, or what is said of it is stale
	stale   bool     // err is about age alone
	missing []string // of which nothing is said
	oldest  string   // thisUpdate of the oldest response
	held    []string // on hold, where that is accepted
}

// revocation judges every certificate of chain but the last, its root. An
// authentic response that says revoked decides whatever else is there. There is no
// nonce: freshness is the response's own window, and the policy's age.
func (s *Set) revocation(chain []*x509.Certificate, allowHold bool, d *device) standing {
	var st standing
	for i := range len(chain) - 1 {
		subject := fmt.Sprintf("%q", chain[i].Subject.CommonName)
		one, ok := s.status[string(chain[i].Raw)]
		if !ok {
			one = status(chain[i], chain[i+1], s.ends.ByType(attestation.TypeNVIDIAOCSP, d.refs), &d.want)
			s.status[string(chain[i].Raw)] = one
		}
		switch {
		case one.err != nil:
			st.err = fmt.Errorf("%s: %w", subject, one.err)
			return st
		case one.hold != nil && !allowHold:
			st.err = fmt.Errorf("%s: %s", subject, revoked(one.hold))
			return st
		case one.hold != nil && (one.good == nil || !one.good.ThisUpdate.After(one.hold.ThisUpdate)):
			one.good = one.hold
			st.held = append(st.held, subject)
		case one.good == nil:
			st.missing = append(st.missing, subject)
			continue
		}
		if err := s.fresh(one.good, d.want.At); err != nil {
			st.err, st.stale = fmt.Errorf("%s: %w", subject, err), true
			return st
		}
		if this := one.good.ThisUpdate.UTC().Format(time.RFC3339); st.oldest == "" || this < st.oldest {
			st.oldest = this
		}
	}
	return st
}

// recordRevocation records st under name.
func (s *Set) recordRevocation(name string, st standing, advice string, d *device) {
	const source = "responses of ocsp.ndis.nvidia.com"
	switch {
	case st.stale:
		d.r.Fail(name, "a response in force at the judged time", st.err.Error(), "staple fresh "+source)
	case st.err != nil:
		d.r.Fail(name, "no certificate revoked", st.err.Error(), advice)
	case len(st.missing) == 0 && len(st.held) > 0:
		d.r.Pass(name, fmt.Sprintf("as of %s; on hold, which the policy accepts: %s", st.oldest, strings.Join(st.held, ", ")))
	case len(st.missing) == 0:
		d.r.Pass(name, "good as of "+st.oldest)
	case d.want.AllowMissingCollateral && s.p == nil:
		d.r.NotChecked(name, "no OCSP response for "+strings.Join(st.missing, ", "))
	default:
		d.r.Missing(name, "an OCSP response for "+strings.Join(st.missing, ", "), "staple "+source)
	}
}

// certStatus is what authentic responses say about one certificate.
type certStatus struct {
	good *ocsp.Response // the newest that says good
	hold *ocsp.Response // the newest that says on hold
	err  error          // one says revoked for another reason, or unknown
}

// status reads the responses about cert. Documents that are no authentic response
// about cert are ignored: anyone may put them into the set.
func status(cert, issuer *x509.Certificate, docs [][]byte, want *check.Expect) certStatus {
	var st certStatus
	serial := cert.SerialNumber.Bytes()
	tried := 0
	for _, d := range docs {
		if tried == maxResponses || !bytes.Contains(d, serial) { // cheap, before any signature
			continue
		}
		tried++
		resp, err := respond(d, cert, issuer)
		if err != nil || delegated(resp, want) != nil {
			continue
		}
		newest := &st.good
		switch {
		case resp.Status == ocsp.Good:
		case resp.Status != ocsp.Revoked:
			return certStatus{err: errors.New("unknown to its issuer's responder")}
		case resp.RevokedAt.After(want.At):
			continue
		case resp.RevocationReason == ocsp.CertificateHold:
			newest = &st.hold
		default:
			return certStatus{err: errors.New(revoked(resp))}
		}
		if !resp.ThisUpdate.After(want.At) && (*newest == nil || resp.ThisUpdate.After((*newest).ThisUpdate)) {
			*newest = resp
		}
	}
	return st
}

// responses remembers responses that their certificates' issuers signed: a few for each GPU
// of a fleet, and those of the CAs above them. A stranger can be an issuer, of a chain that
// reaches no accepted root: so what one response may take is bounded too.
var responses = check.NewMemory[*ocsp.Response](1 << 10)

// maxRemembered is above the size of NVIDIA's responses, which have some 2 KB.
const maxRemembered = 8 << 10

// respond is [ocsp.ParseResponseForCert]. What it returns is shared.
func respond(doc []byte, cert, issuer *x509.Certificate) (*ocsp.Response, error) {
	key := check.Key(doc, cert.Raw, issuer.Raw)
	if r, ok := responses.Get(key); ok {
		return r, nil
	}
	r, err := ocsp.ParseResponseForCert(doc, cert, issuer)
	if err == nil && len(doc) <= maxRemembered {
		responses.Put(key, r)
	}
	return r, err
}

func revoked(resp *ocsp.Response) string {
	return fmt.Sprintf("revoked at %s (%s)", resp.RevokedAt.UTC().Format(time.RFC3339), reason(resp.RevocationReason))
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
func (s *Set) fresh(resp *ocsp.Response, at time.Time) error {
	this := resp.ThisUpdate.UTC().Format(time.RFC3339)
	switch {
	case resp.NextUpdate.IsZero() && s.p == nil:
		return fmt.Errorf("response of %s without an end", this)
	case !resp.NextUpdate.IsZero() && !at.Before(resp.NextUpdate):
		return fmt.Errorf("response of %s ended at %s", this, resp.NextUpdate.UTC().Format(time.RFC3339))
	case s.p != nil && at.Sub(resp.ThisUpdate) > s.p.OCSPAge().Duration():
		return fmt.Errorf("response of %s is older than the policy's %s", this, s.p.OCSPAge().Duration())
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
