package node

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/chunkstore/transfer"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/flower"
	"github.com/concordat/concordat/internal/loop"
	"github.com/concordat/concordat/internal/session"
	"github.com/concordat/concordat/node/journal"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/receipt"
)

// RunRequest is what a user of this node's member asks for.
type RunRequest struct {
	App      Digest
	Strategy string
	Rounds   uint64
	Config   map[string]any // values are bool, int64, float64 or string
	Cohort   []string       // members that must take part; empty: all
	Initial  [][]byte       // objects of the initial arrays, post-order, the root RecordDict last
	// Objects, if set, is called once instead: it gives the same objects to add, one at a
	// time, and returns add's error. So a model of any size needs no memory here.
	Objects func(add func(raw []byte) error) error
}

// request is one that was signed. It lives in memory: a run that no enclave has taken
// when the node stops is asked for again by the user.
type request struct {
	digest   Digest
	msg      session.Message // RunRequest or StoredRunRequest
	notAfter time.Time
	sentTo   attestation.ID // the enclave that has it, or none
	answered bool           // a run was offered for it, or it was refused
	stop     bool           // its user wants it to end
}

// requestLife is how long an enclave may take a request.
const requestLife = 10 * time.Minute

// maxInline bounds the initial arrays that travel in the request's message: it leaves
// room for the rest.
const maxInline = session.MaxMessage - 64<<10

// StartRun signs a request and sends it as soon as an enclave is joined. Initial arrays
// that do not fit into a message are sealed and stored at the link first. ctx bounds
// that. It may be called while Run runs, from any goroutine.
func (n *Node) StartRun(ctx context.Context, q RunRequest) (Digest, error) {
	i := initialArrays{n: n, ctx: ctx, outline: map[object.ID][]byte{}, heads: map[object.ID]object.NPY{}}
	give := q.Objects
	if give == nil {
		give = func(add func([]byte) error) error {
			for _, raw := range q.Initial {
				if err := add(raw); err != nil {
					return err
				}
			}
			return nil
		}
	}
	err := i.take(give)
	if err != nil {
		return Digest{}, fmt.Errorf("initial arrays: %w", err)
	}
	return loop.Ask(n.ctx, n.loop, func() (Digest, error) { return n.startRun(q, &i) })
}

// initialArrays are the objects of a request, in memory while they are few.
type initialArrays struct {
	n      *Node
	ctx    context.Context
	inline [][]byte
	size   int
	stored session.StoredArrays
	upload *transfer.Upload
	parcel *chunkstore.ParcelWriter // nil while they are inline

	outline map[object.ID][]byte     // all but the chunks
	heads   map[object.ID]object.NPY // of chunks that begin an array
	root    object.ID                // of outline
}

func (i *initialArrays) take(give func(add func([]byte) error) error) error {
	err := give(i.add)
	if i.parcel == nil {
		return err
	}
	var s chunkstore.Sealed
	if err == nil {
		s, err = i.parcel.Close()
	}
	if err = errors.Join(err, i.upload.Close()); err != nil {
		return err
	}
	m := s.Manifest
	i.stored.Manifest, i.stored.Root, i.stored.Count = session.ManifestRef{OID: Digest(m.OID), ID: Digest(m.ID), Size: m.Size}, s.Root, s.Count
	return nil
}

// check refuses, in words for the user, what the enclave would refuse with a code: arrays
// that no native strategy aggregates, and settings that freeze others than there are.
func (i *initialArrays) check(config []byte) error {
	dict, err := inflate(i.root, func(id object.ID) ([]byte, error) { return lookup(i.outline, id) })
	if err != nil {
		return fmt.Errorf("initial arrays: %w", err)
	}
	for _, it := range dict {
		arrays, ok := it.Record.(object.ArrayRecord)
		if !ok {
			continue
		}
		for _, a := range arrays {
			if i.n.cfg.CheckArray == nil || len(a.Array.Chunks) == 0 {
				continue
			}
			if err := i.n.cfg.CheckArray(a.Name, i.heads[a.Array.Chunks[0].ID].Descr); err != nil {
				return fmt.Errorf("initial arrays: %w", err)
			}
		}
		if _, err := flower.Frozen(config, arrays); err != nil {
			return err
		}
	}
	return nil
}

