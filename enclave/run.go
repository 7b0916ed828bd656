package enclave

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/enclave/aggregate"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/flower/fab"
	"github.com/concordat/concordat/internal/session"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier"
	"github.com/concordat/concordat/verifier/receipt"
)

// run is one run, from its request to its end. The loop owns it.
type run struct {
	e            *Enclave
	digest       Digest
	statement    *receipt.Statement
	body         *receipt.Run
	request      []byte
	config       []byte
	strategy     *aggregate.Strategy // nil where custom is not
	custom       *custom             // nil where a native strategy aggregates
	credentials  Digest              // blob
	cohort       receipt.Cohort
	participants map[Digest]*participant
	downlink     [32]byte
	chain        *receipt.StepChain
	started      bool
	ended        bool
	ending       *receipt.Statement // once ended

	open    *openStep     // collects contributions, or nil
	closing *closing      // waits for acks, or nil
	model   *model        // what the open step's outputs hold
	signed  []Digest      // every step statement, in order
	task    *session.Task // of the open step, for nodes that come back
	held    []func()      // contributions that wait for a resumed model
	stop    func()        // cancels the deadline in force
}

// participant is one node of the cohort.
type participant struct {
	member string
	uplink *[32]byte // nil until the node accepted
}

// pendingRequest is a run request that waits for members to join.
type pendingRequest struct {
	statement *receipt.Statement
	body      *receipt.RunRequest
	config    []byte
	strategy  *aggregate.Strategy // nil where the app's own code aggregates
	app       *policy.App
	initial   *model      // nil while stored arrays are being read
	frozen    []string    // of its arrays
	bundle    *fab.Bundle // instead, where the app's own code aggregates
	members   []string
}

func (p *pendingRequest) custom() bool { return p.strategy == nil }

// maxWaiting bounds the requests that wait.
const maxWaiting = 16

// runRequest takes a node's request with its initial arrays in it.
func (e *Enclave) runRequest(from *node, m *session.RunRequest) error {
	p, err := e.request(from, m.Statement, m.Config)
	if err != nil {
		return err
	}
	n, err := inflateAll(m.Initial)
	if err == nil && p.custom() {
		p.bundle, err = bundleOf(n, p.body.App)
	} else if err == nil {
		if p.initial, err = initialModel(n); err == nil {
			p.frozen, err = p.initial.freeze(p.config)
		}
	}
	if err != nil {
		return &refusal{"invalid", fmt.Errorf("what the run begins with: %w", err)}
	}
	e.await(p)
	return nil
}

// storedRunRequest takes a node's request whose initial arrays are at the link.
func (e *Enclave) storedRunRequest(n *node, m *session.StoredRunRequest) error {
	p, err := e.request(n, m.Statement, m.Config)
	if err != nil {
		return err
	}
	e.await(p)
	owner := n.id
	e.loop.Job(func(ctx context.Context) func() {
		var initial *model
		var frozen []string
		var bundle *fab.Bundle
		parcel, n, err := e.storedOutline(ctx, owner, &m.Initial)
		if err == nil && p.custom() {
			bundle, err = bundleOf(n, p.body.App)
		} else if err == nil {
			if initial, err = e.storedModel(ctx, parcel, n); err == nil {
				frozen, err = initial.freeze(p.config)
			}
		}
		return func() {
			if err == nil {
				p.initial, p.frozen, p.bundle = initial, frozen, bundle
				e.startWaiting()
				return
			}
			e.waiting = slices.DeleteFunc(e.waiting, func(x *pendingRequest) bool { return x == p })
			err = &refusal{"invalid", fmt.Errorf("what the run begins with: %w", err)}
			if n := e.nodes[owner]; n != nil {
				err = e.refuse(n, p.statement.Digest(), err)
			}
			if err != nil {
				e.log.ErrorContext(e.ctx, "run not started", "request", p.statement.Digest().Short(), "reason", err.Error())
			}
		}
	})
	return nil
}

// await has a request wait for its members, and starts it if they are here.
func (e *Enclave) await(p *pendingRequest) {
	e.waiting = append(e.waiting, p)
	e.log.InfoContext(e.ctx, "run requested", "request", p.statement.Digest().Short(), "app", p.app.Name, "rounds", p.body.Rounds)
	e.startWaiting()
}

