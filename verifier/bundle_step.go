package verifier

import (
	"errors"
	"fmt"

	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/merkle"
	"github.com/concordat/concordat/verifier/receipt"
)

// checkSteps replays the run: the same rules that the enclave and every node
// asked, and for every step that was released its inputs, who was left out, and
// the acks, recomputed from the nodes' own statements.
func (a *audit) checkSteps(r *runAudit, first placedStatement) {
	current := first.by
	chain, err := receipt.NewStepChain(first.Statement, r.cohort, StepRules(current.policy), enclaveOf(current))
	if err != nil {
		a.fail(r.name+"steps", "a run that begins by the rules", err.Error())
		return
	}
	r.sets = newSetAudit(r.digest)
	var pending placedStatement // the step that waits for its release
	for _, s := range r.statements {
		if s.Kind == receipt.KindRun {
			continue
		}
		if s.by != current {
			current = s.by
			if err := chain.Succeed(enclaveOf(current), StepRules(current.policy)); err != nil {
				a.fail(r.name+"steps", "successors by the rules", fmt.Sprintf("entry %d: %v", s.index, err))
				return
			}
		}
		if err := chain.Extend(s.Statement); err != nil {
			a.fail(r.name+"steps", "steps by the rules", fmt.Sprintf("entry %d: %v", s.index, err))
			return
		}
		switch b := s.Body.(type) {
		case *receipt.Step:
			pending = s
			if b.InputsCount == 0 {
				a.countStep(r, s, nil)
			}
		case *receipt.Release:
			members, err := a.checkRelease(r, pending, b)
			if err != nil {
				a.badStep(r, pending, err)
				return
			}
			a.countStep(r, pending, members)
		case *receipt.End:
			r.report.Outcome = b.Outcome
			if b.Code != "" {
				r.report.Outcome += " (" + b.Code + ")"
			}
			if p, ok := a.log.placed(s.index); ok {
				r.report.Ended = p.until
			}
		}
	}
	a.checkSets(r)
	a.pass(r.name+"steps", "%d released, each with the contributions and acks of all its nodes", r.report.Released)
	if chain.Ended() {
		a.pass(r.name+"end", "%s", r.report.Outcome)
	} else {
		a.missing(r.name+"end", "the end of the run in the log", "the run goes on, or its end is not in this bundle")
	}
}

func enclaveOf(e *enclave) receipt.Enclave {
	return receipt.Enclave{Instance: e.claims.Instance, Epoch: e.claims.Epoch, Policy: e.claims.Policy}
}

func (a *audit) countStep(r *runAudit, s placedStatement, members map[string]bool) {
	b := s.Body.(*receipt.Step)
	r.sets.add(s.Digest(), b, members)
	r.report.Released++
	r.report.Inputs += b.InputsCount
	r.report.Excluded += b.ExcludedCount
	r.report.Unasked += b.Unasked
	r.report.Output = b.OutputsRoot
}

func (a *audit) badStep(r *runAudit, s placedStatement, err error) {
	name := fmt.Sprintf("%sstep[%d]", r.name, s.Body.(*receipt.Step).Seq)
	var none missingError
	if errors.As(err, &none) {
		a.missing(name, string(none), "without it nothing shows whose data is in the step")
		return
	}
	a.fail(name, "what the step and its release name", err.Error())
}

// checkRelease recomputes the trees of a released step. It returns the members in it.
func (a *audit) checkRelease(r *runAudit, s placedStatement, rel *receipt.Release) (map[string]bool, error) {
	step := s.Body.(*receipt.Step)
	nodes, err := a.checkInputs(r, s, step)
	if err != nil {
		return nil, fmt.Errorf("inputs: %w", err)
	}
	if err := a.checkExcluded(r, s.Digest(), step, nodes); err != nil {
		return nil, fmt.Errorf("excluded: %w", err)
	}
	if err := a.checkAcks(r, s, step, rel, nodes); err != nil {
		return nil, fmt.Errorf("acks: %w", err)
	}
	members := make(map[string]bool)
	for _, n := range nodes {
		members[r.members[n]] = true
	}
	return members, nil
}

// nodeStatements reads a list of statements, each signed by a node of the cohort
// with its own key, no node twice. It returns the nodes in the list's order.
func (a *audit) nodeStatements(r *runAudit, role string, step cose.Digest, count uint64, each func(node cose.Digest, s *receipt.Statement) error) ([]cose.Digest, error) {
	raw := a.blobs[blobKey{role, step}]
	if raw == nil {
		return nil, missingError(fmt.Sprintf("the %s of step %s", role, step.Short()))
	}
	list, err := receipt.ParseList(raw)
	if err != nil {
		return nil, err
	}
	if uint64(len(list)) != count {
		return nil, fmt.Errorf("%d statements, want %d", len(list), count)
	}
	var nodes []cose.Digest
	seen := make(map[cose.Digest]bool, len(list))
	for _, item := range list {
		u, err := receipt.Parse(item)
		if err != nil {
			return nil, err
		}
		key, ok := r.keys[u.KeyID()]
		if !ok {
			return nil, fmt.Errorf("%s by key %s, which is no node of the cohort", u.Kind(), u.KeyID().Short())
		}
		s, err := u.Verify(key)
		if err != nil {
			return nil, err
		}
		node, _ := s.Node()
		switch {
		case seen[node]:
			return nil, fmt.Errorf("two of node %s", node.Short())
		case s.Federation != a.trust.Federation || s.Run != r.digest:
			return nil, fmt.Errorf("%s of node %s is of another run", s.Kind, node.Short())
		}
		if err := each(node, s); err != nil {
			return nil, err
		}
		seen[node] = true
		nodes = append(nodes, node)
	}
	return nodes, nil
}

