package tdx

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/tdx"
	"github.com/concordat/concordat/verifier/internal/check"
)

// maxCandidates bounds the collateral documents that one appraisal looks into:
// an attester may send many.
const maxCandidates = 16

// documents are the parsed parts of the collateral that is judged by.
type documents struct {
	*tdx.Collateral
	tcb       *tdx.TCBInfo
	tcbSigner *x509.Certificate
	tcbErr    error // why tcb does not count
	qeSigner  *x509.Certificate
	qeErr     error // why the QE identity does not count
}

var collateralChecks = []string{"root-crl", "pck-crl", "revocation", "tcb-info", "tcb-info-window", "tcb-info-platform", "qe-identity", "qe-identity-window",
	"evaluation", "qe-report", "tdx-module", "tcb-status"}

// collateral judges the platform by what Intel publishes about it.
func (j *judge) collateral(ends *attestation.Endorsements, refs []attestation.Digest) {
	docs, err := j.choose(ends.ByType(attestation.TypeIntelCollateral, refs))
	switch {
	case err != nil:
		j.r.Fail("collateral", "Intel's TCB info, QE identity and revocation lists", err.Error(), "give the collateral as the JSON form of Intel's quote verification tools")
		j.skip("no collateral that can be read", collateralChecks...)
		return
	case docs == nil:
		family := ""
		if j.sgx != nil {
			family = fmt.Sprintf(" for FMSPC %x", j.sgx.FMSPC)
		}
		j.r.Missing("collateral", "Intel's TCB info, QE identity and revocation lists"+family, "without it nobody can say whether the platform's firmware is sound: fetch it from Intel's PCS or a cache of it")
		j.skip("no collateral", collateralChecks...)
		return
	}
	j.r.Pass("collateral", "")
	if docs.QEIdentity != nil {
		docs.qeSigner, docs.qeErr = j.signed(docs.QEIdentity)
	}
	j.revocation(docs)
	tcb := j.tcbInfo(docs)
	qe := j.qeIdentity(docs)
	j.evaluation(tcb, qe)
	j.tcbStatus(tcb, qe)
}

// choose picks the collateral to judge by: of this platform's family, the newest
// that Intel signed and that is in force. Where none is, it returns the best of
// the others, so that the checks can say what is wrong with it. The numbers that
// it sorts by are not authenticated yet, but a document that Intel did not sign
// never wins against one that it did.
func (j *judge) choose(files [][]byte) (*documents, error) {
	var all []*documents
	var firstErr error
	for _, f := range files[:min(len(files), maxCandidates)] {
		c, err := tdx.ParseCollateral(f)
		if err != nil {
			firstErr = cmp.Or(firstErr, err)
			continue
		}
		d := &documents{Collateral: c}
		if c.TCBInfo != nil {
			d.tcb, d.tcbErr = tdx.ParseTCBInfo(c.TCBInfo.Doc)
		}
		all = append(all, d)
	}
	if len(all) == 0 {
		return nil, firstErr
	}
	slices.SortStableFunc(all, func(a, b *documents) int {
		if m, n := j.family(a), j.family(b); m != n || !m {
			return cmp.Compare(btoi(n), btoi(m))
		}
		return cmp.Or(cmp.Compare(b.tcb.Evaluation, a.tcb.Evaluation), b.tcb.IssueDate.Compare(a.tcb.IssueDate))
	})
	for _, d := range all {
		if d.tcb == nil {
			continue
		}
		d.tcbSigner, d.tcbErr = j.signed(d.TCBInfo)
		if d.tcbErr == nil && j.family(d) && window(d.tcb.IssueDate, d.tcb.NextUpdate, j.want.At) == "" {
			return d, nil
		}
	}
	return all[0], nil
}

