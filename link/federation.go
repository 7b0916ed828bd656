package link

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"

	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/durable"
	"github.com/concordat/concordat/link/log"
	"github.com/concordat/concordat/link/mailbox"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/tlog"
)

// federation is everything of one federation that is hosted here.
type federation struct {
	id      cose.Digest
	chain   *policy.Chain
	policy  *policy.Policy // in force when the link started
	mail    *mailbox.Exchange
	log     *log.Log
	witness map[policy.MemberID]tlog.VerifierKey

	mu       sync.Mutex
	sessions map[*session]struct{}
	newest   string // instance of the enclave that attached last; empty: none did
}

// chains reads every policy chain that the link is to host.
func (c *Config) chains() ([]*policy.Chain, error) {
	dir := filepath.Join(c.Data, federationsDir)
	entries, err := disk.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("link: %w", err)
	}
	files := slices.Clone(c.Policies)
	for _, e := range entries {
		if e.Type().IsRegular() && e.Name()[0] != '.' {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	var all []*policy.Chain
	from := make(map[cose.Digest]string)
	for _, f := range files {
		b, err := durable.ReadFile(disk, f, policy.MaxChain)
		if err != nil {
			return nil, fmt.Errorf("link: %w", err)
		}
		chain, err := policy.ParseChain(b)
		if err != nil {
			return nil, fmt.Errorf("link: %s: %w", f, err)
		}
		if other, twice := from[chain.Federation()]; twice {
			return nil, fmt.Errorf("link: %s and %s are of the same federation", other, f)
		}
		from[chain.Federation()] = f
		all = append(all, chain)
	}
	return all, nil
}

// host opens a federation.
func (l *Link) host(ctx context.Context, chain *policy.Chain, key *cose.Signer) (*federation, error) {
	head := chain.Head()
	f := &federation{id: chain.Federation(), chain: chain, policy: head, witness: make(map[policy.MemberID]tlog.VerifierKey), sessions: make(map[*session]struct{})}
	fail := func(err error) (*federation, error) {
		return nil, fmt.Errorf("link: federation %s: %w", f.id.Short(), err)
	}
	v, err := log.VerifierKey(head.Log.Origin, key.Public())
	if err != nil {
		return fail(err)
	}
	if v.String() != head.Log.Key {
		return fail(fmt.Errorf("its policy names the log key %s, this link has %s", head.Log.Key, v))
	}
	var witnesses []tlog.VerifierKey
	for _, m := range head.Members {
		k, err := tlog.ParseVerifierKey(m.WitnessKey)
		if err != nil {
			return fail(fmt.Errorf("witness key of %s: %w", m.ID, err))
		}
		f.witness[m.ID] = k
		witnesses = append(witnesses, k)
	}
	if err := l.state.Host(ctx, f.id, head.Log.Origin, head.Version, head.Digest()); err != nil {
		return fail(err)
	}
	f.mail = mailbox.New(l.state, f.id)
	f.log, err = log.Open(ctx, log.Config{
		Federation: f.id, Dir: filepath.Join(l.cfg.Data, f.id.String(), logDir), Origin: head.Log.Origin, Key: key,
		Witnesses: witnesses, Need: int(head.Log.Witnesses), Store: l.state, Published: f.published,
		Logger:   l.cfg.Logger.With("federation", f.id.Short()),
		BatchAge: l.cfg.BatchAge, CheckpointInterval: l.cfg.CheckpointInterval,
	})
	if err != nil {
		return fail(err)
	}
	return f, nil
}

// published tells everybody who is attached of a checkpoint.
func (f *federation) published(note []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := range f.sessions {
		s.checkpoint(note)
	}
}

func (f *federation) join(s *session) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sessions[s] = struct{}{}
	if s.address.Role == mailbox.Enclave {
		f.newest = s.address.ID
		for x := range f.sessions {
			x.announce(f.newest)
		}
	} else if f.newest != "" {
		s.announce(f.newest)
	}
}

func (f *federation) leave(s *session) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.sessions, s)
}

var errDrain = errors.New("the link is shutting down")