func (i *initialArrays) add(raw []byte) error {
	if h, err := object.ParseHead(raw); err == nil && h.Kind != object.KindArrayChunk {
		i.root = object.Sum(raw)
		i.outline[i.root] = bytes.Clone(raw)
	} else if npy, e := object.ParseNPY(h.Body); err == nil && e == nil {
		i.heads[object.Sum(raw)] = npy
	}
	if i.parcel != nil {
		return i.parcel.Add(raw)
	}
	i.inline = append(i.inline, bytes.Clone(raw))
	if i.size += len(raw) + 16; i.size <= maxInline {
		return nil
	}
	if _, err := rand.Read(i.stored.Place[:]); err != nil {
		return err
	}
	if _, err := rand.Read(i.stored.Secret[:]); err != nil {
		return err
	}
	i.upload = i.n.chunks.Upload(i.ctx, chunkstore.Scope{Federation: i.n.fed, Run: i.stored.Place, Owner: i.n.id})
	i.parcel = chunkstore.NewParcelWriter(chunkstore.NewUplink(i.stored.Secret, i.stored.Place, 0), i.upload.Add)
	for _, raw := range i.inline {
		if err := i.parcel.Add(raw); err != nil {
			return err
		}
	}
	i.inline = nil
	return nil
}

// checkStrategy refuses, in words for the user, what the enclave would refuse with a code.
func (n *Node) checkStrategy(name string, arguments map[string]any, freezes bool) error {
	switch {
	case name == policy.StrategyCustom && freezes:
		return fmt.Errorf("the app's own code aggregates: %s is for native strategies", policy.KeyFrozen)
	case name == policy.StrategyCustom && len(arguments) > 0:
		return fmt.Errorf("the app's own code aggregates, and takes no arguments %s…", policy.ConfigPrefix)
	case name == policy.StrategyCustom || n.cfg.CheckStrategy == nil:
		return nil
	}
	return n.cfg.CheckStrategy(name, arguments)
}

// message is what the enclave gets.
func (i *initialArrays) message(statement, config []byte) session.Message {
	if i.parcel != nil {
		return &session.StoredRunRequest{Statement: statement, Config: config, Initial: i.stored}
	}
	return &session.RunRequest{Statement: statement, Config: config, Initial: i.inline}
}

func (n *Node) startRun(q RunRequest, initial *initialArrays) (Digest, error) {
	if q.Config == nil {
		q.Config = map[string]any{}
	}
	if n.history.denials.Contains(policy.DenyApp, q.App[:]) {
		return Digest{}, fmt.Errorf("app %s is denied by a member", q.App.Short())
	}
	config := cose.Marshal(q.Config)
	_, freezes := q.Config[policy.KeyFrozen]
	if err := n.checkStrategy(q.Strategy, policy.StrategyArguments(q.Config), freezes); err != nil {
		return Digest{}, err
	}
	if q.Strategy != policy.StrategyCustom {
		if err := initial.check(config); err != nil {
			return Digest{}, err
		}
	}
	body := &receipt.RunRequest{
		App: q.App, Config: cose.Sum(config), Strategy: q.Strategy, Rounds: q.Rounds, ResultsTo: string(n.cfg.Member),
		Cohort: q.Cohort,
	}
	notAfter := n.cfg.Now().Add(requestLife)
	body.NotAfter = uint64(notAfter.Unix())
	if _, err := rand.Read(body.Nonce[:]); err != nil {
		return Digest{}, err
	}
	s, err := n.sign(receipt.KindRunRequest, Digest{}, body)
	if err != nil {
		return Digest{}, err
	}
	if err := n.journal.Signed(s); err != nil {
		n.loop.Stop(err)
		return Digest{}, err
	}
	r := &request{digest: s.Digest(), notAfter: notAfter, msg: initial.message(s.Raw(), config)}
	if size := len(session.EncodeMessage(r.msg)); size > session.MaxMessage {
		return Digest{}, fmt.Errorf("run request of %d bytes, limit %d: its config is too large", size, session.MaxMessage)
	}
	n.requests = append(n.requests, r)
	n.tell(Event{Kind: "requested", Request: r.digest})
	n.sendRequests()
	return r.digest, nil
}

// StopRun ends the run of a request that this node signed, or takes the request back
// if no enclave has taken it. It returns when that is on its way: an event tells of the
// end. It may be called while Run runs, from any goroutine.
func (n *Node) StopRun(request Digest) error {
	return n.onLoop(func() error { return n.stopRun(request) })
}

