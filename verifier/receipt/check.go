package receipt

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/concordat/concordat/attestation"
)

// Limits of what a body holds.
const (
	maxName         = 128 // bytes of a name: strategy, member, numeric profile, code
	maxArrayName    = 256 // bytes of the name of a frozen array
	maxEndorsements = 128 // endorsements that an evidence statement names
	maxFrozen       = 512 // frozen arrays of a run
)

func (b *Evidence) check() error {
	switch {
	case len(b.Claims) == 0 || len(b.Claims) > attestation.MaxClaims:
		return fmt.Errorf("claims of %d bytes, limit %d", len(b.Claims), attestation.MaxClaims)
	case b.Envelope.IsZero():
		return errors.New("no evidence envelope")
	case len(b.Endorsements) > maxEndorsements:
		return fmt.Errorf("%d endorsements, limit %d", len(b.Endorsements), maxEndorsements)
	}
	for i, d := range b.Endorsements {
		if d.IsZero() || i > 0 && bytes.Compare(b.Endorsements[i-1][:], d[:]) >= 0 {
			return errors.New("endorsements are not sorted, or one is none")
		}
	}
	return nil
}

func (b *RunRequest) check() error {
	switch {
	case b.App.IsZero() || b.Config.IsZero():
		return errors.New("no app or no config")
	case b.Rounds == 0:
		return errors.New("no rounds")
	case b.NotAfter == 0:
		return errors.New("no time limit")
	case b.Nonce == [32]byte{}:
		return errors.New("nonce of zeros")
	case len(b.Cohort) > MaxCohort:
		return fmt.Errorf("cohort of %d members, limit %d", len(b.Cohort), MaxCohort)
	}
	for i, m := range b.Cohort {
		if err := checkName("cohort", m); err != nil {
			return err
		}
		if i > 0 && b.Cohort[i-1] >= m {
			return errors.New("cohort is not sorted")
		}
	}
	return errors.Join(checkName("strategy", b.Strategy), checkName("results_to", b.ResultsTo))
}

func (b *Run) check() error {
	switch {
	case b.Request.IsZero() || b.Requester.IsZero():
		return errors.New("no request")
	case b.App.IsZero() || b.Config.IsZero():
		return errors.New("no app or no config")
	case !slices.Contains([]string{ClassMixing, ClassSelecting, ClassCustom}, b.Class):
		return fmt.Errorf("class %.40q", b.Class)
	case b.Rounds == 0:
		return errors.New("no rounds")
	case b.Cohort.IsZero() || b.Nodes == 0 || b.Nodes > MaxCohort:
		return fmt.Errorf("cohort of %d nodes, limit %d", b.Nodes, MaxCohort)
	case b.Members == 0 || b.Members > b.Nodes:
		return fmt.Errorf("cohort of %d members and %d nodes", b.Members, b.Nodes)
	case b.DownlinkCommit.IsZero():
		return errors.New("no downlink commitment")
	case b.Evidence.IsZero():
		return errors.New("no evidence statement")
	case len(b.Frozen) > 0 && b.Class == ClassCustom:
		return errors.New("frozen arrays where the app's own code aggregates")
	}
	return errors.Join(
		CheckFrozen(b.Frozen),
		checkName("strategy", b.Strategy),
		checkName("exposure", b.Exposure),
		checkName("dropouts", b.Dropouts),
		checkName("numeric profile", b.Numeric))
}

// CheckFrozen says whether a run statement may hold names as those of its frozen arrays.
func CheckFrozen(names []string) error {
	if len(names) > maxFrozen {
		return fmt.Errorf("%d frozen arrays, limit %d", len(names), maxFrozen)
	}
	for i, n := range names {
		switch {
		case n == "" || len(n) > maxArrayName:
			return fmt.Errorf("a frozen array has a name of %d bytes, want 1 to %d", len(n), maxArrayName)
		case i > 0 && names[i-1] >= n:
			return errors.New("frozen arrays are not sorted")
		}
	}
	return nil
}

func (b *Contribution) check() error {
	switch {
	case b.Seq == 0 || b.Step.IsZero():
		return errors.New("answers no step")
	case b.Manifest.IsZero():
		return errors.New("no manifest")
	case b.Count == 0 || b.ChunkRoot.IsZero():
		return errors.New("no chunks")
	}
	return nil
}

