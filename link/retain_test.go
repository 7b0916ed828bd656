package link

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/chunkstore/storetest"
	"github.com/concordat/concordat/chunkstore/transfer"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/link/state"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/receipt"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestDue is the rule.
func TestDue(t *testing.T) {
	t.Parallel()
	start := time.Unix(1_800_000_000, 0)
	at := func(days float64) time.Time { return start.Add(time.Duration(days * float64(day))) }
	head := &policy.Policy{Release: policy.Release{StepDeadline: 3600, AckDeadline: 1800}}
	slow := &policy.Policy{Release: policy.Release{StepDeadline: 100 * 86400, AckDeadline: 86400}}
	normal := periods{30 * day, 90 * day}
	for name, x := range map[string]struct {
		p                  periods
		head               *policy.Policy
		used, since, ended time.Time
		want               time.Time
	}{
		"ended":                  {normal, head, at(0), at(-1), at(1), at(31)},
		"ended, used since":      {normal, head, at(20), at(-1), at(1), at(50)},
		"ended, link was away":   {normal, head, at(0), at(25), at(1), at(55)},
		"running":                {normal, head, at(0), at(-1), time.Time{}, at(90)},
		"running, link was away": {normal, head, at(0), at(80), time.Time{}, at(170)},
		"a hasty operator":       {periods{time.Second, day}, head, at(0), at(-1), at(0), at(0.125)},
		"a slow policy":          {normal, slow, at(0), at(-1), at(0), at(202)},
		"a slow policy, running": {normal, slow, at(0), at(-1), time.Time{}, at(202)},
	} {
		got := x.p.due(x.head, chunkstore.Usage{Used: x.used}, x.since, state.Retirement{Ended: x.ended})
		if !got.Equal(x.want) {
			t.Errorf("%s: due on day %v, want %v", name, got.Sub(start).Hours()/24, x.want.Sub(start).Hours()/24)
		}
	}
	never := periods{time.Duration(Forever), time.Duration(Forever)}
	if got := never.due(head, chunkstore.Usage{Used: start}, start, state.Retirement{Ended: start}); got.Year() < 2300 {
		t.Errorf("for ever ends in %d", got.Year())
	}
}

func TestPeriod(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"30d": "30d", "720h": "30d", "36h": "36h0m0s", "1m": "1m0s", "forever": "forever"} {
		var p, again Period
		if err := p.UnmarshalText([]byte(in)); err != nil || p.String() != want {
			t.Errorf("%s: %v, %v, want %s", in, p, err, want)
		}
		if err := again.UnmarshalText([]byte(p.String())); err != nil || again != p {
			t.Errorf("%s: %v does not come back: %v, %v", in, p, again, err)
		}
	}
	for _, in := range []string{"", "d", "30", "0d", "0s", "-1h", "-3d", "never", "30 d", "99999999d", "1.5d"} {
		var p Period
		if err := p.UnmarshalText([]byte(in)); err == nil {
			t.Errorf("%q is taken as %v", in, p)
		}
	}
	for name, c := range map[string]Config{
		"abandoned before retain": {Data: "x", Retain: Period(40 * day), Abandoned: Period(30 * day)},
		"retain for ever":         {Data: "x", Retain: Forever, Abandoned: Period(30 * day)},
		"abandoned at once":       {Data: "x", Retain: Period(time.Hour), Abandoned: Period(2 * time.Hour)},
	} {
		if err := c.Complete(); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	c := Config{Data: "x", Retain: Forever}
	if err := c.Complete(); err != nil || c.Abandoned != Forever {
		t.Errorf("retain for ever alone: abandoned %v, %v", c.Abandoned, err)
	}
}

// clock is set by tests.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.offset.Load())) }
func (c *clock) advance(d time.Duration) { c.offset.Add(int64(d)) }

// archive is a link whose collector the test steps, and a run on it.
type archive struct {
	*consortium
	t    *testing.T
	data string
	clock
	link *Link
	said bytes.Buffer // by the collector
	stop func()
	bank *party
	box  *party // an enclave
}

func newArchive(t *testing.T) *archive {
	a := &archive{t: t, data: t.TempDir()}
	a.consortium = newConsortium(t, a.data, "a", 1)
	a.host(t, a.data)
	a.start()
	return a
}