// request judges what a node asks for: no run starts without that (protocol F3).
func (e *Enclave) request(n *node, statement, config []byte) (*pendingRequest, error) {
	s, err := e.nodeStatement(n, statement, receipt.KindRunRequest)
	if err != nil {
		return nil, err
	}
	body := s.Body.(*receipt.RunRequest)
	app := e.policy.App(body.App, &e.history.signed)
	switch {
	case e.used(s.Digest()):
		e.abandon(s.Digest())
		return nil, refused("policy", "run request %s was used before", s.Digest().Short())
	case e.history.denials.Contains(policy.DenyApp, body.App[:]):
		return nil, refused("policy", "app %s is denied", body.App.Short())
	case app == nil:
		return nil, refused("policy", "app %s is not in the policy, and not signed as it wants", body.App.Short())
	case cose.Sum(config) != body.Config:
		return nil, refused("invalid", "config does not have the digest of the request")
	case len(e.waiting) >= maxWaiting:
		return nil, refused("policy", "%d requests wait already", len(e.waiting))
	}
	isCustom := body.Strategy == policy.StrategyCustom
	var strategy *aggregate.Strategy
	if isCustom {
		if e.cfg.Apps == nil {
			return nil, refused("policy", "the enclave's image has nothing to run ServerApps in")
		}
		_, err = overridesOf(config)
	} else {
		strategy, err = strategyOf(body.Strategy, config)
	}
	if err != nil {
		return nil, &refusal{"policy", err}
	}
	members := body.Cohort
	if len(members) == 0 {
		for _, x := range e.policy.Members {
			members = append(members, string(x.ID))
		}
	}
	terms := policy.RunTerms{App: body.App, Config: body.Config, Exposure: app.Exposure, Strategy: body.Strategy, Rounds: body.Rounds}
	for _, x := range members {
		terms.Cohort = append(terms.Cohort, policy.MemberID(x))
	}
	if err := e.policy.AllowRun(terms, &e.history.signed); err != nil {
		return nil, &refusal{"policy", err}
	}
	// Last: it may end this instance, which only what the policy allows is worth.
	if err := e.alone(isCustom); err != nil {
		return nil, err
	}
	return &pendingRequest{statement: s, body: body, config: config, strategy: strategy, app: app, members: members}, nil
}

// strategyOf returns the native strategy of a run, with the arguments that its config
// holds.
func strategyOf(name string, config []byte) (*aggregate.Strategy, error) {
	var values map[string]any
	if err := cose.Unmarshal(config, &values); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	return aggregate.New(name, policy.StrategyArguments(values))
}

// nodeStatement parses and verifies a statement that must be n's own, of the
// current policy.
func (e *Enclave) nodeStatement(n *node, raw []byte, kind receipt.Kind) (*receipt.Statement, error) {
	u, err := receipt.Parse(raw)
	if err != nil {
		return nil, &refusal{"invalid", err}
	}
	s, err := u.Verify(n.key)
	switch {
	case err != nil:
		return nil, &refusal{"invalid", err}
	case s.Kind != kind || s.Federation != e.fed:
		return nil, refused("invalid", "%s of federation %s, want %s of %s", s.Kind, s.Federation.Short(), kind, e.fed.Short())
	case s.Policy != e.policy.Digest():
		return nil, refused("policy", "%s under policy %s, in force is %s", kind, s.Policy.Short(), e.policy.Digest().Short())
	}
	return s, nil
}

// abandon ends a run that an enclave before this one began and lost before it offered
// it to anybody: its requester asks again, and so knows of no run.
func (e *Enclave) abandon(request Digest) {
	for digest, l := range e.history.runs {
		if l.statement.Body.(*receipt.Run).Request != request || l.ended != nil || len(l.steps) > 0 || e.runs[digest] != nil {
			continue
		}
		var err error
		if l.ended, err = e.sign(receipt.KindEnd, digest, &receipt.End{Step: digest, Outcome: receipt.Failed, Code: "other"}, nil); err != nil {
			e.log.ErrorContext(e.ctx, "lost run not ended", "run", digest.Short(), "reason", err.Error())
		}
	}
}

func (e *Enclave) used(request Digest) bool {
	if e.history.requests[request] {
		return true
	}
	for _, r := range e.runs {
		if r.body.Request == request {
			return true
		}
	}
	return slices.ContainsFunc(e.waiting, func(p *pendingRequest) bool { return p.statement.Digest() == request })
}

