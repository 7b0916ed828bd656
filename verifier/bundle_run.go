package verifier

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/receipt"
)

// runAudit is one run of interest: what the log holds of it, and what the bundle
// holds beside the log.
type runAudit struct {
	digest     cose.Digest
	statements []placedStatement // signed by enclaves whose evidence counts, within their interval
	forged     []string          // entries that claim to be of the run and are not signed
	outside    []string          // entries signed outside the interval of their key
	orphan     string            // issuer of the run statement, if its evidence does not count

	name    string
	body    *receipt.Run
	policy  *policy.Policy // of the enclave that began the run
	cohort  receipt.Cohort
	members map[cose.Digest]string   // of the cohort, by node
	keys    map[cose.Digest]cose.Key // of the cohort, by node
	report  *RunReport
	sets    *setAudit
}

type placedStatement struct {
	index uint64
	*receipt.Statement
	by *enclave
}

// StepRules returns what a [receipt.StepChain] needs to know of p. Node, enclave
// and verifier all take it from here.
func StepRules(p *policy.Policy) receipt.Rules {
	return receipt.Rules{
		MinContributors: p.Release.MinContributors,
		Collusion:       p.Release.Collusion,
		Dropouts:        p.Release.Dropouts,
		Sampled:         p.Release.Cohort == policy.CohortSampled,
		Opens:           slices.Clone(p.Nodes.MessageTypes),
		StepsPerEpoch:   p.Evidence.MaxRoundsPerEpoch,
	}
}

// finishRun makes every check of one run. A check that cannot be made because of
// one before it is left out: that one was no pass.
func (a *audit) finishRun(r *runAudit) {
	r.name = "run[" + r.digest.Short() + "]."
	a.checkForged(r)
	// The order inside a run is that of the issuers' chains, not the log's.
	slices.SortStableFunc(r.statements, func(x, y placedStatement) int {
		return cmp.Or(cmp.Compare(x.by.claims.Epoch, y.by.claims.Epoch), cmp.Compare(x.Seq, y.Seq))
	})
	i := slices.IndexFunc(r.statements, func(s placedStatement) bool { return s.Kind == receipt.KindRun })
	if i < 0 {
		a.noStatement(r)
		return
	}
	first := r.statements[i]
	r.body, r.policy = first.Body.(*receipt.Run), first.by.policy
	a.report.Runs = append(a.report.Runs, RunReport{
		Run: r.digest, RunID: r.body.RunID, App: r.body.App, Config: r.body.Config, Strategy: r.body.Strategy, Class: r.body.Class,
		Exposure: r.body.Exposure, Nodes: r.body.Nodes, Rounds: r.body.Rounds, Frozen: r.body.Frozen, Members: []string{},
	})
	r.report = &a.report.Runs[len(a.report.Runs)-1]
	if b, ok := a.log.placed(first.index); ok {
		r.report.Began = b.until
	}
	a.pass(r.name+"statement", "entry %d, by instance %s, epoch %d", first.index, first.by.claims.Instance, first.by.claims.Epoch)
	a.checkEnclaves(r)
	at, err := a.judged(first.index)
	if err != nil {
		a.missing(r.name+"time", err.Error(), "")
		at = a.newestTime()
	}
	if !a.checkCohort(r, at) {
		return
	}
	a.checkRequest(r, at)
	a.checkTerms(r, first.index)
	a.checkRunDenials(r, first.index)
	a.checkSteps(r, first)
}

// newestTime is the best guess at a time where the own witness gives none: the
// verdict is incomplete already.
func (a *audit) newestTime() time.Time {
	if n := len(a.log.points); n > 0 {
		return a.log.points[n-1].last
	}
	return time.Time{}
}

// noStatement says why there is no run statement that counts: it is not in the
// log, or its enclave's evidence fails, or could not be judged.
func (a *audit) noStatement(r *runAudit) {
	const want = "the run statement in the log, by an enclave whose evidence counts"
	for _, rep := range a.enclaves.reports {
		if r.orphan != "" && receipt.EnclaveIssuer(rep.Instance) == r.orphan {
			a.report.Evidence = append(a.report.Evidence, rep)
			a.add(Check{Name: r.name + "statement", Verdict: rep.Verdict, Expected: want, Got: fmt.Sprintf("evidence of entry %d: %s", rep.Index, rep.Reason)})
			return
		}
	}
	a.missing(r.name+"statement", want, "")
}

func (a *audit) checkForged(r *runAudit) {
	if len(r.forged) > 0 {
		a.fail(r.name+"signatures", "statements that their enclave signed", strings.Join(r.forged, ", "))
	}
	if len(r.outside) > 0 {
		a.fail(r.name+"key-interval", "statements within the interval of log indices of their key", strings.Join(r.outside, ", "))
	}
}

// checkEnclaves checks every instance that signed something of the run.
func (a *audit) checkEnclaves(r *runAudit) {
	var done []*enclave
	for _, s := range r.statements {
		if slices.Contains(done, s.by) {
			continue
		}
		done = append(done, s.by)
		a.checkEnclave(r, s.by)
	}
}

