package node

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"

	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/internal/flower"
	"github.com/concordat/concordat/internal/sandbox"
	"github.com/concordat/concordat/node/state"
)

// apps starts the owner's programs, each run's in processes of their own, and hands
// them instructions. It is safe for concurrent use.
type apps struct {
	installedApps []App
	bundles       *bundles
	isolation     sandbox.Isolation
	dir           string
	log           *slog.Logger
	states        *state.Store

	mu      sync.Mutex                      // owns all below
	objects map[Digest]map[object.ID][]byte // per run: objects of the last step
	standby map[Digest]*standby             // per run: the process for its next instruction
}

func newApps(cfg Config, dir string, states *state.Store) (*apps, error) {
	iso := sandbox.Sandbox
	if cfg.Isolation == string(sandbox.None) {
		iso = sandbox.None
	}
	b, err := openBundles(cfg.Flower, filepath.Join(dir, "fabs"))
	if err != nil {
		return nil, err
	}
	return &apps{installedApps: cfg.Apps, bundles: b, isolation: iso, dir: filepath.Join(dir, "apps"), log: cfg.Log, states: states,
		objects: map[Digest]map[object.ID][]byte{}, standby: map[Digest]*standby{}}, nil
}

func (a *apps) find(digest Digest) *App {
	for i := range a.installedApps {
		if a.installedApps[i].Digest == digest {
			return &a.installedApps[i]
		}
	}
	return nil
}

// installed reports whether the app may be asked for on this node.
func (a *apps) installed(digest Digest) bool {
	return a.find(digest) != nil || a.bundles.approved(digest)
}

// cached returns an object of the run's last step, so that an unchanged model is not
// fetched twice.
func (a *apps) cached(run Digest, id object.ID) ([]byte, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	raw, ok := a.objects[run][id]
	return raw, ok
}

// cache keeps the objects of a run's newest step, and forgets those before.
func (a *apps) cache(run Digest, objects map[object.ID][]byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.objects[run] = objects
}

// finish forgets a run. What still works on it when it ends may write once more: call it
// again then.
func (a *apps) finish(run Digest) {
	a.mu.Lock()
	delete(a.objects, run)
	if s := a.standby[run]; s != nil {
		close(s.unwanted)
		delete(a.standby, run)
	}
	a.mu.Unlock()
	if err := a.states.Remove(run); err != nil { // the next start tries again
		a.log.Warn("state of an app is left", "run", run.Short(), "reason", err.Error())
	}
}

// do has a process of the run's app, in the state that the answer to the step before has
// left, carry out one instruction, waits for its reply, and for its end. It returns the
// reply and the state that the process leaves.
func (a *apps) do(ctx context.Context, r *run, before state.Step, in flower.Instruction) (*flower.Reply, []byte, error) {
	if !a.installed(r.body.App) { // not any more: a process may wait from before
		return nil, nil, fmt.Errorf("app %s is not installed on this node", r.body.App.Short())
	}
	p, err := a.claim(ctx, r, before)
	if err != nil {
		return nil, nil, err
	}
	defer p.close()
	if p.program.bundle && !r.custom() {
		if in, err = flowerInstruction(in, p.program.settings); err != nil {
			return nil, nil, err
		}
	}
	reply, err := p.do(ctx, in)
	if err != nil {
		return nil, nil, err
	}
	return reply, p.app.State(), nil
}
