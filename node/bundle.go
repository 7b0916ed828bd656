package node

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/durable"
	"github.com/concordat/concordat/internal/flower"
	"github.com/concordat/concordat/internal/flower/fab"
	"github.com/concordat/concordat/internal/flower/process"
	"github.com/concordat/concordat/policy"
)

// bundles are the Flower app bundles that this node's owner has approved: one file
// each, named by its digest. It is safe for concurrent use.
type bundles struct {
	cfg *Flower // nil: none is run
	env *process.Environment
	dir string

	mu   sync.Mutex // owns the file system below dir, and list
	list map[Digest]fab.Project
}

// maxBundles bounds what an owner approves.
const maxBundles = 1000

// Errors about bundles, for the node's own users.
var (
	ErrNoFlower    = errors.New("node: it runs no Flower app bundles: its configuration has no flower.environment")
	ErrNotApproved = errors.New("node: the app bundle is not approved on this node")
)

func openBundles(cfg *Flower, dir string) (*bundles, error) {
	b := &bundles{dir: dir, list: map[Digest]fab.Project{}}
	if cfg == nil {
		return b, nil
	}
	c := *cfg
	var err error
	if c.NodeConfig, err = nodeConfig(cfg.NodeConfig); err != nil {
		return nil, err
	}
	for _, path := range append([]string{c.Environment}, c.ReadOnly...) {
		if !filepath.IsAbs(path) || filepath.Clean(path) != path {
			return nil, fmt.Errorf("flower: path %q is not absolute and clean", path)
		}
	}
	if b.env, err = process.Open(c.Environment); err != nil {
		return nil, fmt.Errorf("flower: environment: %w", err)
	}
	b.cfg = &c
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := durable.Sweep(durable.OS{}, dir); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		name, _ := strings.CutSuffix(e.Name(), ".fab")
		digest, err := cose.ParseDigest(name)
		if err != nil {
			return nil, fmt.Errorf("%s: not a bundle of this node's", filepath.Join(dir, e.Name()))
		}
		x, err := b.load(digest)
		if err != nil {
			return nil, err
		}
		b.list[digest] = x.Project
	}
	return b, nil
}

// nodeConfig gives a configuration's values the types that Flower knows.
func nodeConfig(in map[string]any) (map[string]any, error) {
	out := flower.RunConfig(in)
	for k, v := range out {
		switch v := v.(type) {
		case bool, int64, float64, string:
		case int:
			out[k] = int64(v)
		default:
			return nil, fmt.Errorf("flower: node_config %q is a %T, want bool, integer, float or string", k, v)
		}
	}
	return out, nil
}

func (b *bundles) file(digest Digest) string { return filepath.Join(b.dir, digest.String()+".fab") }

// load reads a bundle back and compares it with its digest.
func (b *bundles) load(digest Digest) (*fab.Bundle, error) {
	raw, err := durable.ReadFile(durable.OS{}, b.file(digest), fab.MaxSize)
	if err != nil {
		return nil, fmt.Errorf("app bundle: %w", err)
	}
	if got := cose.Sum(raw); got != digest {
		return nil, fmt.Errorf("app bundle %s has digest %s: somebody changed it; approve the right one again", b.file(digest), got.Short())
	}
	return fab.Parse(raw)
}

// approve checks a bundle and keeps it.
func (b *bundles) approve(content []byte) (*fab.Bundle, error) {
	if b.cfg == nil {
		return nil, ErrNoFlower
	}
	x, err := fab.Parse(content)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, known := b.list[x.Digest]; !known && len(b.list) >= maxBundles {
		return nil, fmt.Errorf("node: %d bundles are approved, which is the limit: revoke some", maxBundles)
	}
	if err := durable.WriteFile(durable.OS{}, b.file(x.Digest), content, 0o600); err != nil {
		return nil, err
	}
	b.list[x.Digest] = x.Project
	return x, nil
}

// revoke forgets a bundle.
func (b *bundles) revoke(digest Digest) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.list[digest]; !ok {
		return fmt.Errorf("%w: %s", ErrNotApproved, digest.Short())
	}
	delete(b.list, digest) // whether or not the file goes, nothing starts from here on
	if err := os.Remove(b.file(digest)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (b *bundles) approved(digest Digest) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := b.list[digest]
	return ok
}

// all returns what is approved.
func (b *bundles) all() map[Digest]fab.Project {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.list)
}

// program fills in how a bundle's ClientApp is started.
func (b *bundles) program(p *program, digest Digest) error {
	if !b.approved(digest) {
		return fmt.Errorf("app %s is not installed on this node", digest.Short())
	}
	x, err := b.load(digest)
	if err != nil {
		return err
	}
	p.bundle, p.settings = true, map[string]any{}
	for k, v := range p.config.RunConfig {
		if name, ok := strings.CutPrefix(k, policy.TrainPrefix); ok {
			p.settings[name] = v
			delete(p.config.RunConfig, k)
		}
	}
	p.config.NodeConfig = b.cfg.NodeConfig
	p.config.FabID, p.config.FabVersion, p.config.Fab = x.ID(), x.Version, x.Content
	p.start = b.env.Program(process.ClientApp)
	p.start.ReadOnly = append(p.start.ReadOnly, b.cfg.ReadOnly...)
	return nil
}

// flowerInstruction makes the message that Flower's own strategies would send: arrays,
// and a config of the settings and the round. What the enclave adds is left out.
func flowerInstruction(in flower.Instruction, settings map[string]any) (flower.Instruction, error) {
	dict, err := inflate(in.Content, in.Get)
	if err != nil {
		return in, err
	}
	var config object.ConfigRecord
	if in.Type == "train" {
		for _, k := range slices.Sorted(maps.Keys(settings)) {
			config = append(config, object.ValueItem{Key: k, Value: value(settings[k])})
		}
	}
	config = append(config, object.ValueItem{Key: flower.ConfigRound, Value: object.Sint(in.Round)})
	arrays, ok := dict.Get(flower.RecordArrays).(object.ArrayRecord)
	if !ok {
		return in, errors.New("the step's outputs have no arrays")
	}
	objects, err := object.Objects(object.RecordDict{{Name: flower.RecordArrays, Record: arrays}, {Name: flower.RecordConfig, Record: config}})
	if err != nil {
		return in, err
	}
	own := make(map[object.ID][]byte, len(objects))
	for _, o := range objects {
		own[o.ID] = o.Raw
	}
	get := in.Get
	in.Content = objects[len(objects)-1].ID
	in.Get = func(id object.ID) ([]byte, error) {
		if raw := own[id]; raw != nil {
			return raw, nil
		}
		return get(id)
	}
	return in, nil
}

// value gives a config's value as an object's; its types were checked.
func value(v any) object.Value {
	switch v := v.(type) {
	case bool:
		return object.Bool(v)
	case int64:
		return object.Sint(v)
	case float64:
		return object.Double(v)
	}
	return object.String(fmt.Sprint(v))
}
