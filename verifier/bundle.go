package verifier

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/internal/check"
	"github.com/concordat/concordat/verifier/receipt"
	"github.com/concordat/concordat/verifier/tlog"
)

// maxHeld bounds what a verification keeps of a bundle in memory, in bytes: blobs,
// endorsements and receipts. Log entries are streamed.
const maxHeld = 1 << 30

// VerifyBundle judges a bundle, offline. Everything is judged by the clock of one's
// own company's witness, as t names it, never by times in evidence or claims: a
// statement is as old as the first checkpoint with that witness's cosignature that
// covers it. at may narrow this to an earlier moment, not widen it; the zero time
// leaves it.
//
// each, if it is not nil, gets every check as it is made. What is wrong with the
// bundle is in the report; an error means that t is no trust file, that ctx ended,
// or that r could not be read.
//
// results are attestation results that nodes kept of the enclaves of these runs, as
// [Result.SignEAR] makes them. Each is a check of its own: who signed it, and whether the
// evidence in the bundle leads to it again.
func VerifyBundle(ctx context.Context, r io.Reader, t *Trust, at time.Time, each func(Check), results ...[]byte) (*Report, error) {
	if t == nil {
		return nil, errors.New("verify: no trust file")
	}
	if err := t.check(); err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	own, err := t.witness()
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	a := newAudit(t, own, at, each)
	in := &meter{ctx: ctx, r: r, hash: sha256.New()}
	a.read(in)
	if in.err != nil {
		return nil, fmt.Errorf("verify: %w", in.err)
	}
	// A bundle that ends early was not read to its end: its digest is of the file.
	if _, err := io.Copy(io.Discard, bufio.NewReader(in)); err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	a.report.Bundle = cose.Digest(in.hash.Sum(nil))
	if err := a.finish(ctx, results); err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	return a.report, nil
}

// meter hashes what is read and keeps apart errors of reading from what is wrong
// with the bytes.
type meter struct {
	ctx  context.Context
	r    io.Reader
	hash interface {
		io.Writer
		Sum([]byte) []byte
	}
	err error
}

func (m *meter) Read(p []byte) (int, error) {
	if m.err == nil {
		m.err = m.ctx.Err()
	}
	if m.err != nil {
		return 0, m.err
	}
	n, err := m.r.Read(p)
	m.hash.Write(p[:n])
	if err != nil && err != io.EOF {
		m.err = err
	}
	return n, err
}

type blobKey struct {
	role    string
	subject cose.Digest
}

// audit is the state of one verification. Its parts are in the bundle_*.go files:
// the log, the enclaves, the runs.
type audit struct {
	trust  *Trust
	own    tlog.VerifierKey
	at     time.Time
	each   func(Check)
	report *Report

	chain    *policy.Chain
	blobs    map[blobKey][]byte
	docs     map[cose.Digest]attestation.Endorsement
	held     int
	receipts []*receipt.Item
	log      logAudit
	enclaves enclaveAudit
	denials  denialAudit
	signed   []placedEntry // signatures of apps, in log order
	runs     map[cose.Digest]*runAudit
	order    []cose.Digest // runs of interest, in the order of the header or of the log
	all      bool          // every run is of interest
}

func newAudit(t *Trust, own tlog.VerifierKey, at time.Time, each func(Check)) *audit {
	return &audit{
		trust: t, own: own, at: at, each: each,
		report: &Report{
			Trust: t.Fingerprint(), Federation: t.Federation, Member: t.Member, NotProven: notProven,
			Checks: []Check{}, Runs: []RunReport{}, Evidence: []EvidenceReport{}, DeniedSince: []string{}, Warnings: []string{},
			Log: LogReport{Void: []string{}},
		},
		blobs: make(map[blobKey][]byte), docs: make(map[cose.Digest]attestation.Endorsement),
		log:      logAudit{roots: make(map[uint64]cose.Digest), approved: make(map[uint64]map[policy.MemberID]bool), inForce: make(map[uint64]uint64), receipted: make(map[cose.Digest]placedEntry)},
		enclaves: newEnclaveAudit(), runs: make(map[cose.Digest]*runAudit),
	}
}

func (a *audit) add(c Check) {
	a.report.Checks = append(a.report.Checks, c)
	if a.each != nil {
		a.each(c)
	}
}

func (a *audit) pass(name, format string, args ...any) {
	a.add(Check{Name: name, Verdict: Pass, Got: fmt.Sprintf(format, args...)})
}

func (a *audit) fail(name, expected, got string) {
	a.add(Check{Name: name, Verdict: Fail, Expected: expected, Got: got})
}

func (a *audit) missing(name, what, advice string) {
	a.add(Check{Name: name, Verdict: Incomplete, Expected: what, Got: "missing", Advice: advice})
}

func (a *audit) notChecked(name, advice string) {
	a.add(Check{Name: name, Verdict: NotChecked, Advice: advice})
}

