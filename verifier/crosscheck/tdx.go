package crosscheck

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/go-tdx-guest/abi"
	"github.com/google/go-tdx-guest/pcs"
	"github.com/google/go-tdx-guest/validate"
	"github.com/google/go-tdx-guest/verify"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/tdx"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/internal/check"
	ours "github.com/concordat/concordat/verifier/internal/tdx"
)

const libTDX = "go-tdx-guest v0.3.2-0.20260305110651-91f9a52f36c7"

// TDX asks go-tdx-guest about a TDX quote. The arguments are those of
// verifier.AppraiseItem, and refs of the item, which may be nil. Of several
// documents of collateral, one that the library accepts is enough: which of them
// counts is the own verifier's decision.
//
// Known gaps of that version, each pinned in TestTDXGaps. It passes what it
// should not:
//   - with a TDX 1.5 module (TEE_TCB_SVN[1] > 0) it takes the status of the
//     module alone: a platform that is OutOfDate or Revoked passes;
//   - it compares neither issue dates nor tcbEvaluationDataNumber: collateral of
//     the future, and collateral that was replaced, pass;
//   - it ignores bytes of any value after a quote.
//
// It cannot judge:
//   - attributes, measurements and report data of version 5 quotes: its package
//     validate refuses all of them and is not asked;
//   - a status other than UpToDate, whatever a policy accepts: the outcome is a
//     gap.
func TDX(raw []byte, ends *attestation.Endorsements, refs []attestation.Digest, p *policy.Policy, reportData []byte, at time.Time) Outcome {
	quiet()
	// The library parses by slicing: it gets only bytes whose form is known.
	q, err := tdx.Parse(raw)
	if err != nil {
		return refused(libTDX, err)
	}
	a := &tdxAsk{raw: raw, quote: q, at: at, validate: tdxOptions(q, p, reportData)}
	if a.roots, err = tdxRoots(q.Chain, p); err != nil {
		return refused(libTDX, err)
	}
	err = a.all(ends.ByType(attestation.TypeIntelCollateral, refs))
	var status *statusError
	switch {
	case errors.As(err, &status):
		return gap(libTDX, status.Error())
	case err != nil:
		return refused(libTDX, err)
	}
	return passed(libTDX)
}

// statusError is a refusal for the TCB status alone.
type statusError struct{ status pcs.TcbComponentStatus }

func (e *statusError) Error() string {
	return fmt.Sprintf("it accepts no TCB status but UpToDate, and found %s", e.status)
}

type tdxAsk struct {
	raw      []byte
	quote    *tdx.Quote
	at       time.Time
	roots    *x509.CertPool
	validate *validate.Options
}

// all tries every document; without any, signatures and chain alone.
func (a *tdxAsk) all(files [][]byte) error {
	if len(files) == 0 {
		return a.one(nil)
	}
	var err error
	for _, f := range files {
		var col *tdx.Collateral
		if col, err = tdx.ParseCollateral(f); err != nil {
			continue
		}
		if err = a.one(col); err == nil {
			return nil
		}
	}
	return err
}

// one makes one call with options of its own: the library keeps state in them.
func (a *tdxAsk) one(col *tdx.Collateral) error {
	quote, err := abi.QuoteToProto(slices.Clone(a.raw)) // the library appends to slices of it
	if err != nil {
		return err
	}
	o := &verify.Options{
		TrustedRoots: a.roots, // never nil: the library would use its own and say so on stdout
		Now:          &verify.TimeSet{PckCertChain: a.at, TcbInfo: a.at, QeIdentity: a.at, PckCrl: a.at, RootCaCrl: a.at},
		Getter:       &offline{col},
	}
	if col != nil {
		o.GetCollateral = true
		o.CheckRevocations = col.RootCRL != nil && col.PCKCRL != nil
	}
	if err := verify.TdxQuote(quote, o); err != nil {
		if col != nil && strings.Contains(err.Error(), "TCB status") {
			if level, _, e := verify.SupportedTcbLevelsFromCollateral(quote, o); e == nil && level.TcbStatus != pcs.TcbComponentStatusUpToDate {
				return &statusError{level.TcbStatus}
			}
		}
		return err
	}
	if a.quote.Version != tdx.V4 {
		return nil
	}
	return validate.TdxQuote(quote, a.validate)
}

