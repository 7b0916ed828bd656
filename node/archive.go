package node

import (
	"archive/zip"
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/durable"
	"github.com/concordat/concordat/internal/flower"
	"github.com/concordat/concordat/internal/merkle"
	"github.com/concordat/concordat/internal/relay"
	"github.com/concordat/concordat/internal/session"
	"github.com/concordat/concordat/node/journal"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/receipt"
	"github.com/concordat/concordat/verifier/tlog"
)

// The files that are left of a run, in [Node.runDir].
const (
	bundleFile = "bundle.cbor"
	modelFile  = "model.npz"
)

// maxModel bounds the file of the final model: few objects can name one another often.
const maxModel = 8 << 30

// runDir is where the node keeps what is left of a run.
func (n *Node) runDir(run Digest) string { return filepath.Join(n.dir, "runs", run.String()) }

// snapshot is what the loop hands to the job that writes a bundle.
type snapshot struct {
	run         journal.Run
	entries     [][]byte
	published   map[Digest]uint64 // entries of this run's statements
	missed      []missedStep
	checkpoints [][]byte
	head        *tlog.Checkpoint
}

// missedStep is a released step whose task this node never got: its enclave was lost
// first, or the node was away.
type missedStep struct {
	step            *receipt.Step
	statement, acks Digest // of the step; root of the acks
	instance        attestation.ID
}

// witnessWait is how long a bundle waits for the member's own witness. A bundle
// without it is written all the same: its verdict says what is missing.
const witnessWait = 10 * time.Second

// whenWitnessed runs f on the loop, once, when the statement is in a checkpoint that
// the member's own witness has cosigned: the officer's verdict rests on it (protocol
// F16), and it may be the last to cosign.
func (n *Node) whenWitnessed(statement Digest, f func()) {
	h := &n.history
	done := false
	var try func()
	try = func() {
		if done {
			return
		}
		if i, ok := h.published[statement]; ok && h.witnessed != nil && i < h.witnessed.Size {
			done = true
			f()
			return
		}
		h.officer = append(h.officer, try)
	}
	n.loop.After(witnessWait, func() {
		if !done {
			done = true
			n.log.WarnContext(n.ctx, "the member's own witness has not cosigned the end of the run")
			f()
		}
	})
	try()
}

// snapshotOf copies what a bundle needs, up to the newest checkpoint that the member's
// own witness has cosigned. It runs on the loop.
func (n *Node) snapshotOf(run Digest) snapshot {
	s := snapshot{head: n.history.witnessed, published: map[Digest]uint64{}}
	if s.head == nil {
		s.head = n.history.head
	}
	s.entries = slices.Clone(n.history.entries[:s.head.Size])
	n.journal.View(func(st *journal.State) {
		s.run = *st.Runs[run]
		s.checkpoints = slices.Clone(st.Checkpoints)
	})
	for digest, index := range n.history.published {
		if index < s.head.Size {
			s.published[digest] = index
		}
	}
	s.missed = n.missedSteps(run, s)
	return s
}

// missedSteps are the steps that the log shows released and that no task told of.
func (n *Node) missedSteps(run Digest, s snapshot) []missedStep {
	steps := map[Digest]*receipt.Statement{}
	var releases []*receipt.Statement
	for _, index := range s.published {
		u, err := receipt.Parse(s.entries[index])
		if err != nil || u.Run() != run || u.Kind() != receipt.KindStep && u.Kind() != receipt.KindRelease {
			continue
		}
		key, _, ok := n.history.epochs.KeyOf(u.Issuer())
		if !ok {
			continue
		}
		switch st, err := u.Verify(key); {
		case err != nil: // the link may log what it likes
		case u.Kind() == receipt.KindStep:
			steps[st.Digest()] = st
		default:
			releases = append(releases, st)
		}
	}
	var missed []missedStep
	for _, r := range releases {
		body := r.Body.(*receipt.Release)
		step := steps[body.Step]
		if step == nil || slices.ContainsFunc(s.run.Tasks, func(t session.Task) bool { return cose.Sum(t.Step) == body.Step }) {
			continue
		}
		if instance, ok := step.Instance(); ok {
			missed = append(missed, missedStep{step: step.Body.(*receipt.Step), statement: body.Step, acks: body.AcksRoot, instance: instance})
		}
	}
	return missed
}