// read takes the bundle item by item.
func (a *audit) read(r io.Reader) {
	b, err := receipt.NewBundleReader(r)
	if err != nil {
		a.fail("bundle", "a bundle of this version", err.Error())
		return
	}
	if b.Federation() != a.trust.Federation {
		a.fail("bundle", "federation "+a.trust.Federation.String(), b.Federation().String())
		return
	}
	for _, d := range b.Runs() {
		a.interest(d)
	}
	a.all = len(b.Runs()) == 0
	for {
		i, err := b.Next()
		if errors.Is(err, io.EOF) {
			a.pass("bundle", "%d runs, to its end", len(b.Runs()))
			return
		}
		if err == nil {
			err = a.take(i)
		}
		if err != nil {
			a.fail("bundle", "a bundle of this version, to its end", err.Error())
			return
		}
	}
}

func (a *audit) interest(run cose.Digest) *runAudit {
	if r := a.runs[run]; r != nil {
		return r
	}
	a.runs[run] = &runAudit{digest: run}
	a.order = append(a.order, run)
	return a.runs[run]
}

func (a *audit) take(i *receipt.Item) error {
	if i.Section != receipt.SectionEntry {
		if a.held += len(i.Data); a.held > maxHeld {
			return fmt.Errorf("more than %d bytes beside the log entries", maxHeld)
		}
	}
	switch i.Section {
	case receipt.SectionPolicy:
		a.takePolicy(i.Data)
	case receipt.SectionCheckpoint:
		a.takeCheckpoint(i.Index, i.Data)
	case receipt.SectionBlob:
		a.blobs[blobKey{i.Role, i.Subject}] = i.Data
	case receipt.SectionEndorsement:
		e := attestation.Endorsement{Type: i.Role, Data: i.Data}
		if e.Digest() != i.Subject {
			return fmt.Errorf("endorsement %s has digest %s", i.Subject.Short(), e.Digest().Short())
		}
		a.docs[i.Subject] = e
	case receipt.SectionReceipt:
		a.receipts = append(a.receipts, i)
		a.log.receipted[i.Subject] = placedEntry{}
	case receipt.SectionEntry:
		a.takeEntry(i.Index, i.Data)
	default:
		return fmt.Errorf("unknown section %d", i.Section)
	}
	return nil
}

func (a *audit) takePolicy(b []byte) {
	c, err := policy.ParseChain(b)
	if err != nil {
		a.fail("policy", "a chain of policies, each approved", err.Error())
		return
	}
	if c.Federation() != a.trust.Federation {
		a.fail("policy", "genesis "+a.trust.Federation.String(), c.Federation().String())
		return
	}
	a.chain = c
	head := c.Head()
	a.report.Name, a.report.Simulated = head.Name, head.Simulated
	a.report.Warnings = append(a.report.Warnings, head.Warnings()...)
	a.pass("policy", "version %d, %s, each approved by N of the members before it", head.Version, head.Digest().Short())
	if head.Simulated != a.trust.Simulated {
		a.fail("simulated", yesNo(a.trust.Simulated)+", as the trust file says", yesNo(head.Simulated))
	} else {
		a.pass("simulated", "%s", yesNo(head.Simulated))
	}
	a.checkOwnWitness()
}

// checkOwnWitness checks that the policy knows the own witness as one's own
// member's.
func (a *audit) checkOwnWitness() {
	for v := a.chain.Head().Version; v > 0; v-- {
		if m := a.chain.At(v).Member(a.trust.Member); m != nil && m.WitnessKey == a.trust.Witness {
			a.pass("trust.witness", "%s, in policy version %d", a.own.Name(), v)
			return
		}
	}
	a.fail("trust.witness", fmt.Sprintf("a policy that names %s for %q", a.own.Name(), a.trust.Member), "none of this chain does")
}

// policyBy returns the version with the digest, or nil.
func (a *audit) policyBy(d cose.Digest) *policy.Policy {
	if a.chain == nil {
		return nil
	}
	for v := a.chain.Head().Version; v > 0; v-- {
		if p := a.chain.At(v); p.Digest() == d {
			return p
		}
	}
	return nil
}

// finish makes the checks that need the whole bundle.
func (a *audit) finish(ctx context.Context, results [][]byte) error {
	defer a.report.conclude()
	if check.Summary(a.report.Checks) == Fail && a.chain == nil {
		return nil // nothing can be judged
	}
	if a.chain == nil {
		a.missing("policy", "the federation's policy chain", "ask the sender for a complete bundle")
		return nil
	}
	a.finishLog()
	if len(a.order) == 0 {
		a.missing("runs", "a run", "the bundle names no run, and its log entries hold none")
	}
	for _, d := range a.order {
		if err := ctx.Err(); err != nil {
			return err
		}
		a.finishRun(a.runs[d])
	}
	a.finishVoid()
	a.finishResults(results)
	return nil
}