func (n *Node) stopRun(request Digest) error {
	r := n.ownRequest(request)
	if r == nil {
		return fmt.Errorf("%w: request %s", ErrNotRequested, request.Short())
	}
	r.stop = true
	if r.sentTo.IsZero() { // no enclave knows of it
		r.answered = true
		n.tell(Event{Kind: "refused", Request: request, Reason: "taken back by its user"})
		return nil
	}
	n.sendStops()
	return nil
}

// ErrNotRequested is returned for a run that no user of this node asked for since it
// started.
var ErrNotRequested = errors.New("node: this node did not ask for such a run since it started")

// sendStops tells the joined enclave what is to end; one that ended it before takes no
// notice.
func (n *Node) sendStops() {
	if n.enclave == nil {
		return
	}
	for _, r := range n.requests {
		if !r.stop || r.sentTo.IsZero() {
			continue
		}
		if err := n.send(&session.StopRun{Request: r.digest}); err != nil {
			n.log.WarnContext(n.ctx, "stop waits for an enclave", "request", r.digest.Short(), "reason", err.Error())
		}
	}
}

// sendRequests hands what waits to the joined enclave: also what an enclave before it
// took and did not answer.
func (n *Node) sendRequests() {
	if n.enclave == nil {
		return
	}
	for _, r := range n.requests {
		if r.sentTo == n.enclave.Instance || r.answered || n.cfg.Now().After(r.notAfter) {
			continue
		}
		if r.stop { // the enclave that took it is gone, and offered no run for it
			r.answered, r.stop = true, false
			n.tell(Event{Kind: "refused", Request: r.digest, Reason: "taken back by its user"})
			continue
		}
		if err := n.send(r.msg); err != nil {
			n.log.WarnContext(n.ctx, "run request waits", "request", r.digest.Short(), "reason", err.Error())
			return
		}
		r.sentTo = n.enclave.Instance
	}
}

// ownRequest returns the request if this node's own user asked for it, or nil.
func (n *Node) ownRequest(digest Digest) *request {
	for _, r := range n.requests {
		if r.digest == digest {
			return r
		}
	}
	return nil
}

// requested finds the run of a request that this node signed before it was restarted. Of
// one that has ended it returns the end too; one that goes on may be stopped again.
func (n *Node) requested(digest Digest) (run Digest, over Event, err error) {
	for _, r := range n.runs {
		if r.request != digest {
			continue
		}
		if n.ownRequest(digest) == nil { // an enclave has it, and has answered
			n.requests = append(n.requests, &request{digest: digest, notAfter: n.cfg.Now().Add(requestLife), sentTo: r.chain.Enclave().Instance, answered: true})
		}
		return r.digest, Event{}, nil
	}
	var end []byte
	n.journal.View(func(s *journal.State) {
		for d, j := range s.Runs {
			if len(j.Ended) > 0 && cose.Sum(j.Offer.Request) == digest {
				run, end = d, j.Ended
			}
		}
	})
	if end == nil {
		return run, Event{}, errUnknownRun
	}
	u, err := receipt.Parse(end)
	if err != nil {
		return run, Event{}, err
	}
	key, _, ok := n.history.epochs.KeyOf(u.Issuer())
	if !ok {
		return run, Event{}, errors.New("its end is signed by an enclave that the log does not know")
	}
	s, err := u.Verify(key)
	if err != nil {
		return run, Event{}, err
	}
	body, ok := s.Body.(*receipt.End)
	if !ok {
		return run, Event{}, fmt.Errorf("%s does not end a run", s.Kind)
	}
	return run, Event{Kind: "ended", Run: run, Request: digest, Seq: body.Seq, Outcome: body.Outcome, Reason: body.Code}, nil
}

// refusedBy tells what the enclave refused.
func (n *Node) refusedBy(m *session.Refused) error {
	n.log.WarnContext(n.ctx, "the enclave refused", "subject", m.Subject.Short(), "code", m.Code)
	own := n.ownRequest(m.Subject)
	if own != nil && m.Code == session.CodeInstance && !own.stop {
		// It ends, and the next gets the request as soon as this node has joined it.
		n.tell(Event{Kind: "deferred", Request: m.Subject, Reason: "this instance of the enclave has served another run: the next one gets the request"})
		return nil
	}
	if own != nil {
		own.answered, own.stop = true, false
	}
	n.tell(Event{Kind: "refused", Request: m.Subject, Reason: "the enclave refused it: " + m.Code})
	return nil
}