// family reports whether d's TCB info is of the quote's platform family.
func (j *judge) family(d *documents) bool {
	return d.tcb != nil && j.sgx != nil && bytes.Equal(d.tcb.FMSPC, j.sgx.FMSPC[:]) && bytes.Equal(d.tcb.PCEID, j.sgx.PCEID[:])
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// signed checks that a TCB signing certificate under an accepted root signed s,
// and returns it. Whether the certificate is in force, it does not say.
func (j *judge) signed(s *tdx.Signed) (*x509.Certificate, error) {
	certs, err := j.parsed.pem(s.Chain, 2)
	if err != nil {
		return nil, fmt.Errorf("issuer chain: %w", err)
	}
	if err := j.trusted(named{certs[1], nameRoot}, named{certs[0], nameSigner}); err != nil {
		return nil, fmt.Errorf("issuer chain: %w", err)
	}
	err = check.Signed(append(s.Signature[:], s.Doc...), certs[0], func() error {
		if !verify(certs[0].PublicKey, s.Doc, s.Signature) {
			return fmt.Errorf("the signature of %q does not fit the document", nameSigner)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return certs[0], nil
}

const fetchAgain = "fetch the collateral again from Intel's PCS, and keep its bytes as they are"

func (j *judge) tcbInfo(d *documents) *tdx.TCBInfo {
	rest := []string{"tcb-info-window", "tcb-info-platform"}
	switch {
	case d.TCBInfo == nil:
		j.r.Missing("tcb-info", "TCB info signed by Intel", fetchAgain)
		j.skip("no TCB info", rest...)
		return nil
	case d.tcbErr != nil:
		j.r.Fail("tcb-info", "TCB info signed by Intel", d.tcbErr.Error(), fetchAgain)
		j.skip("no TCB info that counts", rest...)
		return nil
	}
	t := d.tcb
	j.r.Pass("tcb-info", fmt.Sprintf("evaluation %d of %s", t.Evaluation, day(t.IssueDate)))
	ok := j.inForce("tcb-info-window", t.IssueDate, t.NextUpdate, d.tcbSigner)
	if j.sgx == nil {
		j.skip("the platform is not known", "tcb-info-platform")
		return nil
	}
	if !j.r.That(j.family(d), "tcb-info-platform", fmt.Sprintf("FMSPC %x, PCEID %x", j.sgx.FMSPC, j.sgx.PCEID), fmt.Sprintf("FMSPC %x, PCEID %x", t.FMSPC, t.PCEID), "this collateral is for another family of platforms: fetch it for this FMSPC") {
		return nil
	}
	if ok {
		j.r.Rely(fmt.Sprintf("intel-tcb/%x", t.FMSPC), t.Evaluation)
	}
	return t
}

func (j *judge) qeIdentity(d *documents) *tdx.QEIdentity {
	if d.QEIdentity == nil {
		j.r.Missing("qe-identity", "QE identity signed by Intel", fetchAgain)
		j.skip("no QE identity", "qe-identity-window")
		return nil
	}
	var q *tdx.QEIdentity
	err := d.qeErr
	if err == nil {
		q, err = tdx.ParseQEIdentity(d.QEIdentity.Doc)
	}
	if err != nil {
		j.r.Fail("qe-identity", "QE identity signed by Intel", err.Error(), fetchAgain)
		j.skip("no QE identity that counts", "qe-identity-window")
		return nil
	}
	j.r.Pass("qe-identity", fmt.Sprintf("evaluation %d of %s", q.Evaluation, day(q.IssueDate)))
	if j.inForce("qe-identity-window", q.IssueDate, q.NextUpdate, d.qeSigner) {
		j.r.Rely("intel-qe/"+q.ID, q.Evaluation)
	}
	return q
}

// inForce checks a document's own dates, its age, and its signer's dates.
func (j *judge) inForce(name string, issued, next time.Time, signer *x509.Certificate) bool {
	bad := or(window(issued, next, j.want.At), lifetime(j.want.At, signer))
	return j.r.That(bad == "" && j.young(issued), name, "in force at "+stamp(j.want.At)+j.ageText(), or(bad, fmt.Sprintf("%s to %s", stamp(issued), stamp(next))),
		"fetch the collateral again: Intel issues it for 30 days")
}

// young reports whether something issued then is recent enough for the policy.
func (j *judge) young(issued time.Time) bool {
	return j.policy == nil || j.want.At.Sub(issued) <= j.policy.Evidence.MaxCollateralAge.Duration()
}

func (j *judge) ageText() string {
	if j.policy == nil {
		return ""
	}
	return fmt.Sprintf(", at most %s old", j.policy.Evidence.MaxCollateralAge.Duration())
}

// evaluation refuses collateral that Intel still calls valid but has replaced:
// within its 30 days an old TCB info would hide a TCB recovery.
func (j *judge) evaluation(t *tdx.TCBInfo, q *tdx.QEIdentity) {
	if t == nil || q == nil {
		j.skip("no collateral that counts", "evaluation")
		return
	}
	got := fmt.Sprintf("TCB info %d, QE identity %d", t.Evaluation, q.Evaluation)
	if j.tdx == nil {
		j.r.NotChecked("evaluation", "no policy sets a smallest tcbEvaluationDataNumber; here: "+got)
		return
	}
	least := j.tdx.MinEvaluation
	j.r.That(t.Evaluation >= least && q.Evaluation >= least, "evaluation", fmt.Sprintf("at least %d", least), got, "newer collateral exists: fetch it again (update=early names the newest)")
}

// revocation checks both lists. The root's list is issued once a year, so the
// policy's age limit, which is about the monthly documents, leaves it out.
func (j *judge) revocation(d *documents) {
	if !j.genuine {
		j.skip("no PCK chain that counts", "root-crl", "pck-crl", "revocation")
		return
	}
	root := j.list("root-crl", d.RootCRL, j.pck.root, false)
	pck := j.list("pck-crl", d.PCKCRL, j.pck.ca, true)
	var bad []string
	look := func(l *x509.RevocationList, c *x509.Certificate) {
		if l == nil || c == nil {
			return
		}
		for _, e := range l.RevokedCertificateEntries {
			if e.SerialNumber.Cmp(c.SerialNumber) == 0 {
				bad = append(bad, fmt.Sprintf("%q %x was revoked on %s (reason %d)", c.Subject.CommonName, c.SerialNumber, day(e.RevocationTime), e.ReasonCode))
			}
		}
	}
	look(root, j.pck.ca)
	look(root, d.tcbSigner)
	if d.qeSigner != nil && !d.qeSigner.Equal(d.tcbSigner) {
		look(root, d.qeSigner)
	}
	look(pck, j.pck.leaf)
	switch {
	case len(bad) > 0:
		j.r.Fail("revocation", "no certificate revoked", strings.Join(bad, "; "), "Intel withdrew this key: nothing that it signed can be trusted")
	case root == nil || pck == nil:
		j.skip("a revocation list is missing or does not count", "revocation")
	default:
		j.r.Pass("revocation", "neither the PCK certificate, nor its CA, nor the TCB signer")
	}
}

// list reads a revocation list of issuer; nil if it does not count.
func (j *judge) list(name string, der []byte, issuer *x509.Certificate, aged bool) *x509.RevocationList {
	expected := fmt.Sprintf("a list of %q in force at %s", issuer.Subject.CommonName, stamp(j.want.At))
	if der == nil {
		if j.want.AllowMissingCollateral {
			j.r.NotChecked(name, "no revocation list was given: a revoked certificate would not be noticed")
		} else {
			j.r.Missing(name, expected, fetchAgain)
		}
		return nil
	}
	l, err := x509.ParseRevocationList(der)
	if err == nil && !bytes.Equal(l.RawIssuer, issuer.RawSubject) {
		err = fmt.Errorf("issued by %.80q", l.Issuer.CommonName)
	}
	if err == nil {
		err = check.Signed(l.Raw, issuer, func() error { return l.CheckSignatureFrom(issuer) })
	}
	if err != nil {
		j.r.Fail(name, expected, err.Error(), fetchAgain)
		return nil
	}
	bad := window(l.ThisUpdate, l.NextUpdate, j.want.At)
	if !j.r.That(bad == "" && (!aged || j.young(l.ThisUpdate)), name, expected, or(bad, fmt.Sprintf("number %v, %s to %s", l.Number, stamp(l.ThisUpdate), stamp(l.NextUpdate))), fetchAgain) {
		return l // a revocation in a list of another time is still one
	}
	if l.Number != nil && l.Number.IsUint64() {
		j.r.Rely("intel-crl/"+issuer.Subject.CommonName, l.Number.Uint64())
	}
	return l
}