// archive writes the bundle of an ended run for the member's officer: policy,
// evidence and what endorses it, all entries of the log, the lists under the roots of
// every step, receipts and cosigned checkpoints.
func (n *Node) archive(ctx context.Context, run Digest, s snapshot) error {
	if err := os.MkdirAll(n.runDir(run), 0o700); err != nil {
		return err
	}
	items, err := n.collect(ctx, run, s)
	if err != nil {
		return fmt.Errorf("bundle: %w", err)
	}
	slices.SortFunc(items, func(a, b *receipt.Item) int {
		return cmp.Or(cmp.Compare(a.Section, b.Section), cmp.Compare(a.Role, b.Role), bytes.Compare(a.Subject[:], b.Subject[:]), cmp.Compare(a.Index, b.Index))
	})
	items = slices.CompactFunc(items, func(a, b *receipt.Item) bool {
		return a.Section == b.Section && a.Role == b.Role && a.Subject == b.Subject && a.Index == b.Index
	})
	var b bytes.Buffer
	w, err := receipt.NewBundleWriter(&b, n.fed, []Digest{run})
	if err != nil {
		return err
	}
	for _, i := range items {
		if err := w.Add(i); err != nil {
			return fmt.Errorf("bundle: %w", err)
		}
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("bundle: %w", err)
	}
	return durable.WriteFile(durable.OS{}, filepath.Join(n.runDir(run), bundleFile), b.Bytes(), 0o600)
}

func blob(role string, subject Digest, data []byte) *receipt.Item {
	return &receipt.Item{Section: receipt.SectionBlob, Role: role, Subject: subject, Data: data}
}

// collect gathers the items of a bundle, in any order.
func (n *Node) collect(ctx context.Context, run Digest, s snapshot) ([]*receipt.Item, error) {
	items := []*receipt.Item{
		{Section: receipt.SectionPolicy, Data: n.chain.Encode()},
		blob(receipt.RoleRequest, cose.Sum(s.run.Offer.Request), s.run.Offer.Request),
		blob(receipt.RoleCohort, cose.Sum(s.run.Offer.Cohort), s.run.Offer.Cohort),
	}
	for i, e := range s.entries {
		items = append(items, &receipt.Item{Section: receipt.SectionEntry, Index: uint64(i), Data: e})
	}
	for _, note := range s.checkpoints {
		cp, _, err := tlog.Open(note, n.history.trust)
		if err != nil {
			return nil, err
		}
		item := &receipt.Item{Section: receipt.SectionCheckpoint, Index: cp.Size, Data: note}
		switch last := items[len(items)-1]; {
		case cp.Size > s.head.Size:
		case last.Section == receipt.SectionCheckpoint && last.Index == cp.Size:
			items[len(items)-1] = item // the same, with more cosignatures
		default:
			items = append(items, item)
		}
	}
	credentials, err := n.credentials(ctx, s.run.Offer.Credentials)
	if err != nil {
		return nil, err
	}
	items = append(items, credentials...)
	for _, t := range s.run.Tasks {
		lists, err := n.lists(ctx, t)
		if err != nil {
			return nil, err
		}
		items = append(items, lists...)
	}
	for _, m := range s.missed {
		items = append(items, n.missedLists(ctx, m)...)
	}
	vouched, err := n.evidence(ctx, s.entries)
	if err != nil {
		return nil, err
	}
	items = append(items, vouched...)
	receipts, err := n.receipts(ctx, run, s)
	return append(items, receipts...), err
}

func (n *Node) credentials(ctx context.Context, list Digest) ([]*receipt.Item, error) {
	b, err := n.peer.Blob(ctx, list)
	if err != nil {
		return nil, err
	}
	raw, err := receipt.ParseList(b)
	if err != nil {
		return nil, err
	}
	var items []*receipt.Item
	for _, c := range raw {
		node, err := policy.CredentialNode(c)
		if err != nil {
			return nil, err
		}
		items = append(items, blob(receipt.RoleCredential, node, c))
	}
	return items, nil
}

// lists are the contributions, exclusions and acks of a step.
func (n *Node) lists(ctx context.Context, t session.Task) ([]*receipt.Item, error) {
	step := cose.Sum(t.Step)
	var items []*receipt.Item
	for role, d := range map[string]Digest{receipt.RoleInputs: t.Inputs, receipt.RoleExcluded: t.Excluded, receipt.RoleAcks: t.Acks} {
		if d.IsZero() {
			continue
		}
		b, err := n.peer.Blob(ctx, d)
		if err != nil {
			return nil, err
		}
		if role == receipt.RoleExcluded {
			if x, err := receipt.ParseExcluded(b); err != nil || len(x) == 0 {
				continue
			}
		}
		items = append(items, blob(role, step, b))
	}
	return items, nil
}

// missedLists are the lists of a step that the link finds by name. What it has lost, or
// changed, is left out: the verdict says what is missing.
func (n *Node) missedLists(ctx context.Context, m missedStep) []*receipt.Item {
	var items []*receipt.Item
	for _, l := range []struct {
		role string
		root func([]byte) (Digest, error)
		want Digest
	}{
		{receipt.RoleInputs, listRoot(merkle.InputEntry), m.step.InputsRoot},
		{receipt.RoleAcks, listRoot(merkle.AckEntry), m.acks},
		{receipt.RoleExcluded, func(b []byte) (Digest, error) {
			x, err := receipt.ParseExcluded(b)
			return x.Root(), err
		}, m.step.ExcludedRoot},
	} {
		if l.role == receipt.RoleExcluded && m.step.ExcludedCount == 0 {
			continue
		}
		b, err := n.peer.Named(ctx, relay.Name{Instance: m.instance, Statement: m.statement, Role: l.role})
		if err == nil {
			var root Digest
			if root, err = l.root(b); err == nil && root != l.want {
				err = fmt.Errorf("the link sent a list with root %s, want %s", root.Short(), l.want.Short())
			}
		}
		if err != nil {
			n.log.WarnContext(ctx, "list of a step is not to be had", "step", m.statement.Short(), "role", l.role, "reason", err.Error())
			continue
		}
		items = append(items, blob(l.role, m.statement, b))
	}
	return items
}

