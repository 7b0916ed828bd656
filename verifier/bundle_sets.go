package verifier

import (
	"fmt"

	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/verifier/receipt"
)

// setAudit compares the sets of members whose data is in the released steps of a run:
// where two sets answered the same model, what was released of them shows those who are
// in one of them only (protocol F17). Across runs nothing in the log says that two models
// are the same.
type setAudit struct {
	opened map[cose.Digest]opened // by step
	sets   map[cose.Digest][]releasedSet
	least  int // smallest difference in members that is not 0
	steps  [2]uint64
}

// opened is what a released step asks for, and on which model.
type opened struct {
	opens string
	model cose.Digest
}

type releasedSet struct {
	seq     uint64
	members map[string]bool
}

func newSetAudit(run cose.Digest) *setAudit {
	return &setAudit{opened: map[cose.Digest]opened{run: {model: run}}, sets: map[cose.Digest][]releasedSet{}}
}

// add takes a released step, the one before it having been taken, and the members in it.
// Training makes another model, named by the contributions to it; an evaluation or a
// query leaves the model as it is.
func (s *setAudit) add(digest cose.Digest, step *receipt.Step, members map[string]bool) {
	asked := s.opened[step.Prev]
	model := asked.model
	next := opened{step.Opens, model}
	if asked.opens == receipt.OpensTrain {
		next.model = step.InputsRoot
	}
	s.opened[digest] = next
	if step.InputsCount == 0 {
		return
	}
	for _, before := range s.sets[model] {
		if d := differing(before.members, members); d > 0 && (s.least == 0 || d < s.least) {
			s.least, s.steps = d, [2]uint64{before.seq, step.Seq}
		}
	}
	s.sets[model] = append(s.sets[model], releasedSet{step.Seq, members})
}

// differing counts the members that are in one of two sets only.
func differing(a, b map[string]bool) (n int) {
	for m := range a {
		if !b[m] {
			n++
		}
	}
	for m := range b {
		if !a[m] {
			n++
		}
	}
	return n
}

// checkSets says how far the released sets differ. That they may is the policy's choice:
// it is a warning where fewer members than it wants in a step stand out.
func (a *audit) checkSets(r *runAudit) {
	s := r.sets
	r.report.SmallestDifference = uint64(s.least)
	if s.least == 0 {
		a.pass(r.name+"sets", "members: the same in all released steps that share a model")
		return
	}
	a.pass(r.name+"sets", "members: steps that share a model differ by %d at least (steps %d and %d)", s.least, s.steps[0], s.steps[1])
	if uint64(s.least) < r.policy.Release.MinContributors {
		a.report.Warnings = append(a.report.Warnings, fmt.Sprintf("steps %d and %d of run %s share a model and differ by %d members: together they show what those sent", s.steps[0], s.steps[1], r.digest.Short(), s.least))
	}
}