// startWaiting starts the runs whose members are all here, once a quorum of the
// policy has joined (protocol F12).
func (e *Enclave) startWaiting() {
	if uint64(e.members()) < e.policy.Approvals {
		return
	}
	e.waiting = slices.DeleteFunc(e.waiting, func(p *pendingRequest) bool {
		cohort, _, err := e.cohort(p.members)
		if err != nil || cohort.Members() < uint64(len(p.members)) || p.initial == nil && p.bundle == nil {
			return false
		}
		if err := e.start(p, cohort); err != nil {
			if id, _ := p.statement.Node(); e.nodes[id] != nil {
				err = e.refuse(e.nodes[id], p.statement.Digest(), err)
			}
			e.log.ErrorContext(e.ctx, "run not started", "request", p.statement.Digest().Short(), "reason", err.Error())
		}
		return true
	})
}

func (e *Enclave) self() receipt.Enclave {
	return receipt.Enclave{Instance: e.instance, Epoch: e.epoch, Policy: e.policy.Digest(), Evidence: e.evidence}
}

// start signs the run statement, step 0, and offers it to the cohort.
func (e *Enclave) start(p *pendingRequest, cohort receipt.Cohort) error {
	if err := e.alone(p.custom()); err != nil {
		return err
	}
	requester, _ := p.statement.Node()
	r := &run{e: e, request: p.statement.Raw(), config: p.config, strategy: p.strategy, cohort: cohort, participants: map[Digest]*participant{}, model: p.initial}
	var id [8]byte
	if _, err := rand.Read(r.downlink[:]); err != nil {
		return err
	}
	if _, err := rand.Read(id[:]); err != nil {
		return err
	}
	for _, c := range cohort {
		r.participants[c.Node] = &participant{member: c.Member}
	}
	r.body = &receipt.Run{
		Request: p.statement.Digest(), Requester: requester, App: p.body.App, Config: p.body.Config,
		Strategy: p.body.Strategy, Class: string(policy.ClassCustom), Exposure: string(p.app.Exposure), Rounds: p.body.Rounds,
		Cohort: cohort.Digest(), Nodes: uint64(len(cohort)), Members: cohort.Members(),
		DownlinkCommit: chunkstore.DownlinkCommit(r.downlink), Frozen: p.frozen, Dropouts: e.policy.Release.Dropouts,
		Numeric: customProfile, Evidence: e.evidence, RunID: binary.BigEndian.Uint64(id[:]),
	}
	var err error
	if p.custom() {
		r.custom = &custom{bundle: p.bundle, addressed: p.app.Addressed, over: make(chan struct{})}
		if err := r.startApp(); err != nil {
			return err
		}
	} else {
		r.body.Class, r.body.Numeric = string(p.strategy.Class()), p.strategy.Profile()
	}
	r.statement, err = e.sign(receipt.KindRun, Digest{}, r.body, func(s *receipt.Statement) (err error) {
		r.chain, err = receipt.NewStepChain(s, cohort, verifier.StepRules(e.policy), e.self())
		return err
	})
	if err != nil {
		r.stopApp()
		return err
	}
	r.digest = r.statement.Digest()
	e.runs[r.digest] = r
	e.served, e.spent = true, p.custom()
	e.log.InfoContext(e.ctx, "run started", "run", r.digest.Short(), "nodes", len(cohort), "members", r.body.Members)
	e.observe("run", 0)
	credentials := r.credentialList()
	r.credentials = cose.Sum(credentials)
	r.publish(credentials)
	for _, c := range cohort {
		r.offer(e.nodes[c.Node])
	}
	r.deadline(e.policy.Release.StepDeadline.Duration(), func() { r.fail("late", "not every node of the cohort accepted the run in time") })
	return nil
}

// credentialList is those of the cohort, for whoever audits the run.
func (r *run) credentialList() []byte {
	var list [][]byte
	for _, c := range r.cohort {
		if n := r.e.nodes[c.Node]; n != nil {
			list = append(list, n.credential)
		}
	}
	return receipt.EncodeList(list)
}

// publish stores public objects of the run at the link.
func (r *run) publish(blobs ...[]byte) {
	r.e.loop.Job(func(ctx context.Context) func() {
		for _, b := range blobs {
			if _, err := r.e.peer.PutBlob(ctx, b); err != nil {
				return func() { r.fail("other", "public objects not stored: "+err.Error()) }
			}
		}
		return nil
	})
}

func (r *run) offer(n *node) {
	if n == nil {
		return
	}
	r.send(n, &session.RunOffer{Statement: r.statement.Raw(), Request: r.request, Cohort: r.cohort.Encode(), Config: r.config, Credentials: r.credentials})
}

// send seals m for a node; one that is not joined gets it when it resumes.
func (r *run) send(n *node, m session.Message) {
	if err := r.e.send(n, m); err != nil {
		r.e.log.ErrorContext(r.e.ctx, "message not sent", "node", n.id.Short(), "reason", err.Error())
	}
}