// start runs the link, which believes evidence by the first boots of this test.
func (a *archive) start() {
	a.t.Helper()
	l, err := New(Config{Data: a.data, Listen: "127.0.0.1:0", Now: a.now, ReleaseInterval: time.Hour})
	if err != nil {
		a.t.Fatal(err)
	}
	l.collect.appraise = func(_ context.Context, _ *federation, u *receipt.Unverified) error {
		if c, err := receipt.SelfSigned(u); err != nil || c.Image != (cose.Digest{2}) {
			return errors.Join(errors.New("another image"), err)
		}
		return nil
	}
	l.collect.logger = slog.New(slog.NewTextHandler(&a.said, nil))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	stopped := false
	a.stop = func() {
		if !stopped {
			stopped = true
			cancel()
			if err := <-done; err != nil {
				a.t.Errorf("link: %v", err)
			}
		}
	}
	a.t.Cleanup(a.stop)
	a.link = l
	a.bank, a.box = a.node(a.t, l.Address(), "bank").ready(a.t), a.enclave(a.t, l.Address(), 1).ready(a.t)
}

func (a *archive) restart() {
	a.t.Helper()
	a.bank.stop()
	a.box.stop()
	a.stop()
	a.start()
}

// collect has the collector work, half a day at a time: a clock that jumps counts for
// nothing.
func (a *archive) collect(after time.Duration) {
	a.t.Helper()
	for {
		d := min(after, day/2)
		a.advance(d)
		if err := a.link.collect.collect(a.t.Context()); err != nil {
			a.t.Fatal(err)
		}
		if after -= d; after <= 0 {
			return
		}
	}
}

// log appends statements and waits for their publication.
func (a *archive) log(all ...[]byte) {
	a.t.Helper()
	for _, raw := range all {
		i, err := a.bank.Append(a.t.Context(), raw)
		if err != nil {
			a.t.Fatal(err)
		}
		a.published(a.t, a.bank, i+1)
	}
}

// boot is an enclave that signs statements.
type boot struct {
	c      *consortium
	id     attestation.ID
	key    *cose.Signer
	epoch  uint64
	image  byte // 2 passes
	signed *receipt.Chain
}

func (c *consortium) boot(t *testing.T, n byte, epoch uint64, image byte) *boot {
	t.Helper()
	k, err := cose.GenerateSigner(cose.ES256)
	if err != nil {
		t.Fatal(err)
	}
	return &boot{c, attestation.ID{n}, k, epoch, image, receipt.NewChain(cose.Digest{})}
}

func (b *boot) sign(t *testing.T, kind receipt.Kind, run cose.Digest, body any) []byte {
	t.Helper()
	s := &receipt.Statement{Kind: kind, Federation: b.c.id(), Run: run, Policy: b.c.policy.Digest(), Issuer: receipt.EnclaveIssuer(b.id), Body: body}
	s.Seq, s.Prev = b.signed.Next()
	raw, err := receipt.Sign(s, b.key)
	if err == nil {
		err = b.signed.Extend(s)
	}
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func (b *boot) evidence(t *testing.T) []byte {
	t.Helper()
	claims := attestation.Claims{Federation: b.c.id(), Policy: b.c.policy.Digest(), PolicyVersion: 1, Instance: b.id, Role: attestation.RoleAggregator, Epoch: b.epoch,
		SignPub: b.key.Public(), KEMPub: make([]byte, attestation.KEMKeySize), Image: cose.Digest{b.image}, Config: cose.Digest{3}, NonceRoot: cose.Digest{4}, NonceCount: 1, Simulated: true, IssuedAt: 1}
	return b.sign(t, receipt.KindEvidence, cose.Digest{}, &receipt.Evidence{Claims: claims.Encode(), Envelope: cose.Digest{9}})
}

func (b *boot) end(t *testing.T, run cose.Digest) []byte {
	t.Helper()
	return b.sign(t, receipt.KindEnd, run, &receipt.End{Step: run, Outcome: receipt.Completed})
}

// store puts a chunk of the bank and one of the downlink into a run.
func (a *archive) store(run cose.Digest) {
	a.t.Helper()
	id, stored := storetest.Chunk(1, 100_000)
	for p, owner := range map[*party]cose.Digest{a.bank: cose.Digest([]byte(a.bank.self.ID)), a.box: {}} {
		if err := put(a.t.Context(), p, chunkstore.Scope{Federation: a.id(), Run: run, Owner: owner}, id, stored); err != nil {
			a.t.Fatal(err)
		}
	}
}

// kept says which runs still have chunks, on the disk and in the index, and the bytes.
func (a *archive) kept() (runs map[cose.Digest]bool, bytes int64) {
	a.t.Helper()
	all, err := a.link.collect.chunks.Runs(a.t.Context())
	if err != nil {
		a.t.Fatal(err)
	}
	runs = make(map[cose.Digest]bool)
	for _, u := range all {
		runs[u.Run] = true
		if u.Owners != 2 {
			a.t.Errorf("run %s is there in part: %+v", u.Run.Short(), u)
		}
	}
	err = filepath.WalkDir(filepath.Join(a.data, chunksDir), func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		bytes += info.Size()
		return err
	})
	if err != nil {
		a.t.Fatal(err)
	}
	return runs, bytes
}