func (a *audit) checkEnclave(r *runAudit, e *enclave) {
	name := fmt.Sprintf("%senclave[%d].", r.name, e.claims.Epoch)
	for _, rep := range a.enclaves.reports {
		if _, ok := e.evidence[rep.Statement]; ok && !slices.ContainsFunc(a.report.Evidence, func(x EvidenceReport) bool { return x.Statement == rep.Statement }) {
			a.report.Evidence = append(a.report.Evidence, rep)
		}
	}
	a.pass(name+"evidence", "instance %s, %d evidence statements from entry %d on", e.claims.Instance, len(e.evidence), e.from)
	var last placedStatement
	for _, s := range r.statements {
		if s.by == e {
			last = s
			a.checkNamedEvidence(name, s)
		}
	}
	for _, u := range a.enclaves.unknown {
		if u.epoch >= e.claims.Epoch && u.index <= last.index && (u.instance != e.claims.Instance || u.index < e.from) {
			a.missing(name+"epoch", fmt.Sprintf("evidence of entry %d, which claims epoch %d", u.index, u.epoch), u.reason)
			break
		}
	}
	err := e.checkChain()
	var none missingError
	switch {
	case err == nil:
		a.pass(name+"statements", "numbers 1 to %d without a gap", len(e.chain))
	case errors.As(err, &none):
		a.missing(name+"statements", string(none), "the enclave signed something that this log does not hold")
	default:
		a.fail(name+"statements", "one chain of statements", err.Error())
	}
	a.checkAge(name+"age", e.from, last.index, e.policy.Evidence.MaxEpochAge.Duration(), "from the epoch's evidence to its last statement of the run")
}

// checkAge checks that no more than limit lies between two entries. The own
// witness's times give bounds: what they leave open is not checked, and says so.
func (a *audit) checkAge(name string, from, to uint64, limit time.Duration, what string) {
	x, ok1 := a.log.placed(from)
	y, ok2 := a.log.placed(to)
	switch {
	case !ok1 || !ok2: // reported as such
	case !y.after.IsZero() && y.after.Sub(x.until) > limit:
		a.fail(name, "at most "+limit.String()+" "+what, "at least "+y.after.Sub(x.until).String())
	case !x.after.IsZero() && y.until.Sub(x.after) <= limit:
		a.pass(name, "at most %s %s", y.until.Sub(x.after), what)
	default:
		a.notChecked(name, fmt.Sprintf("the checkpoints in the bundle do not tell whether more than %s lie %s", limit, what))
	}
}

// checkNamedEvidence checks that a statement names evidence of its own enclave,
// and that a run began while that was fresh.
func (a *audit) checkNamedEvidence(name string, s placedStatement) {
	var named cose.Digest
	switch b := s.Body.(type) {
	case *receipt.Run:
		named = b.Evidence
	case *receipt.Step:
		named = b.Evidence
	default:
		return
	}
	index, ok := s.by.evidence[named]
	if !ok {
		a.fail(name+"named", fmt.Sprintf("entry %d to name evidence of its enclave that counts", s.index), named.Short())
		return
	}
	if s.Kind != receipt.KindRun {
		return
	}
	a.checkAge(name+"fresh", index, s.index, s.by.policy.Evidence.MaxAge.Duration(), "from the evidence to the run")
}

// checkCohort reads the cohort and its credentials.
func (a *audit) checkCohort(r *runAudit, at time.Time) bool {
	raw := a.blobs[blobKey{receipt.RoleCohort, r.body.Cohort}]
	if raw == nil {
		a.missing(r.name+"cohort", "cohort "+r.body.Cohort.Short(), "")
		return false
	}
	c, err := receipt.ParseCohort(raw)
	if err != nil || c.Digest() != r.body.Cohort {
		a.fail(r.name+"cohort", "cohort "+r.body.Cohort.Short(), fmt.Sprintf("%s, %v", cose.Sum(raw).Short(), err))
		return false
	}
	r.cohort, r.members, r.keys = c, make(map[cose.Digest]string, len(c)), make(map[cose.Digest]cose.Key, len(c))
	for _, p := range c {
		r.members[p.Node] = p.Member
		if !slices.Contains(r.report.Members, p.Member) {
			r.report.Members = append(r.report.Members, p.Member)
		}
		k, member, err := a.credential(r, p.Node, at)
		var none missingError
		switch {
		case errors.As(err, &none):
			a.missing(r.name+"cohort", string(none), "")
			return false
		case err != nil:
			a.fail(r.name+"cohort", "a credential of node "+p.Node.Short(), err.Error())
			return false
		case member != p.Member:
			a.fail(r.name+"cohort", fmt.Sprintf("node %s to be of %s", p.Node.Short(), p.Member), "its credential is of "+member)
			return false
		}
		r.keys[p.Node] = k
	}
	a.pass(r.name+"cohort", "%d nodes of %d members, each with its member's credential", len(c), c.Members())
	return true
}