// broadcast sends m to every node of the cohort that accepted and is here.
func (r *run) broadcast(m session.Message) {
	for _, c := range r.cohort {
		if n := r.e.nodes[c.Node]; n != nil && r.participants[c.Node].uplink != nil {
			r.send(n, m)
		}
	}
}

// accept takes a node's uplink secret and gives it the downlink's.
func (r *run) accept(n *node, m *session.RunAccept) error {
	p := r.participants[n.id]
	switch {
	case p == nil:
		return errors.New("node is not of the cohort")
	case len(m.Uplink) != 32:
		return errors.New("uplink secret is not 32 bytes")
	case r.ended:
		return errors.New("run has ended")
	case p.uplink != nil && *p.uplink != [32]byte(m.Uplink):
		return errors.New("node accepted before with another secret")
	}
	u := [32]byte(m.Uplink)
	p.uplink = &u
	r.send(n, &session.RunKey{Run: r.digest, Downlink: r.downlink[:], Generation: r.body.Generation})
	if !r.started && r.accepted() == len(r.cohort) {
		r.begin()
	}
	return nil
}

func (r *run) accepted() (count int) {
	for _, p := range r.participants {
		if p.uplink != nil {
			count++
		}
	}
	return count
}

// decline ends a run that has not begun: the cohort is fixed.
func (r *run) decline(n *node, m *session.RunDecline) error {
	if r.participants[n.id] == nil || r.started {
		return errors.New("declines a run that it is not asked for")
	}
	r.fail("policy", fmt.Sprintf("node %s of %s declined: %s", n.id.Short(), n.member, coarse(m.Code)))
	return nil
}

// stopRun ends a run on behalf of the node that asked for it, and of no other. What was
// released stays released; a step that waits for acks never leaves.
func (e *Enclave) stopRun(n *node, m *session.StopRun) error {
	for i, p := range e.waiting {
		if requester, _ := p.statement.Node(); p.statement.Digest() == m.Request && requester == n.id {
			e.waiting = slices.Delete(e.waiting, i, i+1)
			return e.send(n, &session.Refused{Subject: m.Request, Code: "stopped"})
		}
	}
	for _, r := range e.runs {
		if r.body.Request == m.Request && r.body.Requester == n.id {
			e.log.InfoContext(e.ctx, "run stopped by its requester", "run", r.digest.Short())
			r.end(receipt.Stopped, "stopped")
			return nil
		}
	}
	return errors.New("stops a run that it did not ask for")
}

// begin opens step 1: it has no inputs, its outputs are the initial model.
func (r *run) begin() {
	r.started = true
	if r.custom != nil {
		r.ask(&closing{attempt: 1})
		return
	}
	r.propose(&closing{attempt: 1, opens: receipt.OpensTrain, round: 1, produce: r.initial(r.model)})
}

// deadline replaces the deadline in force.
func (r *run) deadline(d time.Duration, f func()) {
	r.cancelDeadline()
	r.stop = r.e.loop.After(d, f)
}

func (r *run) cancelDeadline() {
	if r.stop != nil {
		r.stop()
		r.stop = nil
	}
}

// fail ends the run without a result. The reason stays here, the code is public.
func (r *run) fail(code, reason string) {
	r.e.log.ErrorContext(r.e.ctx, "run failed", "run", r.digest.Short(), "code", code, "reason", reason)
	r.end(receipt.Failed, code)
}

// end signs the end statement and tells the cohort once it is witnessed. The run stays
// in memory for nodes that come back later.
func (r *run) end(outcome, code string) {
	if r.ended {
		return
	}
	r.ended = true
	r.stopApp()
	r.cancelDeadline()
	r.closing, r.model, r.held = nil, nil, nil
	seq, last := r.chain.Final()
	s, err := r.e.sign(receipt.KindEnd, r.digest, &receipt.End{Seq: seq, Step: last.Digest(), Outcome: outcome, Code: code}, r.chain.Extend)
	if err != nil {
		r.e.log.ErrorContext(r.e.ctx, "end not signed", "run", r.digest.Short(), "reason", err.Error())
		return
	}
	r.ending = s
	r.e.whenPublished(s.Digest(), func() {
		for _, c := range r.cohort { // those too that had not accepted yet, or not again
			if n := r.e.nodes[c.Node]; n != nil {
				r.send(n, &session.Ended{Statement: s.Raw()})
			}
		}
		r.e.log.InfoContext(r.e.ctx, "run ended", "run", r.digest.Short(), "outcome", outcome)
		r.e.observe("ended", seq)
		r.e.retire()
	})
}
