package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/session"
	"github.com/concordat/concordat/node/journal"
	"github.com/concordat/concordat/node/state"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier"
	"github.com/concordat/concordat/verifier/receipt"
)

// run is a run that this node takes part in. The loop owns it.
type run struct {
	n         *Node
	digest    Digest
	body      *receipt.Run
	request   Digest
	cohort    receipt.Cohort
	config    []byte
	chain     *receipt.StepChain
	uplink    [32]byte
	down      *[32]byte
	task      *task                         // the newest released step
	sent      map[Digest]*receipt.Statement // contributions, by the step that they answer
	statement []byte                        // the run statement
	recent    [][]byte                      // the newest statements of the run's enclave, oldest first
	over      *session.Ended                // its end, as long as this node's mirror of the log does not show it
	ending    *session.Ended                // its end, while the task with its result may come yet
	gaveUp    bool                          // it did not come
}

// lateTask is how long an ended run waits for its last task. A node that comes back in the
// moment of the end hears of it before the enclave has answered what the node resumes.
const lateTask = 5 * time.Second

// lastWord is how long an app that works on an ended run may go on: what it answers is of no
// use any more, but says the run's users why it ended, where every node's answer is wrong in
// the same way and another's was there first.
const lastWord = 5 * time.Second

// restoreRuns rebuilds the runs that had not ended from the journal.
func (n *Node) restoreRuns() error {
	var err error
	n.journal.View(func(s *journal.State) {
		for digest, j := range s.Runs {
			if len(j.Ended) > 0 {
				continue
			}
			r, e := n.restoreRun(digest, j)
			if e != nil {
				err = errors.Join(err, fmt.Errorf("run %s: %w", digest.Short(), e))
				continue
			}
			n.runs[digest] = r
		}
	})
	return err
}

func (n *Node) restoreRun(digest Digest, j *journal.Run) (*run, error) {
	u, err := receipt.Parse(j.Offer.Statement)
	if err != nil {
		return nil, err
	}
	key, by, ok := n.history.epochs.KeyOf(u.Issuer())
	if !ok {
		return nil, errors.New("signed by an enclave that the log does not know")
	}
	r, err := n.newRun(u, key, by, &j.Offer)
	if err != nil {
		return nil, err
	}
	r.uplink, r.down = j.Uplink, j.Downlink
	for i := range j.Tasks {
		if err := r.take(&j.Tasks[i]); err != nil {
			return nil, err
		}
	}
	for _, c := range j.Contributions {
		u, err := receipt.Parse(c.Statement)
		if err != nil {
			return nil, err
		}
		s, err := u.Verify(n.cfg.Signer.Public())
		if err != nil {
			return nil, err
		}
		r.sent[s.Body.(*receipt.Contribution).Step] = s
	}
	return r, nil
}

// before is the newest step before number seq that this node has contributed to: the app's
// state for number seq is what its answer left. A step that a successor of the enclave
// repeats counts in its last form.
func (r *run) before(seq uint64) state.Step {
	var newest *receipt.Statement
	var at state.Step
	for _, s := range r.sent {
		c := s.Body.(*receipt.Contribution)
		if c.Seq < seq && (newest == nil || s.Seq > newest.Seq) {
			newest, at = s, state.Step{Seq: c.Seq, Digest: c.Step}
		}
	}
	return at
}

