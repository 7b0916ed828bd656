package verifier

import (
	"bytes"
	"errors"
	"fmt"
	"math"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/receipt"
)

// enclaveAudit is who spoke for the federation, epoch by epoch: the first instance
// in log order whose evidence passes has an epoch, and its key is good from that
// log index to the evidence of the next epoch (protocol F14).
type enclaveAudit struct {
	epochs     receipt.Epochs
	byInstance map[attestation.ID]*enclave
	byEpoch    map[uint64]*enclave
	reports    []EvidenceReport // of every evidence statement
	unknown    []unknownEvidence
}

func newEnclaveAudit() enclaveAudit {
	return enclaveAudit{byInstance: make(map[attestation.ID]*enclave), byEpoch: make(map[uint64]*enclave)}
}

// enclave is one instance whose evidence passed.
type enclave struct {
	claims   *attestation.Claims
	policy   *policy.Policy
	from     uint64                 // log index of its first evidence statement
	until    uint64                 // of the first evidence of a later epoch; its key is good before that
	evidence map[cose.Digest]uint64 // its evidence statements and their log indices
	denials  []deniable
	chain    []chainLink
}

// chainLink is a statement's place in its issuer's chain.
type chainLink struct {
	seq    uint64
	prev   cose.Digest
	digest cose.Digest
}

// unknownEvidence is an evidence statement that could not be judged, because
// something of it is not in the bundle: it may be that of the epoch's instance.
type unknownEvidence struct {
	index    uint64
	epoch    uint64
	instance attestation.ID
	reason   string
}

// takeStatement takes a log entry that may be a statement of an enclave.
func (a *audit) takeStatement(index uint64, raw []byte) {
	u, err := receipt.Parse(raw)
	switch {
	case err != nil:
		a.void(index, "is no statement of this version: %v", err)
		return
	case u.Federation() != a.trust.Federation:
		a.void(index, "speaks for federation %s", u.Federation().Short())
		return
	}
	switch u.Kind() {
	case receipt.KindEvidence:
		a.takeEvidence(index, u)
	case receipt.KindRun, receipt.KindStep, receipt.KindRelease, receipt.KindEnd, receipt.KindRefusal:
		a.takeEnclaveStatement(index, u)
	}
}

// takeEvidence judges an evidence statement where it stands in the log.
func (a *audit) takeEvidence(index uint64, u *receipt.Unverified) {
	rep := EvidenceReport{Statement: u.Digest(), Index: index, Checks: []Check{}}
	c, err := attestation.ParseClaims(u.Claims())
	if err != nil {
		a.void(index, "is evidence without claims: %v", err)
		return
	}
	rep.Instance, rep.Name, rep.Epoch = c.Instance, c.Instance.String(), c.Epoch
	s, p, err := a.appraise(index, u, c, &rep)
	if err == nil {
		err = a.admit(index, u, s, c, p)
	}
	var none missingError
	switch {
	case errors.As(err, &none):
		rep.Verdict, rep.Reason = Incomplete, err.Error()
		if e := a.enclaves.byInstance[c.Instance]; e == nil || !a.sameKey(u, e) {
			a.enclaves.unknown = append(a.enclaves.unknown, unknownEvidence{index, c.Epoch, c.Instance, err.Error()})
		}
	case err != nil:
		rep.Verdict, rep.Reason = Fail, err.Error()
		a.void(index, "is evidence that does not count: %v", err)
	}
	a.enclaves.reports = append(a.enclaves.reports, rep)
}

// sameKey reports whether u is signed by the key of e: then it is e's own, of
// another nonce window, and no rival's.
func (a *audit) sameKey(u *receipt.Unverified, e *enclave) bool {
	_, err := u.Verify(e.claims.SignPub)
	return err == nil
}

