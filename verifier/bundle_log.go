package verifier

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/merkle"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/receipt"
	"github.com/concordat/concordat/verifier/tlog"
)

// logAudit is what a bundle shows of the log.
type logAudit struct {
	points  []point // by size
	next    uint64  // index of the next entry
	gap     bool    // an entry is missing before the last one seen
	leaves  []merkle.Hash
	peaks   []merkle.Range // after every 256 leaves
	current merkle.Range
	roots   map[uint64]cose.Digest // those that were asked for

	// approved and inForce say when a version got its approvals: at the index of
	// the N-th (protocol F13).
	approved  map[uint64]map[policy.MemberID]bool
	inForce   map[uint64]uint64
	receipted map[cose.Digest]placedEntry // entries with a receipt
}

// point is one checkpoint that the log signed and enough witnesses cosigned.
type point struct {
	tlog.Checkpoint
	own  time.Time // own witness's time; zero if it did not cosign
	last time.Time // newest time of the cosignatures that count
}

type placedEntry struct {
	index uint64
	raw   []byte
}

// bracket is when an entry came into the log, by a witness's clock: after one
// checkpoint without it, not after one with it. After is zero if nothing shows it.
type bracket struct{ after, until time.Time }

func (a *audit) takeCheckpoint(size uint64, note []byte) {
	if a.chain == nil {
		return // reported as such
	}
	var first error
	for v := a.chain.Head().Version; v > 0; v-- {
		t, err := LogTrust(a.chain.At(v))
		if err != nil {
			a.fail("log.checkpoint", "a log and witnesses in the policy", err.Error())
			return
		}
		c, sigs, err := tlog.Open(note, t)
		if err != nil {
			if first == nil {
				first = err
			}
			continue
		}
		if c.Size != size {
			a.fail("log.checkpoint", fmt.Sprintf("a checkpoint of size %d", size), fmt.Sprint(c.Size))
			return
		}
		a.addPoint(c, sigs)
		return
	}
	var few *tlog.WitnessError
	if errors.As(first, &few) {
		a.missing("log.checkpoint", fmt.Sprintf("%d cosignatures of a checkpoint of %d entries", few.Need, size), first.Error())
		return
	}
	a.fail("log.checkpoint", "signed by the log, cosigned per policy", first.Error())
}

// LogTrust returns what [tlog.Open] needs to open the checkpoints of p's log as p
// demands: the log's key, the members' witnesses, and how many of them make a
// checkpoint count. A node adds its own witness.
func LogTrust(p *policy.Policy) (tlog.Trust, error) {
	key, err := tlog.ParseVerifierKey(p.Log.Key)
	if err != nil {
		return tlog.Trust{}, fmt.Errorf("policy: log: %w", err)
	}
	t := tlog.Trust{Origin: p.Log.Origin, LogKey: key, Need: int(min(p.Log.Witnesses, math.MaxInt32))}
	for _, m := range p.Members {
		w, err := tlog.ParseVerifierKey(m.WitnessKey)
		if err != nil {
			return tlog.Trust{}, fmt.Errorf("policy: witness of %s: %w", m.ID, err)
		}
		t.Witnesses = append(t.Witnesses, w)
	}
	return t, nil
}

func (a *audit) addPoint(c *tlog.Checkpoint, sigs []tlog.Cosignature) {
	p := point{Checkpoint: *c}
	for _, s := range sigs {
		if s.Witness == a.own {
			p.own = s.Time
		}
		if s.Time.After(p.last) {
			p.last = s.Time
		}
	}
	if n := len(a.log.points); n > 0 {
		for _, before := range a.log.points[:n] {
			if !p.own.IsZero() && p.own.Before(before.own) {
				a.fail("log.time", "cosignature times that grow with the log",
					fmt.Sprintf("%s for %d entries, %s for %d", before.own.Format(timeForm), before.Size, p.own.Format(timeForm), p.Size))
				break
			}
		}
	}
	a.log.points = append(a.log.points, p)
}

// placed returns when entry index came into the log, by the own witness's clock.
// ok is false if no checkpoint with its cosignature covers the entry.
func (l *logAudit) placed(index uint64) (b bracket, ok bool) {
	for _, p := range l.points {
		switch {
		case p.own.IsZero():
		case p.Size <= index:
			b.after = p.own
		default:
			b.until = p.own
			return b, true
		}
	}
	return b, false
}