// newRun checks a run statement, and what came with it, against the policy.
func (n *Node) newRun(u *receipt.Unverified, key cose.Key, by receipt.Enclave, m *session.RunOffer) (*run, error) {
	s, err := u.Verify(key)
	if err != nil {
		return nil, err
	}
	body, ok := s.Body.(*receipt.Run)
	if !ok || s.Federation != n.fed {
		return nil, fmt.Errorf("%s is no run statement of this federation", s.Kind)
	}
	if s.Policy != n.policy.Digest() {
		return nil, fmt.Errorf("run under policy %s, this node follows %s", s.Policy.Short(), n.policy.Digest().Short())
	}
	c, err := receipt.ParseCohort(m.Cohort)
	if err != nil {
		return nil, err
	}
	if cose.Sum(m.Config) != body.Config || cose.Sum(m.Request) != body.Request {
		return nil, errors.New("config or request is not the one that the run statement names")
	}
	if member, ok := c.Member(n.id); !ok || member != string(n.cfg.Member) {
		return nil, errors.New("this node is not of the cohort")
	}
	app := n.app(body.App)
	if app == nil {
		return nil, fmt.Errorf("app %s is not in the policy, and not signed as it wants", body.App.Short())
	}
	terms := policy.RunTerms{App: body.App, Config: body.Config, Exposure: policy.Exposure(body.Exposure), Strategy: body.Strategy, Rounds: body.Rounds}
	for _, p := range c {
		terms.Cohort = append(terms.Cohort, policy.MemberID(p.Member))
	}
	if err := n.policy.AllowRun(terms, &n.history.signed); err != nil {
		return nil, err
	}
	if class, _ := policy.StrategyClass(body.Strategy); string(class) != body.Class {
		return nil, fmt.Errorf("strategy %s is called %s, it is %s", body.Strategy, body.Class, class)
	}
	chain, err := receipt.NewStepChain(s, c, verifier.StepRules(n.policy), by)
	if err != nil {
		return nil, err
	}
	return &run{n: n, digest: s.Digest(), statement: s.Raw(), body: body, request: body.Request, cohort: c, config: m.Config, chain: chain, sent: map[Digest]*receipt.Statement{}}, nil
}

// message acts on what the enclave said.
func (n *Node) message(m session.Message) error {
	switch m := m.(type) {
	case *session.RunOffer:
		return n.runOffer(m)
	case *session.RunKey:
		return n.runKey(m)
	case *session.Task:
		return n.newTask(m)
	case *session.Admitted:
		return n.admitted(m)
	case *session.AckRequest:
		return n.ackRequest(m)
	case *session.Ended:
		return n.runEnded(m)
	case *session.Refused:
		return n.refusedBy(m)
	case *session.Leave:
		n.leave("the enclave ended it")
		return nil
	}
	return fmt.Errorf("%w: a node takes no %T", session.ErrFrame, m)
}

// runOffer decides whether this node takes part in a run.
func (n *Node) runOffer(m *session.RunOffer) error {
	u, err := receipt.Parse(m.Statement)
	if err != nil {
		return err
	}
	if r := n.runs[u.Digest()]; r != nil {
		return n.send(&session.RunAccept{Run: r.digest, Uplink: r.uplink[:]})
	}
	r, err := n.newRun(u, n.enclave.key, n.enclave.Enclave, m)
	if err == nil {
		err = n.approves(r)
	}
	if own := n.ownRequest(cose.Sum(m.Request)); own != nil {
		own.answered = true
	}
	if err != nil {
		return n.decline(u.Digest(), err)
	}
	if n.cfg.Approve == ApproveEachRun && n.ownRequest(r.request) == nil {
		n.offers[r.digest] = &offered{run: r, msg: m}
		what := r.inWords()
		n.tell(Event{Kind: "offered", Run: r.digest, Request: r.request, Inputs: uint64(len(r.cohort)), Reason: what})
		n.log.InfoContext(n.ctx, "run waits for this owner's approval: concordat run approve", "run", r.digest.String(), "what", what, "nodes", len(r.cohort))
		return nil
	}
	return n.acceptRun(r, m)
}

// inWords says what an owner is asked to approve.
func (r *run) inWords() string {
	who, ok := r.cohort.Member(r.body.Requester)
	if !ok {
		who = "a node outside of the cohort"
	}
	name := r.body.App.Short()
	if app := r.n.app(r.body.App); app != nil {
		name = app.Name + " (" + name + ")"
	}
	s := fmt.Sprintf("%s asks for %s, %d rounds, strategy %s", who, name, r.body.Rounds, r.body.Strategy)
	switch r.body.Class {
	case receipt.ClassCustom:
		s += ": the app's own code in the enclave sees every member's update"
	case receipt.ClassSelecting:
		s += ": a result may be one member's values"
	}
	return s
}