func (a *archive) keeps(what string, runs ...cose.Digest) {
	a.t.Helper()
	got, _ := a.kept()
	for _, r := range runs {
		if !got[r] {
			a.t.Errorf("%s: the chunks of run %s are gone\n%s", what, r.Short(), a.said.String())
		}
		delete(got, r)
	}
	for r := range got {
		a.t.Errorf("%s: the chunks of run %s are there\n%s", what, r.Short(), a.said.String())
	}
}

// TestRetention is a link over months: what ended goes, what goes on stays, restarts
// change nothing, and whoever comes too late is told.
func TestRetention(t *testing.T) {
	t.Parallel()
	a := newArchive(t)
	ended, running, place := cose.Sum([]byte("ended")), cose.Sum([]byte("running")), cose.Sum([]byte("no run"))
	b := a.boot(t, 1, 1, 2)
	a.log(b.evidence(t))
	a.collect(0)
	a.store(ended)
	a.store(running)
	a.store(place)
	_, full := a.kept()
	a.collect(10 * day)
	a.log(b.end(t, ended))
	a.collect(0)
	a.keeps("at its end", ended, running, place)
	a.collect(29 * day)
	a.keeps("29 days after the end", ended, running, place)
	a.restart()
	a.collect(12 * time.Hour)
	a.keeps("after a restart", ended, running, place)
	a.collect(day)
	a.keeps("30 days after the end", running, place)
	if _, now := a.kept(); now > full*2/3+4096 {
		t.Errorf("%d bytes on the disk, of %d before", now, full)
	}
	id, _ := storetest.Chunk(1, 100_000)
	scope := chunkstore.Scope{Federation: a.id(), Run: ended}
	_, err := transfer.NewClient(a.bank.conn).ReadAt(t.Context(), scope, id, make([]byte, 1), 0)
	if s := status.Convert(errors.Unwrap(err)); status.Code(err) != codes.NotFound || !strings.Contains(s.Message()+err.Error(), "released the chunks of run "+ended.Short()) {
		t.Errorf("read of a released run: %v", err)
	}
	scope.Run = cose.Sum([]byte("never heard of"))
	if _, err := transfer.NewClient(a.bank.conn).ReadAt(t.Context(), scope, id, make([]byte, 1), 0); status.Code(err) != codes.NotFound || strings.Contains(err.Error(), "released") {
		t.Errorf("read of a run that is not known: %v", err)
	}
	if !strings.Contains(a.said.String(), ended.String()) {
		t.Errorf("the log does not name the run:\n%s", a.said.String())
	}

	// The running one is used on day 60, the other never again.
	a.collect(20 * day)
	a.store(running)
	a.collect(29 * day)
	a.keeps("on day 90", running, place)
	a.collect(2 * day)
	a.keeps("on day 92", running)
	a.log(b.end(t, running))
	a.collect(31 * day)
	a.keeps("after all")
}

// TestForgedEnd: nobody has a link drop the chunks of a run that goes on. An end that is
// not its enclave's counts for nothing, and one that is, while it is used, for nothing yet.
func TestForgedEnd(t *testing.T) {
	t.Parallel()
	a := newArchive(t)
	run := cose.Sum([]byte("run"))
	genuine, zombie := a.boot(t, 2, 2, 2), a.boot(t, 1, 1, 2)
	stranger, thief := a.boot(t, 3, 3, 7), a.boot(t, 2, 2, 7) // other images
	thief.id = genuine.id
	a.log(zombie.evidence(t), genuine.evidence(t))
	a.collect(0)
	a.store(run)
	a.log(stranger.evidence(t), thief.evidence(t),
		stranger.end(t, run), // evidence that does not pass
		thief.end(t, run),    // another key
		zombie.end(t, run),   // of an epoch that is over
		a.statement(t, "end"))
	for range 8 {
		a.collect(10 * day)
		a.keeps("after forged ends", run)
	}
	a.log(genuine.end(t, run)) // as if a genuine enclave were broken
	for range 4 {
		a.collect(20 * day)
		a.keeps("while it is used", run)
		if _, err := transfer.NewClient(a.box.conn).Missing(t.Context(), chunkstore.Scope{Federation: a.id(), Run: run}, []chunkstore.ID{{1}}); err != nil {
			t.Fatal(err)
		}
	}
	a.collect(31 * day)
	a.keeps("when nobody uses it")
}