// judged returns the time at which entry index is judged: when the own witness
// first saw it in the log, or the earlier time that the officer asked for, if the
// bracket admits it.
func (a *audit) judged(index uint64) (time.Time, error) {
	b, ok := a.log.placed(index)
	switch {
	case !ok:
		return time.Time{}, fmt.Errorf("no checkpoint with the cosignature of %s covers entry %d", a.own.Name(), index)
	case a.at.IsZero() || !a.at.Before(b.until):
		return b.until, nil
	case b.after.IsZero() || a.at.Before(b.after):
		return time.Time{}, fmt.Errorf("nothing shows that entry %d was in the log at %s", index, a.at.UTC().Format(timeForm))
	}
	return a.at, nil
}

func (a *audit) takeEntry(index uint64, raw []byte) {
	l := &a.log
	if index != l.next {
		l.gap = true
	}
	l.next = index + 1
	if !l.gap {
		leaf := merkle.LeafHash(raw)
		l.leaves = append(l.leaves, leaf)
		l.current.Append(leaf)
		if l.current.Size()%256 == 0 {
			r, err := merkle.ResumeRange(l.current.Size(), l.current.Peaks())
			if err == nil {
				l.peaks = append(l.peaks, *r)
			}
		}
	}
	a.report.Log.Entries++
	if a.chain == nil {
		return
	}
	d := cose.Sum(raw)
	if _, ok := l.receipted[d]; ok {
		l.receipted[d] = placedEntry{index, raw}
	}
	msg, err := cose.Parse(raw)
	if err != nil {
		a.void(index, "is no signed statement")
		return
	}
	switch msg.Header.Type {
	case policy.TypeApproval:
		a.takeApproval(index, raw)
	case policy.TypeDenial:
		a.takeDenial(index, raw)
	case policy.TypeLift:
		a.denials.lifts = append(a.denials.lifts, placedEntry{index, raw})
	case policy.TypeApp:
		a.takeAppSignature(index, raw)
	case policy.TypeCredential: // judged where it is used
	default:
		a.takeStatement(index, raw)
	}
}

// takeAppSignature keeps a signature by a signer of some version of the policy; which of
// them count is judged where they are used.
func (a *audit) takeAppSignature(index uint64, raw []byte) {
	for v := a.chain.Head().Version; v > 0; v-- {
		if _, _, err := a.chain.At(v).VerifyAppSignature(raw); err == nil {
			a.signed = append(a.signed, placedEntry{index, raw})
			return
		}
	}
	a.void(index, "is a signature of an app by none of its signers")
}

// rootAt returns the root over the first n entries; false if they are not all
// there.
func (l *logAudit) rootAt(n uint64) (cose.Digest, bool) {
	if n > uint64(len(l.leaves)) {
		return cose.Digest{}, false
	}
	if root, ok := l.roots[n]; ok {
		return root, true
	}
	var r merkle.Range
	if n >= 256 {
		p := l.peaks[n/256-1]
		c, err := merkle.ResumeRange(p.Size(), p.Peaks())
		if err != nil {
			return cose.Digest{}, false
		}
		r = *c
	}
	for _, leaf := range l.leaves[r.Size():n] {
		r.Append(leaf)
	}
	l.roots[n] = r.Root()
	return l.roots[n], true
}

// takeApproval notes an approval of a version of the chain.
func (a *audit) takeApproval(index uint64, raw []byte) {
	for v := uint64(1); v <= a.chain.Head().Version; v++ {
		p, voters := a.chain.At(v), a.chain.At(max(v-1, 1))
		m, err := voters.VerifyApproval(raw, p)
		if err != nil {
			continue
		}
		if a.log.approved[v] == nil {
			a.log.approved[v] = make(map[policy.MemberID]bool)
		}
		a.log.approved[v][m] = true
		if _, ok := a.log.inForce[v]; !ok && uint64(len(a.log.approved[v])) >= voters.Approvals {
			a.log.inForce[v] = index
		}
		return
	}
	a.void(index, "approves no policy version of this bundle")
}

// finishLog checks the log as a whole.
func (a *audit) finishLog() {
	l := &a.log
	if len(l.points) == 0 {
		a.missing("log.checkpoint", "a checkpoint that the log signed and the witnesses cosigned", "")
		return
	}
	newest := l.points[len(l.points)-1]
	a.report.Log.Origin, a.report.Log.Size, a.report.Log.Root = newest.Origin, newest.Size, newest.Root.String()
	a.report.Log.Newest = newest.own
	a.pass("log.checkpoint", "%d checkpoints up to %d entries, cosigned per policy", len(l.points), newest.Size)
	if newest.own.IsZero() {
		a.missing("log.own-witness", "a cosignature of "+a.own.Name()+" on the newest checkpoint",
			"without one's own company's witness nothing shows that this is the log that everybody sees; ask your own node for the checkpoint")
		a.report.ValidAsOf = "no time: the own company's witness has not cosigned"
	} else {
		a.pass("log.own-witness", "%s, at %s", a.own.Name(), newest.own.Format(timeForm))
		a.report.ValidAsOf = fmt.Sprintf("%s, by the clock of %s, each statement as of the moment at which that witness first saw it in the log", newest.own.Format(timeForm), a.own.Name())
	}
	a.checkReplay(newest)
	a.checkReceipts()
	for v := uint64(2); v <= a.chain.Head().Version; v++ {
		if i, ok := l.inForce[v]; ok {
			a.pass("policy.logged", "version %d in force from entry %d", v, i)
		} else {
			a.missing("policy.logged", fmt.Sprintf("the approvals of version %d in the log", v), "")
		}
	}
}