// tdxOptions writes the policy in the library's terms. Of the sets of RTMRs it
// takes the one that has the quote's, else any, so that the library refuses.
func tdxOptions(q *tdx.Quote, p *policy.Policy, reportData []byte) *validate.Options {
	body := validate.TdQuoteBodyOptions{EnableTdDebugCheck: true}
	if len(reportData) > 0 {
		body.ReportData = reportData
	}
	o := &validate.Options{HeaderOptions: validate.HeaderOptions{QeVendorID: tdx.VendorIntel[:]}}
	if p != nil && p.Platforms.TDX != nil {
		ref := p.Platforms.TDX
		for _, m := range ref.MRTD {
			body.AnyMrTd = append(body.AnyMrTd, m)
		}
		for _, s := range ref.RTMRs {
			body.Rtmrs = [][]byte{s.RTMR0, s.RTMR1, s.RTMR2, q.Body.RTMR[3][:]}
			if bytes.Equal(s.RTMR0, q.Body.RTMR[0][:]) && bytes.Equal(s.RTMR1, q.Body.RTMR[1][:]) && bytes.Equal(s.RTMR2, q.Body.RTMR[2][:]) {
				break
			}
		}
		if fed := p.FederationID(); ref.MRConfigID || q.Body.MRConfigID != [48]byte{} {
			body.MrConfigID = append(fed[:], make([]byte, 16)...)
		}
		body.MrOwner, body.MrOwnerConfig = make([]byte, 48), make([]byte, 48)
	}
	o.TdQuoteBodyOptions = body
	return o
}

// tdxRoots returns the last certificate of the quote's chain, if it is an
// accepted root.
func tdxRoots(chain []byte, p *policy.Policy) (*x509.CertPool, error) {
	roots := ours.Roots()
	if p != nil && p.Simulated {
		roots = p.SimulatedRoots
	}
	var last *pem.Block
	for {
		p, rest := pem.Decode(chain)
		if p == nil {
			break
		}
		last, chain = p, rest
	}
	if last == nil {
		return nil, errors.New("no PCK chain in the quote")
	}
	root, err := x509.ParseCertificate(last.Bytes)
	if err != nil {
		return nil, fmt.Errorf("root: %w", err)
	}
	if !slices.Contains(roots, check.SPKI(root)) {
		return nil, fmt.Errorf("%.80q with key %s is not an accepted root", root.Subject.CommonName, check.SPKI(root).Short())
	}
	pool := x509.NewCertPool()
	pool.AddCert(root)
	return pool, nil
}

// offline answers the library's requests to Intel's service from collateral. The
// root's revocation list has whatever address the issuer's certificate names.
type offline struct{ col *tdx.Collateral }

func (g *offline) Get(address string) (map[string][]string, []byte, error) {
	c := g.col
	if c == nil {
		return nil, nil, errors.New("no collateral")
	}
	switch {
	case strings.Contains(address, "/tcb?fmspc="):
		return answer(pcs.TcbInfoIssuerChainPhrase, "tcbInfo", c.TCBInfo)
	case strings.HasSuffix(address, "/qe/identity"):
		return answer(pcs.SgxQeIdentityIssuerChainPhrase, "enclaveIdentity", c.QEIdentity)
	case strings.Contains(address, "/pckcrl?ca="):
		return map[string][]string{pcs.SgxPckCrlIssuerChainPhrase: {url.QueryEscape(string(c.PCKCRLChain))}}, c.PCKCRL, nil
	case strings.HasSuffix(address, ".der"):
		return nil, c.RootCRL, nil
	}
	return nil, nil, fmt.Errorf("unexpected request for %q", address)
}

// answer is a document as Intel's service sends it: the signed bytes unchanged
// inside the frame.
func answer(header, inner string, s *tdx.Signed) (map[string][]string, []byte, error) {
	if s == nil {
		return nil, nil, fmt.Errorf("no %s in the collateral", inner)
	}
	if !json.Valid(s.Doc) {
		return nil, nil, fmt.Errorf("%s is not JSON", inner)
	}
	body := fmt.Sprintf(`{"%s":%s,"signature":"%s"}`, inner, s.Doc, hex.EncodeToString(s.Signature[:]))
	return map[string][]string{header: {url.QueryEscape(string(s.Chain))}}, []byte(body), nil
}