// TestLinkAway: time in which nobody could use chunks counts for nothing.
func TestLinkAway(t *testing.T) {
	t.Parallel()
	a := newArchive(t)
	run := cose.Sum([]byte("run"))
	a.collect(0)
	a.store(run)
	a.collect(80 * day)
	a.bank.stop()
	a.box.stop()
	a.stop()
	a.advance(200 * day)
	// The credentials of fixtures are not good that long: nobody attaches any more.
	l, err := New(Config{Data: a.data, Listen: "127.0.0.1:0", Now: a.now})
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	a.link = l
	for range 89 {
		a.collect(day)
	}
	a.keeps("89 days after the link came back", run)
	a.collect(2 * day)
	a.keeps("91 days after")
}

// TestReleaseAfterCrash: what a link was about to release when it ended, it releases when
// it is there again.
func TestReleaseAfterCrash(t *testing.T) {
	t.Parallel()
	a := newArchive(t)
	run := cose.Sum([]byte("run"))
	a.collect(0)
	a.store(run)
	a.collect(88 * day)
	// It noted the release, and no more.
	if err := a.link.state.PutRelease(t.Context(), a.id(), run, a.now()); err != nil {
		t.Fatal(err)
	}
	a.restart()
	a.keeps("noted", run)
	id, stored := storetest.Chunk(1, 100_000)
	p := make([]byte, len(stored))
	scope := chunkstore.Scope{Federation: a.id(), Run: run}
	// Whoever comes in between is served, and keeps it.
	if _, err := transfer.NewClient(a.bank.conn).ReadAt(t.Context(), scope, id, p, 0); err != nil || !bytes.Equal(p, stored) {
		t.Errorf("%v", err)
	}
	a.collect(3 * day)
	a.keeps("read", run)
	a.collect(90 * day)
	a.keeps("at the end")
}

// counting counts how often it is asked.
type counting struct {
	chunkstore.Store
	asked atomic.Int32
}

func (c *counting) Runs(context.Context) ([]chunkstore.Usage, error) {
	c.asked.Add(1)
	return nil, errors.New("the disk is away")
}