// appraise judges the evidence as of the own witness's time and the statement's
// signature by the key that the evidence vouches for.
func (a *audit) appraise(index uint64, u *receipt.Unverified, c *attestation.Claims, rep *EvidenceReport) (*receipt.Statement, *policy.Policy, error) {
	if c.Federation != a.trust.Federation || u.Issuer() != receipt.EnclaveIssuer(c.Instance) {
		return nil, nil, errors.New("claims are of another federation or instance than the statement")
	}
	p := a.policyBy(c.Policy)
	if p == nil {
		return nil, nil, fmt.Errorf("claims name policy %s, which is not in the chain", c.Policy.Short())
	}
	if since, ok := a.log.inForce[p.Version+1]; ok {
		return nil, nil, fmt.Errorf("claims name policy version %d, but version %d is in force since entry %d", p.Version, p.Version+1, since)
	}
	if _, ok := a.log.inForce[p.Version]; !ok && p.Version > 1 {
		return nil, nil, missingError(fmt.Sprintf("the approvals of policy version %d in the log before entry %d", p.Version, index))
	}
	raw := a.blobs[blobKey{receipt.RoleEvidence, u.Envelope()}]
	if raw == nil {
		return nil, nil, missingError("evidence envelope " + u.Envelope().Short())
	}
	e, err := attestation.ParseEvidence(raw)
	if err != nil {
		return nil, nil, err
	}
	if e.Digest() != u.Envelope() || !bytes.Equal(e.Claims, u.Claims()) {
		return nil, nil, errors.New("the envelope is not the one that the statement names, or has other claims")
	}
	at, err := a.judged(index)
	if err != nil {
		return nil, nil, missingError(err.Error())
	}
	rep.JudgedAt = at
	res, err := Appraise(e, a.endorsementsOf(e, u.Endorsements()), p, nil, at)
	if err != nil {
		return nil, nil, err
	}
	rep.Verdict, rep.Checks = res.Verdict(), res.Checks()
	switch rep.Verdict {
	case Pass, PassSimulated:
	case Incomplete:
		return nil, nil, missingError("what is needed to judge the evidence: " + res.obstacle(Incomplete))
	default:
		return nil, nil, fmt.Errorf("the evidence does not pass: %s: %s", rep.Verdict, res.obstacle(rep.Verdict))
	}
	s, err := u.Verify(c.SignPub)
	if err != nil {
		return nil, nil, err
	}
	if s.Policy != c.Policy {
		return nil, nil, fmt.Errorf("statement is under policy %s, its claims under %s", s.Policy.Short(), c.Policy.Short())
	}
	return s, p, a.checkStart(index, c)
}

// endorsementsOf returns the documents that the envelope and the statement name,
// as far as the bundle has them and a set may hold.
func (a *audit) endorsementsOf(e *attestation.Evidence, more []cose.Digest) *attestation.Endorsements {
	names := more
	for _, it := range e.Items {
		names = append(names, it.Endorsements...)
	}
	set := new(attestation.Endorsements)
	for _, d := range names {
		if doc, ok := a.docs[d]; ok {
			if _, err := set.Add(doc); err != nil {
				break // full: what is missing shows in the appraisal
			}
		}
	}
	return set
}

// checkStart checks what the claims say about the log that the enclave started
// from: it is this log, and the epoch follows the highest in it.
func (a *audit) checkStart(index uint64, c *attestation.Claims) error {
	if c.Checkpoint.Size > index {
		return fmt.Errorf("claims start from a log of %d entries, the statement is entry %d", c.Checkpoint.Size, index)
	}
	if c.Checkpoint.Size > 0 && !a.log.gap {
		if root, ok := a.log.rootAt(c.Checkpoint.Size); !ok || root != c.Checkpoint.Root {
			return fmt.Errorf("claims start from another log: root %s over %d entries, here %s", c.Checkpoint.Root.Short(), c.Checkpoint.Size, root.Short())
		}
	}
	want := uint64(1)
	for epoch, e := range a.enclaves.byEpoch {
		if e.from < c.Checkpoint.Size && e.claims.Instance != c.Instance {
			want = max(want, epoch+1)
		}
	}
	if c.Epoch != want {
		return fmt.Errorf("epoch %d, but the log of %d entries that it starts from makes it %d", c.Epoch, c.Checkpoint.Size, want)
	}
	return nil
}