// approves asks the owner's own rules: the app is installed here, and the run is
// approved.
func (n *Node) approves(r *run) error {
	if err := n.appDenied(r); err != nil {
		return err
	}
	if !n.apps.installed(r.body.App) {
		return fmt.Errorf("app %s is not installed on this node", r.body.App.Short())
	}
	if age := n.cfg.Now().Sub(n.enclave.result.At()); age > n.policy.Evidence.MaxAge.Duration() {
		return fmt.Errorf("the enclave's evidence is %s old, the policy allows %s", age, n.policy.Evidence.MaxAge.Duration())
	}
	own := n.ownRequest(r.request)
	if own != nil && n.cfg.Now().After(own.notAfter) {
		return fmt.Errorf("request %s of this node was to be taken before %s: somebody held it back", r.request.Short(), own.notAfter.UTC().Format(time.RFC3339))
	}
	return nil
}

func (n *Node) runKey(m *session.RunKey) error {
	r := n.runs[m.Run]
	if r == nil || len(m.Downlink) != 32 {
		return errors.New("key of no run")
	}
	key := [32]byte(m.Downlink)
	if chunkstore.DownlinkCommit(key) != r.body.DownlinkCommit || m.Generation != r.body.Generation {
		return fmt.Errorf("downlink key of run %s is not the one that its statement commits to", r.digest.Short())
	}
	if r.down == nil {
		if err := n.journal.Downlink(r.digest, key); err != nil {
			n.loop.Stop(err)
			return err
		}
		r.down = &key
	}
	return nil
}

// errNotLogged says that a statement is not in this node's mirror of the log, yet.
var errNotLogged = errors.New("the log does not have it")

// loggedEnd returns an end statement that this node's mirror of the log has.
func (n *Node) loggedEnd(u *receipt.Unverified) (*receipt.Statement, error) {
	if _, ok := n.history.published[u.Digest()]; !ok {
		return nil, errNotLogged
	}
	key, _, ok := n.history.epochs.KeyOf(u.Issuer())
	if !ok {
		return nil, errors.New("signed by an enclave that the log does not know")
	}
	return u.Verify(key)
}

// runEnded closes a run; the end statement is published already.
func (n *Node) runEnded(m *session.Ended) error {
	u, err := receipt.Parse(m.Statement)
	if err != nil {
		return err
	}
	r := n.runs[u.Run()]
	if r == nil {
		return nil
	}
	s, err := r.extend(m.Statement)
	if err != nil {
		// A node that missed the last steps takes the log's word that it is over.
		var logged error
		if s, logged = n.loggedEnd(u); errors.Is(logged, errNotLogged) {
			r.over = m // looked at again when the mirror grows
			return nil
		} else if logged != nil {
			return fmt.Errorf("end of run: %w", errors.Join(err, logged))
		}
	}
	body, ok := s.Body.(*receipt.End)
	if !ok {
		return fmt.Errorf("%s does not end a run", s.Kind)
	}
	if body.Outcome == receipt.Completed && !r.gaveUp && (r.task == nil || r.task.step.Digest() != body.Step) {
		if r.ending == nil {
			r.ending = m
			n.loop.After(lateTask, func() { n.endWithout(r) })
		}
		return nil
	}
	if err := n.journal.Ended(r.digest, m.Statement); err != nil {
		n.loop.Stop(err)
		return err
	}
	delete(n.runs, r.digest)
	n.loop.After(lastWord, r.task.abandon)
	n.apps.finish(r.digest)
	if own := n.ownRequest(r.request); own != nil {
		own.stop = false
	}
	n.log.InfoContext(n.ctx, "run ended", "run", r.digest.Short(), "outcome", body.Outcome, "code", body.Code)
	n.wrapUp(r, s, body)
	return nil
}

// wrapUp writes what is left of an ended run, and then tells the users of its end.
func (n *Node) wrapUp(r *run, s *receipt.Statement, body *receipt.End) {
	n.whenWitnessed(s.Digest(), func() {
		snap := n.snapshotOf(r.digest)
		var working chan struct{}
		if r.task != nil {
			working = r.task.working
		}
		n.loop.Job(func(ctx context.Context) func() {
			if working != nil { // the last step's model is being written
				select {
				case <-working:
				case <-ctx.Done():
					return nil
				}
			}
			err := n.archive(ctx, r.digest, snap)
			return func() {
				if err != nil && ctx.Err() != nil {
					return // this node stops: it is written after the next start
				}
				if err != nil {
					n.log.ErrorContext(n.ctx, "bundle not written", "run", r.digest.Short(), "reason", err.Error())
				}
				if err := n.journal.Archived(r.digest); err != nil {
					n.loop.Stop(err)
					return
				}
				n.tell(Event{Kind: "ended", Run: r.digest, Request: r.request, Seq: body.Seq, Outcome: body.Outcome, Reason: body.Code})
			}
		})
	})
}