// checkReplay checks that the entries are all there and lead to every checkpoint.
func (a *audit) checkReplay(newest point) {
	l := &a.log
	if l.gap || l.next < newest.Size {
		a.missing("log.replay", fmt.Sprintf("all %d entries", newest.Size),
			"completeness was not checked: what is missing may be the step that hurts. Ask for a bundle with the log's whole range")
		return
	}
	if l.next > newest.Size {
		a.missing("log.replay", fmt.Sprintf("a checkpoint over all %d entries", l.next), "the newest covers "+fmt.Sprint(newest.Size))
		return
	}
	for _, p := range l.points {
		if root, ok := l.rootAt(p.Size); !ok || root != p.Root {
			a.fail("log.replay", fmt.Sprintf("root %s over %d entries", p.Root.Short(), p.Size), root.Short())
			return
		}
	}
	a.pass("log.replay", "%d entries lead to every checkpoint", newest.Size)
}

// checkReceipts checks the receipts that the log signed. What they say follows
// from the replay too: they are for readers that have no log.
func (a *audit) checkReceipts() {
	good := 0
	for _, r := range a.receipts {
		err := a.checkReceipt(r)
		var none missingError
		switch {
		case err == nil:
			good++
		case errors.As(err, &none):
			a.missing("log.receipt", string(none), "")
			return
		default:
			a.fail("log.receipt", "a receipt of entry "+r.Subject.Short(), err.Error())
			return
		}
	}
	if good == 0 {
		a.notChecked("log.receipt", "the bundle holds no receipts; the replay of the log says more")
		return
	}
	a.pass("log.receipt", "%d receipts", good)
}

// missingError says what is missing: the check is incomplete, not failed.
type missingError string

func (e missingError) Error() string { return "missing: " + string(e) }

func (a *audit) checkReceipt(r *receipt.Item) error {
	if r.Role != receipt.RoleLog {
		return fmt.Errorf("role %.40q", r.Role)
	}
	entry := a.log.receipted[r.Subject]
	if entry.raw == nil {
		return missingError("the log entry of receipt " + r.Subject.Short())
	}
	h, err := receipt.ParseReceiptHeader(r.Data)
	if err != nil {
		return err
	}
	root, ok := a.log.rootAt(h.Size)
	if !ok {
		return missingError(fmt.Sprintf("the first %d log entries, for receipt %s", h.Size, r.Subject.Short()))
	}
	for v := a.chain.Head().Version; v > 0; v-- {
		var t tlog.Trust
		if t, err = LogTrust(a.chain.At(v)); err != nil {
			return err
		}
		var key cose.Key
		if key, err = t.LogKey.COSE(); err != nil {
			return err
		}
		want := LogReceipt(t.Origin, a.trust.Federation, h.Size)
		if err = receipt.VerifyReceipt(entry.raw, r.Data, key, receipt.Own(want).ForRoot(root)); err == nil {
			return nil
		}
	}
	return err
}

// LogReceipt returns the header of a receipt that the log of a federation signs
// for one of its entries.
func LogReceipt(origin string, federation cose.Digest, size uint64) receipt.ReceiptHeader {
	return receipt.ReceiptHeader{Issuer: origin, Subject: federation.String(), Origin: origin, Size: size}
}

const maxVoid = 20 // void entries that are named

func (a *audit) void(index uint64, format string, args ...any) {
	a.report.Log.Voided++
	if len(a.report.Log.Void) < maxVoid {
		a.report.Log.Void = append(a.report.Log.Void, fmt.Sprintf("entry %d %s", index, fmt.Sprintf(format, args...)))
	}
}

func (a *audit) finishVoid() {
	if n := a.report.Log.Voided; n > 0 {
		a.notChecked("log.void", fmt.Sprintf("%d entries count for nothing: they are listed, and change nothing", n))
	}
}