func (b *Step) check() error {
	switch {
	case b.Seq == 0 || b.Attempt == 0:
		return fmt.Errorf("step %d, attempt %d: both count from 1", b.Seq, b.Attempt)
	case b.Prev.IsZero():
		return errors.New("no predecessor")
	case !slices.Contains([]string{OpensTrain, OpensEvaluate, OpensQuery, OpensNone}, b.Opens):
		return fmt.Errorf("opens %.40q", b.Opens)
	case b.Cohort.IsZero() || b.Nodes == 0 || b.Nodes > MaxCohort:
		return fmt.Errorf("cohort of %d nodes, limit %d", b.Nodes, MaxCohort)
	case b.InputsRoot.IsZero() != (b.InputsCount == 0):
		return fmt.Errorf("%d inputs with root %q", b.InputsCount, b.InputsRoot.Short())
	case b.InputsCount > MaxCohort || b.Members > b.InputsCount:
		return fmt.Errorf("%d members among %d inputs", b.Members, b.InputsCount)
	case b.ExcludedRoot.IsZero() != (b.ExcludedCount == 0):
		return fmt.Errorf("%d excluded with root %q", b.ExcludedCount, b.ExcludedRoot.Short())
	case b.ExcludedCount > MaxCohort:
		return fmt.Errorf("%d excluded, limit %d", b.ExcludedCount, MaxCohort)
	case b.Unasked > b.ExcludedCount || b.ExcludedCodes.sum() != b.ExcludedCount-b.Unasked:
		return fmt.Errorf("%d excluded, but %d by reason and %d not asked", b.ExcludedCount, b.ExcludedCodes.sum(), b.Unasked)
	case b.OutputsRoot.IsZero() != (b.OutputsCount == 0):
		return fmt.Errorf("%d outputs with root %q", b.OutputsCount, b.OutputsRoot.Short())
	case b.OutputsCount == 0 && b.Opens != OpensNone:
		return fmt.Errorf("opens %s without outputs", b.Opens)
	case b.App.IsZero():
		return errors.New("no app")
	case b.Evidence.IsZero():
		return errors.New("no evidence statement")
	case b.DownlinkCommit.IsZero():
		return errors.New("no downlink commitment")
	}
	return checkName("numeric profile", b.Numeric)
}

func (b *Ack) check() error {
	switch {
	case b.Seq == 0 || b.Attempt == 0 || b.Step.IsZero():
		return errors.New("acks no step")
	case b.Instance.IsZero():
		return errors.New("no instance")
	case (b.Checkpoint.Size == 0) != b.Checkpoint.Root.IsZero():
		return fmt.Errorf("checkpoint of size %d with root %q", b.Checkpoint.Size, b.Checkpoint.Root.Short())
	}
	return nil
}

func (b *Release) check() error {
	switch {
	case b.Seq == 0 || b.Attempt == 0 || b.Step.IsZero():
		return errors.New("releases no step")
	case b.AcksCount == 0 || b.AcksRoot.IsZero():
		return errors.New("no acks")
	}
	return nil
}

func (b *End) check() error {
	if b.Step.IsZero() {
		return errors.New("no last step")
	}
	switch b.Outcome {
	case Completed:
		if b.Code != "" {
			return fmt.Errorf("completed with code %.40q", b.Code)
		}
		return nil
	case Failed, Stopped:
		return checkCode(b.Code)
	}
	return fmt.Errorf("outcome %.40q", b.Outcome)
}

func (b *Refusal) check() error {
	if b.Subject.IsZero() {
		return errors.New("no subject")
	}
	return checkCode(b.Code)
}

// checkName accepts printable ASCII: names are shown to people.
func checkName(field, s string) error {
	if s == "" || len(s) > maxName || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fmt.Errorf("%s %.40q is not 1 to %d printable characters", field, s, maxName)
	}
	return nil
}

// checkCode accepts a-z, 0-9, '-' and '_': a code is one of a small set, and no
// text of an app or an error passes through it.
func checkCode(s string) error {
	if s == "" || len(s) > 40 || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
		return fmt.Errorf("code %.40q is not a coarse code", s)
	}
	return nil
}