func (a *audit) checkInputs(r *runAudit, s placedStatement, step *receipt.Step) ([]cose.Digest, error) {
	var tree receipt.Tree
	members := make(map[string]bool)
	nodes, err := a.nodeStatements(r, receipt.RoleInputs, s.Digest(), step.InputsCount, func(node cose.Digest, c *receipt.Statement) error {
		b, ok := c.Body.(*receipt.Contribution)
		if !ok || b.Seq != step.Seq-1 || b.Step != step.Prev {
			return fmt.Errorf("%s of node %s does not answer step %d (%s)", c.Kind, node.Short(), step.Seq-1, step.Prev.Short())
		}
		members[r.members[node]] = true
		tree.Append(merkle.InputEntry(c.Digest()))
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case tree.Root() != step.InputsRoot:
		return nil, fmt.Errorf("root %s, the step says %s", tree.Root().Short(), step.InputsRoot.Short())
	case step.Members > uint64(len(members)):
		return nil, fmt.Errorf("%d members contributed, the step counts %d", len(members), step.Members)
	}
	return nodes, nil
}

// checkExcluded checks that inputs and excluded nodes are the cohort.
func (a *audit) checkExcluded(r *runAudit, digest cose.Digest, step *receipt.Step, inputs []cose.Digest) error {
	var list receipt.Excluded
	if step.ExcludedCount > 0 {
		raw := a.blobs[blobKey{receipt.RoleExcluded, digest}]
		if raw == nil {
			return missingError("the excluded nodes of step " + digest.Short())
		}
		var err error
		if list, err = receipt.ParseExcluded(raw); err != nil {
			return err
		}
	}
	if counts, unasked := list.Counts(); list.Root() != step.ExcludedRoot || counts != step.ExcludedCodes || unasked != step.Unasked {
		return fmt.Errorf("root %s, reasons %+v and %d not asked, the step says %s, %+v and %d", list.Root().Short(), counts, unasked, step.ExcludedRoot.Short(), step.ExcludedCodes, step.Unasked)
	}
	all := make(map[cose.Digest]bool, len(r.cohort))
	for _, n := range inputs {
		all[n] = true
	}
	for _, x := range list {
		if _, ok := r.members[x.Node]; !ok || all[x.Node] {
			return fmt.Errorf("node %s is not of the cohort, or contributed", x.Node.Short())
		}
		all[x.Node] = true
	}
	if len(all) != len(r.cohort) {
		return fmt.Errorf("%d nodes contributed or were excluded, the cohort has %d", len(all), len(r.cohort))
	}
	return nil
}

func (a *audit) checkAcks(r *runAudit, s placedStatement, step *receipt.Step, rel *receipt.Release, inputs []cose.Digest) error {
	var tree receipt.Tree
	nodes, err := a.nodeStatements(r, receipt.RoleAcks, s.Digest(), rel.AcksCount, func(node cose.Digest, k *receipt.Statement) error {
		b, ok := k.Body.(*receipt.Ack)
		switch {
		case !ok || b.Seq != step.Seq || b.Attempt != step.Attempt || b.Step != s.Digest() || b.Instance != s.by.claims.Instance:
			return fmt.Errorf("%s of node %s is not of attempt %d of step %d", k.Kind, node.Short(), step.Attempt, step.Seq)
		case k.Policy != s.Policy:
			return fmt.Errorf("node %s acked under policy %s, the step is under %s", node.Short(), k.Policy.Short(), s.Policy.Short())
		}
		tree.Append(merkle.AckEntry(k.Digest()))
		return a.checkSeen(node, b.Checkpoint)
	})
	if err != nil {
		return err
	}
	for i, n := range nodes {
		if n != inputs[i] {
			return fmt.Errorf("ack %d is of node %s, the input of node %s", i, n.Short(), inputs[i].Short())
		}
	}
	if tree.Root() != rel.AcksRoot {
		return fmt.Errorf("root %s, the release says %s", tree.Root().Short(), rel.AcksRoot.Short())
	}
	return nil
}

// checkSeen checks that the log that a node had seen when it acked is this one: a
// node that was shown another history says so here.
func (a *audit) checkSeen(node cose.Digest, c receipt.Checkpoint) error {
	if c.Size == 0 || a.log.gap {
		return nil // a gap is reported as such
	}
	root, ok := a.log.rootAt(c.Size)
	switch {
	case !ok:
		return missingError(fmt.Sprintf("the first %d log entries, which node %s had seen", c.Size, node.Short()))
	case root != c.Root:
		return fmt.Errorf("node %s had seen another log: root %s over %d entries, here %s", node.Short(), c.Root.Short(), c.Size, root.Short())
	}
	return nil
}