// admit makes the instance its epoch's, or adds a statement to the instance that is,
// by the rule that nodes and enclaves follow too. Another instance is void.
func (a *audit) admit(index uint64, u *receipt.Unverified, s *receipt.Statement, c *attestation.Claims, p *policy.Policy) error {
	if _, err := a.enclaves.epochs.Evidence(u, a.trust.Federation, c.Simulated); err != nil {
		return err
	}
	if e := a.enclaves.byInstance[c.Instance]; e != nil {
		e.evidence[s.Digest()] = index
		e.link(s)
		return nil
	}
	for _, e := range a.enclaves.byEpoch {
		e.until = min(e.until, index)
	}
	e := &enclave{claims: c, policy: p, from: index, until: math.MaxUint64, evidence: map[cose.Digest]uint64{s.Digest(): index}}
	e.link(s)
	if body, ok := s.Body.(*receipt.Evidence); ok {
		e.denials = a.deniableOf(a.blobs[blobKey{receipt.RoleEvidence, body.Envelope}], c)
	}
	a.enclaves.byEpoch[c.Epoch], a.enclaves.byInstance[c.Instance] = e, e
	return nil
}

func (e *enclave) link(s *receipt.Statement) {
	e.chain = append(e.chain, chainLink{s.Seq, s.Prev, s.Digest()})
}

// takeEnclaveStatement takes a statement about a run, or a refusal.
func (a *audit) takeEnclaveStatement(index uint64, u *receipt.Unverified) {
	run := u.Run()
	if u.Kind() == receipt.KindRun {
		run = u.Digest()
	}
	r := a.runs[run]
	e := a.enclaves.issuer(u.Issuer())
	if e == nil {
		a.void(index, "is a %s statement of %s, which has no evidence that counts", u.Kind(), u.Issuer())
		if r != nil && u.Kind() == receipt.KindRun {
			r.orphan = u.Issuer()
		}
		return
	}
	s, err := u.Verify(e.claims.SignPub)
	switch {
	case err != nil:
		a.void(index, "is a %s statement that %s did not sign", u.Kind(), u.Issuer())
		if r != nil {
			r.forged = append(r.forged, fmt.Sprintf("entry %d (%s)", index, u.Kind()))
		}
		return
	case index >= e.until:
		a.void(index, "is a %s statement of epoch %d, which ended at entry %d", u.Kind(), e.claims.Epoch, e.until)
		if r != nil {
			r.outside = append(r.outside, fmt.Sprintf("entry %d (%s): the key of epoch %d is good for entries %d to %d", index, u.Kind(), e.claims.Epoch, e.from, e.until-1))
		}
		return
	}
	e.link(s)
	if r == nil && a.all && u.Kind() == receipt.KindRun {
		r = a.interest(run)
	}
	if r != nil {
		r.statements = append(r.statements, placedStatement{index, s, e})
	}
}

// issuer returns the enclave with that issuer, or nil.
func (a *enclaveAudit) issuer(name string) *enclave {
	id, _ := (&receipt.Statement{Issuer: name}).Instance()
	return a.byInstance[id] // no instance is zero
}

// checkChain checks that the bundle's log has all that an enclave signed, as far as
// it tells: numbers without a gap, each naming the one before.
func (e *enclave) checkChain() error {
	bySeq := make(map[uint64]chainLink, len(e.chain))
	var last uint64
	for _, l := range e.chain {
		if other, ok := bySeq[l.seq]; ok && other.digest != l.digest {
			return fmt.Errorf("two statements with number %d: %s and %s", l.seq, other.digest.Short(), l.digest.Short())
		}
		bySeq[l.seq] = l
		last = max(last, l.seq)
	}
	for seq := uint64(1); seq <= last; seq++ {
		l, ok := bySeq[seq]
		if !ok {
			return missingError(fmt.Sprintf("statement %d of instance %s, of %d", seq, e.claims.Instance, last))
		}
		if seq > 1 && l.prev != bySeq[seq-1].digest {
			return fmt.Errorf("statement %d follows %s, want %s", seq, l.prev.Short(), bySeq[seq-1].digest.Short())
		}
	}
	return nil
}