// listRoot is the root over the statements in a list.
func listRoot(entry func(merkle.Hash) []byte) func([]byte) (Digest, error) {
	return func(b []byte) (Digest, error) {
		list, err := receipt.ParseList(b)
		var tree receipt.Tree
		for _, raw := range list {
			tree.Append(entry(merkle.Hash(cose.Sum(raw))))
		}
		return tree.Root(), err
	}
}

// evidence is the envelope of every evidence statement of the log and what endorses
// it. What the link has lost is left out: the verdict says what is missing.
func (n *Node) evidence(ctx context.Context, entries [][]byte) ([]*receipt.Item, error) {
	var items []*receipt.Item
	for _, e := range entries {
		u, err := receipt.Parse(e)
		if err != nil || u.Kind() != receipt.KindEvidence {
			continue
		}
		envelope, err := n.peer.Blob(ctx, u.Envelope())
		if err != nil {
			n.log.WarnContext(ctx, "evidence is not to be had", "envelope", u.Envelope().Short(), "reason", err.Error())
			continue
		}
		items = append(items, blob(receipt.RoleEvidence, u.Envelope(), envelope))
		ev, err := attestation.ParseEvidence(envelope)
		if err != nil {
			return nil, err
		}
		for _, it := range ev.Items {
			for _, d := range it.Endorsements {
				b, err := n.peer.Blob(ctx, d)
				if err != nil {
					n.log.WarnContext(ctx, "endorsement is not to be had", "endorsement", d.Short(), "reason", err.Error())
					continue
				}
				x, err := attestation.ParseEndorsement(b)
				if err != nil {
					return nil, err
				}
				items = append(items, &receipt.Item{Section: receipt.SectionEndorsement, Role: x.Type, Subject: d, Data: x.Data})
			}
		}
	}
	return items, nil
}

// receipts are the log's for the statements of this run.
func (n *Node) receipts(ctx context.Context, run Digest, s snapshot) ([]*receipt.Item, error) {
	var items []*receipt.Item
	for digest, index := range s.published {
		u, err := receipt.Parse(s.entries[index])
		if err != nil || u.Run() != run && digest != run {
			continue
		}
		b, err := n.peer.Receipt(ctx, index, s.head.Size)
		if err != nil {
			return nil, err
		}
		items = append(items, &receipt.Item{Section: receipt.SectionReceipt, Role: receipt.RoleLog, Subject: digest, Data: b})
	}
	return items, nil
}

// saveModel writes the arrays of a step's outputs as a NumPy .npz archive: a zip of
// .npy files, as the arrays were in Flower's objects.
func (n *Node) saveModel(run Digest, root object.ID, objects map[object.ID][]byte) error {
	v, err := object.Inflate(root, func(id object.ID) ([]byte, error) { return lookup(objects, id) }, object.Limits{Objects: maxObjects, Bytes: maxModel})
	if err != nil {
		return err
	}
	dict, ok := v.(object.RecordDict)
	if !ok {
		return errors.New("the final step is no RecordDict")
	}
	arrays, ok := dict.Get(flower.RecordArrays).(object.ArrayRecord)
	if !ok {
		return errors.New("the final step has no arrays")
	}
	if err := os.MkdirAll(n.runDir(run), 0o700); err != nil {
		return err
	}
	t, err := durable.CreateTemp(durable.OS{}, n.runDir(run), 0o600)
	if err != nil {
		return err
	}
	if err = writeNPZ(t, arrays); err == nil {
		err = t.Publish(modelFile)
	}
	if err != nil {
		return errors.Join(err, t.Discard())
	}
	return t.Close()
}

// writeNPZ writes arrays chunk by chunk, as they lie in memory.
func writeNPZ(t *durable.Temp, arrays object.ArrayRecord) error {
	w := bufio.NewWriterSize(io.NewOffsetWriter(t, 0), 1<<20)
	z := zip.NewWriter(w)
	for _, a := range arrays {
		f, err := z.CreateHeader(&zip.FileHeader{Name: a.Name + ".npy", Method: zip.Store})
		if err != nil {
			return err
		}
		for _, c := range a.Array.Chunks {
			if _, err := f.Write(c.Data); err != nil {
				return err
			}
		}
	}
	if err := z.Close(); err != nil {
		return err
	}
	return w.Flush()
}