// wrapUpEnded does so for runs that ended just before this node stopped, the final model
// included. It is called once, when the link is there.
func (n *Node) wrapUpEnded() {
	left := map[Digest]*journal.Run{}
	n.journal.View(func(s *journal.State) {
		for digest, j := range s.Runs {
			if len(j.Ended) > 0 && !j.Archived && !n.hasFile(digest, bundleFile) { // earlier versions noted no archive
				left[digest] = j
			}
		}
	})
	for digest, j := range left {
		if err := n.wrapUpLate(digest, j); err != nil {
			n.log.ErrorContext(n.ctx, "what is left of a run that had ended is not written", "run", digest.Short(), "reason", err.Error())
		}
	}
}

func (n *Node) wrapUpLate(digest Digest, j *journal.Run) error {
	r, err := n.restoreRun(digest, j)
	if err != nil {
		return err
	}
	u, err := receipt.Parse(j.Ended)
	if err != nil {
		return err
	}
	key, _, ok := n.history.epochs.KeyOf(u.Issuer())
	if !ok {
		return errors.New("its end is signed by an enclave that the log does not know")
	}
	s, err := u.Verify(key)
	if err != nil {
		return err
	}
	body, ok := s.Body.(*receipt.End)
	if !ok {
		return fmt.Errorf("%s does not end a run", s.Kind)
	}
	if r.task != nil && r.task.body.Opens == receipt.OpensNone && r.down != nil && !n.hasFile(digest, modelFile) {
		n.answer(r) // nobody waits for an answer to the last step: it writes the model
	}
	n.wrapUp(r, s, body)
	return nil
}

// hasFile says whether a file of a run is there.
func (n *Node) hasFile(run Digest, name string) bool {
	_, err := os.Stat(filepath.Join(n.runDir(run), name))
	return err == nil
}

// endWithout ends a run whose last task did not come.
func (n *Node) endWithout(r *run) {
	if n.runs[r.digest] != r {
		return
	}
	r.gaveUp = true
	n.log.WarnContext(n.ctx, "the run's last step did not come: this node has no result of it", "run", r.digest.Short())
	if err := n.runEnded(r.ending); err != nil {
		n.log.WarnContext(n.ctx, "end of run refused", "run", r.digest.Short(), "reason", err.Error())
	}
}

// overdue ends the runs whose end the mirror of the log shows by now.
func (n *Node) overdue() {
	for _, r := range n.runs {
		if r.over == nil {
			continue
		}
		if _, ok := n.history.published[cose.Sum(r.over.Statement)]; !ok {
			continue
		}
		over := r.over
		r.over = nil
		if err := n.runEnded(over); err != nil {
			n.log.WarnContext(n.ctx, "end of run refused", "run", r.digest.Short(), "reason", err.Error())
		}
	}
}

// resume brings a successor of a lost enclave what it needs to go on (protocol F11).
func (n *Node) resume() {
	for _, r := range n.runs {
		m := &session.Resume{Uplink: r.uplink[:]}
		n.journal.View(func(s *journal.State) {
			j := s.Runs[r.digest]
			m.Offer = j.Offer
			if j.Downlink != nil {
				m.Downlink = append([]byte(nil), j.Downlink[:]...)
			}
			m.Tasks = slices.Clone(j.Tasks[max(0, len(j.Tasks)-session.MaxResume):])
			m.Contributions = slices.Clone(j.Contributions[max(0, len(j.Contributions)-session.MaxResume):])
		})
		if err := n.send(m); err != nil {
			n.log.ErrorContext(n.ctx, "run not resumed", "run", r.digest.Short(), "reason", err.Error())
		}
		if r.task != nil && r.down != nil {
			n.answer(r) // a restart may have come between the task and its answer
		}
	}
}
