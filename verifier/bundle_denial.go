package verifier

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/snp"
	"github.com/concordat/concordat/attestation/tdx"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/policy"
)

// denialAudit is what members denied, in log order.
type denialAudit struct {
	list  []loggedDenial
	set   policy.Denials
	lifts []placedEntry
}

type loggedDenial struct {
	index  uint64
	raw    []byte
	digest cose.Digest
	member policy.MemberID
	*policy.Denial
}

// deniable is one thing that a member can deny.
type deniable struct {
	kind  policy.DenialKind
	value []byte
	what  string // for people
}

func (a *audit) takeDenial(index uint64, raw []byte) {
	for v := a.chain.Head().Version; v > 0; v-- {
		p := a.chain.At(v)
		d, m, err := p.VerifyDenial(raw)
		if err != nil {
			continue
		}
		if _, err := a.denials.set.Add(p, raw); err != nil {
			continue
		}
		a.denials.list = append(a.denials.list, loggedDenial{index, raw, cose.Sum(raw), m, d})
		return
	}
	a.void(index, "is a denial that no member signed")
}

// deniedBefore returns what was denied before log index before, and not lifted.
func (a *audit) deniedBefore(before uint64) *policy.Denials {
	s := new(policy.Denials)
	for _, d := range a.denials.list {
		if d.index >= before || a.lifted(d, before) {
			continue
		}
		for v := a.chain.Head().Version; v > 0; v-- {
			if _, err := s.Add(a.chain.At(v), d.raw); err == nil {
				break
			}
		}
	}
	return s
}

// lifted reports whether N members voted, before log index before, to lift d.
func (a *audit) lifted(d loggedDenial, before uint64) bool {
	p := a.chain.Head()
	var votes [][]byte
	for _, l := range a.denials.lifts {
		if l.index >= before {
			break
		}
		err := a.denials.set.Lift(p, d.digest, [][]byte{l.raw})
		var few *policy.QuorumError
		if err == nil {
			return true
		}
		if errors.As(err, &few) && !containsVote(votes, l.raw) {
			votes = append(votes, l.raw)
			if err := a.denials.set.Lift(p, d.digest, votes); err == nil {
				return true
			} else if !errors.As(err, &few) {
				votes = votes[:len(votes)-1] // the same member, twice
			}
		}
	}
	return false
}

func containsVote(votes [][]byte, raw []byte) bool {
	for _, v := range votes {
		if bytes.Equal(v, raw) {
			return true
		}
	}
	return false
}

// checkDenials fails what was denied before the run, and notes what was denied
// since.
func (a *audit) checkDenials(name string, run uint64, things []deniable) {
	ok := true
	for _, d := range a.denials.list {
		for _, t := range things {
			if t.kind != d.Kind || !bytes.Equal(t.value, d.Value) {
				continue
			}
			if d.index < run && !a.lifted(d, run) {
				a.fail(name, "nothing that was denied before the run", fmt.Sprintf("%s, denied by %s at entry %d", t.what, d.member, d.index))
				ok = false
				continue
			}
			text := fmt.Sprintf("%s, by %s at entry %d", t.what, d.member, d.index)
			if d.index < run {
				text += ", lifted before the run"
			}
			a.report.DeniedSince = append(a.report.DeniedSince, text)
		}
	}
	if ok {
		a.pass(name, "%d denials in the log, none before the run that concerns it", len(a.denials.list))
	}
}

// deniableOf returns what of an enclave's evidence a member can deny.
func (a *audit) deniableOf(envelope []byte, c *attestation.Claims) []deniable {
	e, err := attestation.ParseEvidence(envelope)
	if err != nil {
		e = &attestation.Evidence{}
	}
	return deniableOf(e, c, func(d cose.Digest) attestation.Endorsement { return a.docs[d] })
}

// Denied says what of an enclave's evidence a member has denied, or nil. e and ends
// have passed [Appraise], which knows no denials.
func Denied(e *attestation.Evidence, ends *attestation.Endorsements, denials *policy.Denials) error {
	c, err := attestation.ParseClaims(e.Claims)
	if err != nil {
		return err
	}
	for _, x := range deniableOf(e, c, func(d cose.Digest) attestation.Endorsement { doc, _ := ends.Get(d); return doc }) {
		if denials.Contains(x.kind, x.value) {
			return fmt.Errorf("%s is denied by a member", x.what)
		}
	}
	return nil
}

func deniableOf(e *attestation.Evidence, c *attestation.Claims, doc func(cose.Digest) attestation.Endorsement) []deniable {
	key := c.SignPub.ID()
	out := []deniable{{policy.DenyKey, key[:], "the enclave's key " + key.Short()}}
	for _, it := range e.Items {
		switch it.Kind {
		case attestation.KindSNP:
			if r, err := snp.Parse(it.Raw); err == nil {
				out = append(out,
					deniable{policy.DenyMeasurement, r.Measurement[:], fmt.Sprintf("measurement %x", r.Measurement[:4])},
					deniable{policy.DenyChip, r.ChipID[:], fmt.Sprintf("chip %x", r.ChipID[:4])},
					deniable{policy.DenyChip, r.ChipID[:8], fmt.Sprintf("chip %x", r.ChipID[:4])}) // Turin names 8 bytes
			}
		case attestation.KindTDX:
			out = append(out, deniableTDX(it.Raw)...)
		case attestation.KindGPU:
			out = append(out, deniableGPU(it, doc)...)
		}
	}
	return out
}

func deniableTDX(raw []byte) []deniable {
	q, err := tdx.Parse(raw)
	if err != nil {
		return nil
	}
	out := []deniable{{policy.DenyMeasurement, q.Body.MRTD[:], fmt.Sprintf("measurement %x", q.Body.MRTD[:4])}}
	for _, c := range certificates(q.Chain) {
		for _, x := range c.Extensions {
			if !x.Id.Equal(tdx.OIDSGX) {
				continue
			}
			if s, err := tdx.ParseSGXExtension(x.Value); err == nil {
				out = append(out, deniable{policy.DenyChip, s.InstanceID[:], fmt.Sprintf("platform %x", s.InstanceID[:4])})
			}
		}
	}
	return out
}

// deniableGPU names every certificate of the chains that go with a GPU's report:
// the ueid is the serial number of one of them.
func deniableGPU(it attestation.Item, find func(cose.Digest) attestation.Endorsement) []deniable {
	var out []deniable
	for _, d := range it.Endorsements {
		doc := find(d)
		if doc.Type != attestation.TypeNVIDIAChain {
			continue
		}
		for _, c := range certificates(doc.Data) {
			id := c.SerialNumber.Bytes()
			out = append(out, deniable{policy.DenyGPU, id, fmt.Sprintf("GPU %x", id)})
		}
	}
	return out
}

func certificates(b []byte) []*x509.Certificate {
	var out []*x509.Certificate
	for range 16 {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			out = append(out, c)
		}
	}
	return out
}