// TestCollectorRuns: it waits before it works, goes on after an error, and ends when it
// is told to.
func TestCollectorRuns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := new(counting)
		c := &collector{chunks: store, interval: 10 * time.Minute, logger: slog.New(slog.DiscardHandler)}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- c.run(ctx) }()
		time.Sleep(9 * time.Minute)
		synctest.Wait()
		if store.asked.Load() != 0 {
			t.Error("it works as soon as it is started")
		}
		time.Sleep(22 * time.Minute)
		synctest.Wait()
		if store.asked.Load() != 3 {
			t.Errorf("worked %d times in 31 minutes", store.asked.Load())
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestOperator: who stops the link sees what it keeps and when that goes, and removes
// what is asked for, unless an enclave may need it.
func TestOperator(t *testing.T) {
	t.Parallel()
	a := newArchive(t)
	ctx, cfg := t.Context(), Config{Data: a.data, Now: a.now}
	if _, err := Chunks(ctx, cfg); err == nil || !strings.Contains(err.Error(), "stopped first") {
		t.Errorf("the chunks of a link that runs: %v", err)
	}
	if _, err := Chunks(ctx, Config{Data: t.TempDir()}); err == nil {
		t.Error("the chunks of a directory that has none")
	}
	b := a.boot(t, 1, 1, 2)
	request := cose.Digest{1}
	begun := b.sign(t, receipt.KindRun, cose.Digest{}, &receipt.Run{Request: request, Requester: request, App: request, Config: request, Strategy: "fedavg", Class: receipt.ClassMixing,
		Exposure: "aggregate", Rounds: 1, Cohort: request, Nodes: 1, Members: 1, DownlinkCommit: request, Dropouts: "refuse", Numeric: "n", Evidence: request})
	running, ended, place := cose.Sum(begun), cose.Sum([]byte("ended")), cose.Sum([]byte("place"))
	a.log(b.evidence(t), begun, b.end(t, ended))
	a.collect(0)
	for _, run := range []cose.Digest{running, ended, place} {
		a.store(run)
	}
	a.bank.stop()
	a.box.stop()
	a.stop()
	all, err := Chunks(ctx, cfg)
	if err != nil || len(all) != 3 {
		t.Fatalf("%+v, %v", all, err)
	}
	for i, want := range []struct {
		run    cose.Digest
		logged bool
		ended  bool
		due    time.Duration
	}{{running, true, false, 90 * day}, {ended, false, true, 30 * day}, {place, false, false, 90 * day}} {
		k := all[i]
		if k.Run != want.run || k.Owners != 2 || k.Chunks != 2 || k.Logged != want.logged || k.Ended.IsZero() == want.ended || k.Due.Sub(k.Used) != want.due {
			t.Errorf("run %d: %+v, want %+v", i, k, want)
		}
	}
	never := cfg
	never.Retain = Forever
	if all, err = Chunks(ctx, never); err != nil || !all[1].Due.IsZero() {
		t.Errorf("for ever: %+v, %v", all, err)
	}
	for name, x := range map[string]struct {
		runs  []string
		force bool
		want  error
	}{
		"a running run":      {[]string{ended.String(), running.Short()}, false, ErrRunning},
		"too short":          {[]string{ended.String()[:7]}, true, nil},
		"no such run":        {[]string{ended.String(), cose.Sum(nil).String()}, true, nil},
		"longer than digits": {[]string{ended.String() + "0"}, true, nil},
	} {
		if freed, err := ReleaseChunks(ctx, cfg, x.runs, x.force); err == nil || x.want != nil && !errors.Is(err, x.want) || len(freed) > 0 {
			t.Errorf("%s: %+v, %v", name, freed, err)
		}
	}
	a.start()
	a.keeps("after what was refused", running, ended, place)
	a.stop()
	freed, err := ReleaseChunks(ctx, cfg, []string{ended.Short(), place.String(), ended.String()}, false)
	if err != nil || len(freed) != 2 || freed[0].Run != ended || freed[0].Chunks != 2 || freed[0].Bytes < 200_000 {
		t.Errorf("%+v, %v", freed, err)
	}
	if freed, err = ReleaseChunks(ctx, cfg, []string{running.Short()}, true); err != nil || len(freed) != 1 {
		t.Errorf("%+v, %v", freed, err)
	}
	a.start()
	a.keeps("at the end")
	_, err = transfer.NewClient(a.bank.conn).ReadAt(ctx, chunkstore.Scope{Federation: a.id(), Run: running}, chunkstore.ID{1}, make([]byte, 1), 0)
	if err == nil || !strings.Contains(err.Error(), "its log had no end of it") {
		t.Errorf("read of what the operator removed: %v", err)
	}
}

// TestAppraisedOnce: evidence is what it was found to be when it was first read, also
// when it would not pass any more; what the link could not judge it judges again.
func TestAppraisedOnce(t *testing.T) {
	t.Parallel()
	a := newArchive(t)
	run, other := cose.Sum([]byte("run")), cose.Sum([]byte("other"))
	b, late := a.boot(t, 1, 1, 2), a.boot(t, 2, 2, 2)
	a.log(b.evidence(t), b.end(t, run))
	a.collect(0)
	a.restart()
	good := a.link.collect.appraise
	a.link.collect.appraise = func(_ context.Context, _ *federation, u *receipt.Unverified) error {
		if u.Issuer() == receipt.EnclaveIssuer(b.id) {
			t.Error("evidence is appraised again")
		}
		return errNotAppraised
	}
	a.store(run)
	a.store(other)
	a.log(b.end(t, cose.Sum([]byte("a third"))), late.evidence(t), late.end(t, other))
	if err := a.link.collect.collect(t.Context()); !errors.Is(err, errNotAppraised) {
		t.Errorf("evidence that cannot be judged: %v", err)
	}
	a.advance(day / 2)
	if err := a.link.collect.collect(t.Context()); !errors.Is(err, errNotAppraised) {
		t.Errorf("evidence that cannot be judged, again: %v", err)
	}
	a.keeps("while the log is not understood", run, other)
	a.link.collect.appraise = good
	a.collect(31 * day)
	a.keeps("a month later")
}