// credential returns the key and the member of a node.
func (a *audit) credential(r *runAudit, node cose.Digest, at time.Time) (cose.Key, string, error) {
	raw := a.blobs[blobKey{receipt.RoleCredential, node}]
	if raw == nil {
		return cose.Key{}, "", missingError("the credential of node " + node.Short())
	}
	c, m, err := r.policy.VerifyCredential(raw, at)
	if err != nil {
		return cose.Key{}, "", err
	}
	if c.NodeID() != node {
		return cose.Key{}, "", fmt.Errorf("credential is of node %s", c.NodeID().Short())
	}
	return c.NodeKey, string(m), nil
}

// checkRequest checks that a member's node asked for exactly this run (protocol
// F3).
func (a *audit) checkRequest(r *runAudit, at time.Time) {
	name := r.name + "request"
	raw := a.blobs[blobKey{receipt.RoleRequest, r.body.Request}]
	if raw == nil {
		a.missing(name, "the run request "+r.body.Request.Short(), "")
		return
	}
	key, member, err := a.credential(r, r.body.Requester, at)
	var none missingError
	if errors.As(err, &none) {
		a.missing(name, string(none), "")
		return
	}
	if err == nil {
		err = a.judgeRequest(r, raw, key)
	}
	if err != nil {
		a.fail(name, "a request by node "+r.body.Requester.Short()+" for this run", err.Error())
		return
	}
	r.report.Requester = member
	a.pass(name, "by a node of %s", member)
}

func (a *audit) judgeRequest(r *runAudit, raw []byte, key cose.Key) error {
	u, err := receipt.Parse(raw)
	if err != nil {
		return err
	}
	s, err := u.Verify(key)
	if err != nil {
		return err
	}
	q, ok := s.Body.(*receipt.RunRequest)
	switch {
	case !ok || s.Digest() != r.body.Request || s.Federation != a.trust.Federation:
		return fmt.Errorf("another statement: %s %s", s.Kind, s.Digest().Short())
	case q.App != r.body.App || q.Config != r.body.Config || q.Strategy != r.body.Strategy || q.Rounds != r.body.Rounds:
		return errors.New("it asks for another app, configuration, strategy or number of rounds")
	}
	return nil
}

// signedBefore returns the signatures of apps before a log index by signers of p, of which
// those by keys that were denied then do not count.
func (a *audit) signedBefore(index uint64, p *policy.Policy) *policy.AppSignatures {
	s := &policy.AppSignatures{Denials: a.deniedBefore(index)}
	for _, x := range a.signed {
		if x.index < index {
			s.Add(p, x.raw)
		}
	}
	return s
}

// checkTerms checks the run, whose statement is at a log index, against the policy.
func (a *audit) checkTerms(r *runAudit, index uint64) {
	b, p, signed := r.body, r.policy, a.signedBefore(index, r.policy)
	terms := policy.RunTerms{App: b.App, Config: b.Config, Exposure: policy.Exposure(b.Exposure), Strategy: b.Strategy, Rounds: b.Rounds}
	for _, m := range r.report.Members {
		terms.Cohort = append(terms.Cohort, policy.MemberID(m))
	}
	if app := p.App(b.App, signed); app != nil {
		r.report.AppName = app.Name
	}
	r.report.Signers = p.SignersOf(b.App, signed)
	if err := p.AllowRun(terms, signed); err != nil {
		a.fail(r.name+"policy", "a run that policy version "+fmt.Sprint(p.Version)+" allows", err.Error())
		return
	}
	if class, _ := policy.StrategyClass(b.Strategy); string(class) != b.Class {
		a.fail(r.name+"policy", fmt.Sprintf("strategy %s to be %s", b.Strategy, class), b.Class)
		return
	}
	a.pass(r.name+"policy", "app, configuration, strategy, rounds and cohort are allowed by version %d", p.Version)
	if policy.Exposure(b.Exposure) == policy.ExposureIndividual {
		a.report.NotProven = append(slices.Clone(a.report.NotProven),
			fmt.Sprintf("that the outputs of app %s carry nothing about one member: it sees single updates, and the members approved this code by digest", b.App.Short()))
	}
}

func (a *audit) checkRunDenials(r *runAudit, index uint64) {
	things := []deniable{{policy.DenyApp, r.body.App[:], "app " + r.body.App.Short()}}
	for _, k := range r.report.Signers {
		things = append(things, deniable{policy.DenyKey, k[:], "signer " + k.Short() + " of app " + r.body.App.Short()})
	}
	var done []*enclave
	for _, s := range r.statements {
		if !slices.Contains(done, s.by) {
			done = append(done, s.by)
			things = append(things, s.by.denials...)
		}
	}
	for _, p := range r.cohort {
		credential := cose.Sum(a.blobs[blobKey{receipt.RoleCredential, p.Node}])
		things = append(things,
			deniable{policy.DenyKey, p.Node[:], "node " + p.Node.Short() + " of " + p.Member},
			deniable{policy.DenyCredential, credential[:], "the credential of node " + p.Node.Short() + " of " + p.Member})
	}
	a.checkDenials(r.name+"denials", index, things)
}
