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
)

// apps starts the owner's programs, each run's in processes of their own, and hands
// them instructions. It is safe for concurrent use; do serves one instruction of a
// run at a time.
type apps struct {
	installedApps []App
	bundles       *bundles
	isolation     sandbox.Isolation
	dir           string
	log           *slog.Logger

	mu      sync.Mutex                      // owns all below
	objects map[Digest]map[object.ID][]byte // per run: objects of the last step
	state   map[Digest][]byte               // per run: the app's state
	standby map[Digest]*standby             // per run: the process for its next instruction
}

func newApps(cfg Config, dir string) (*apps, error) {
	iso := sandbox.Sandbox
	if cfg.Isolation == string(sandbox.None) {
		iso = sandbox.None
	}
	b, err := openBundles(cfg.Flower, filepath.Join(dir, "fabs"))
	if err != nil {
		return nil, err
	}
	return &apps{installedApps: cfg.Apps, bundles: b, isolation: iso, dir: filepath.Join(dir, "apps"), log: cfg.Log,
		objects: map[Digest]map[object.ID][]byte{}, state: map[Digest][]byte{}, standby: map[Digest]*standby{}}, nil
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

// finish forgets a run.
func (a *apps) finish(run Digest) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.objects, run)
	delete(a.state, run)
	if s := a.standby[run]; s != nil {
		close(s.unwanted)
		delete(a.standby, run)
	}
}

// do has a process of the run's app carry out one instruction, waits for its reply, and
// for its end.
func (a *apps) do(ctx context.Context, r *run, in flower.Instruction) (*flower.Reply, error) {
	if !a.installed(r.body.App) { // not any more: a process may wait from before
		return nil, fmt.Errorf("app %s is not installed on this node", r.body.App.Short())
	}
	p, err := a.claim(ctx, r)
	if err != nil {
		return nil, err
	}
	defer p.close()
	if p.program.bundle && !r.custom() {
		if in, err = flowerInstruction(in, p.program.settings); err != nil {
			return nil, err
		}
	}
	reply, err := p.do(ctx, in)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	a.state[r.digest] = p.app.State()
	a.mu.Unlock()
	return reply, nil
}
