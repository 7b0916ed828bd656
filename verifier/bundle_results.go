package verifier

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/verifier/receipt"
)

// ResultReport is an attestation result that a node kept, appraised again from the
// evidence in a bundle.
type ResultReport struct {
	Result   cose.Digest        `json:"result"` // SHA-256 of the file
	Node     cose.Digest        `json:"node"`
	Member   string             `json:"member,omitempty"`
	Evidence attestation.Digest `json:"evidence"`
	JudgedAt time.Time          `json:"judged_at,omitzero"` // by the node's clock
	Found    string             `json:"found,omitempty"`    // the node's verdict
	Same     bool               `json:"same"`               // this verifier's result is the same, byte for byte
}

// finishResults judges the results that came beside the bundle.
func (a *audit) finishResults(results [][]byte) {
	for i, raw := range results {
		name := fmt.Sprintf("result[%d]", i)
		rep := ResultReport{Result: cose.Sum(raw)}
		err := a.judgeResult(raw, &rep)
		var none missingError
		switch {
		case errors.As(err, &none):
			a.missing(name, string(none), "give a bundle of a run that this result is about")
		case err != nil:
			a.fail(name, "a node's result that appraising again gives, byte for byte", err.Error())
		default:
			rep.Same = true
			a.pass(name, "node %s of %s found %s as of %s; appraised again, the same byte for byte", rep.Node.Short(), rep.Member, rep.Found, rep.JudgedAt.Format(timeForm))
		}
		a.report.Results = append(a.report.Results, rep)
	}
}

// judgeResult demands that a node of the federation signed raw, and that its appraisal
// can be repeated.
func (a *audit) judgeResult(raw []byte, rep *ResultReport) error {
	m, err := cose.Parse(raw)
	if err != nil {
		return err
	}
	for k := range a.blobs {
		if k.role == receipt.RoleCredential && receipt.NodeIssuer(k.subject) == m.Header.Issuer {
			rep.Node = k.subject
		}
	}
	if rep.Node.IsZero() {
		return missingError(fmt.Sprintf("the credential of the result's issuer %.80q", m.Header.Issuer))
	}
	// Who may vouch for the key, and since when, the signed time says: so the payload is
	// read before its signature is checked, and believed after that.
	said, err := ParseEAR(m.Payload)
	if err != nil {
		return err
	}
	p := a.policyBy(said.Concordat.Policy)
	if p == nil {
		return fmt.Errorf("it judges by policy %s, which is not in the chain", said.Concordat.Policy.Short())
	}
	c, member, err := p.VerifyCredential(a.blobs[blobKey{receipt.RoleCredential, rep.Node}], said.Time())
	if err != nil {
		return err
	}
	if c.NodeID() != rep.Node {
		return fmt.Errorf("the credential is of node %s", c.NodeID().Short())
	}
	e, payload, err := OpenEAR(raw, c.NodeKey)
	if err != nil {
		return err
	}
	rep.Member, rep.Evidence, rep.JudgedAt, rep.Found = string(member), e.Concordat.Evidence, e.Time(), e.Concordat.Verdict
	if ch := e.Concordat.Challenge; ch == nil || ch.Node != rep.Node {
		return errors.New("it answers no challenge of the node that signed it")
	}
	envelope := a.blobs[blobKey{receipt.RoleEvidence, e.Concordat.Evidence}]
	if envelope == nil {
		return missingError("evidence " + e.Concordat.Evidence.Short())
	}
	evidence, err := attestation.ParseEvidence(envelope)
	if err != nil {
		return err
	}
	again, err := Appraise(evidence, a.endorsementsOf(evidence, nil), p, e.Concordat.Challenge.Proof(), e.Time())
	if err != nil {
		return err
	}
	if !bytes.Equal(again.EAR(), payload) {
		return fmt.Errorf("the node found %s, this verifier %s, or with other checks", rep.Found, again.Verdict())
	}
	return nil
}
