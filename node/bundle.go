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
	"github.com/concordat/concordat/policy"
)

// bundles are the Flower app bundles that this node's owner has approved: one file
// each, named by its digest. It is safe for concurrent use.
type bundles struct {
	cfg     *Flower  // nil: none is run
	python  []string // what the environment needs of its interpreter, outside of it
	dialect dialect  // of its processes
	dir     string

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
	// Its scripts name their interpreter by the path that the environment was made at.
	if c.Environment, err = filepath.EvalSymlinks(c.Environment); err != nil {
		return nil, fmt.Errorf("flower: environment: %w", err)
	}
	for _, name := range []string{"flwr-clientapp", "flwr-serverapp"} {
		if _, err := os.Stat(filepath.Join(c.Environment, "bin", name)); err != nil {
			return nil, fmt.Errorf("flower: the environment has no %s; make one with: python3 -m venv %s && %s/bin/pip install flwr==1.42.0: %w", name, c.Environment, c.Environment, err)
		}
	}
	interpreter, err := interpreterOf(c.Environment)
	if err != nil {
		return nil, fmt.Errorf("flower: environment: %w", err)
	}
	version, err := flowerVersion(c.Environment)
	if err != nil {
		return nil, fmt.Errorf("flower: environment %s: %w", c.Environment, err)
	}
	if b.dialect, err = dialectOf(version); err != nil {
		return nil, fmt.Errorf("flower: environment %s: %w", c.Environment, err)
	}
	b.cfg, b.python = &c, interpreter
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

// flowerVersion reads from an environment which version of Flower is in it.
func flowerVersion(environment string) (string, error) {
	found, err := filepath.Glob(filepath.Join(environment, "lib", "python3*", "site-packages", "flwr-*.dist-info"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("it holds flwr %d times, want once: pip install flwr", len(found))
	}
	name := filepath.Base(found[0])
	return strings.TrimSuffix(strings.TrimPrefix(name, "flwr-"), ".dist-info"), nil
}

// dialect is how the processes of a version of Flower are started and served.
type dialect struct {
	runtime bool // they speak the Runtime API over HTTP (dialect C), not the gRPC services before it (A)
	oneFlag bool // both kinds take their address by one flag
}

// dialectOf returns the dialect of a version. Those of 1.30 to 1.34 spoke gRPC of another
// kind.
func dialectOf(version string) (dialect, error) {
	var major, minor int
	if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err != nil {
		return dialect{}, fmt.Errorf("flwr has version %.40q", version)
	}
	switch {
	case major == 1 && minor >= 26 && minor <= 29:
		return dialect{}, nil
	case major == 1 && minor >= 35:
		return dialect{runtime: true, oneFlag: minor >= 36}, nil
	}
	return dialect{}, fmt.Errorf("it has flwr %s; 1.26 to 1.29, and 1.35 and later, are served", version)
}

// flag is how "clientapp" or "serverapp" takes the address that it is served at.
func (d dialect) flag(part string) string {
	if d.oneFlag {
		return "--runtime-api-address"
	}
	return "--" + part + "io-api-address"
}

// interpreterOf returns the interpreter that a virtual environment links to, by every
// name on the way, and its library: an environment holds neither.
func interpreterOf(environment string) (out []string, err error) {
	python := filepath.Join(environment, "bin", "python3")
	for range maxLinks {
		to, err := os.Readlink(python)
		if err != nil { // no link: this is it
			break
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(python), to)
		}
		python = to
		out = append(out, python)
	}
	if _, err := os.Stat(python); err != nil {
		return nil, err
	}
	if lib := filepath.Join(filepath.Dir(filepath.Dir(python)), "lib"); lib != "/lib" && lib != "/usr/lib" { // those any app sees
		if _, err := os.Stat(lib); err == nil {
			out = append(out, lib)
		}
	}
	return out, nil
}

// maxLinks is as many links as Linux follows.
const maxLinks = 40

// readOnly returns what every process of Flower's reads.
func (b *bundles) readOnly() []string { return append([]string{b.cfg.Environment}, b.python...) }

// nodeConfig gives a configuration's values the types that Flower knows.
func nodeConfig(in map[string]any) (map[string]any, error) {
	out := runConfig(in)
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
	p.bundle, p.dialect, p.settings = true, b.dialect, map[string]any{}
	for k, v := range p.config.RunConfig {
		if name, ok := strings.CutPrefix(k, policy.TrainPrefix); ok {
			p.settings[name] = v
			delete(p.config.RunConfig, k)
		}
	}
	p.config.NodeConfig = b.cfg.NodeConfig
	p.config.FabID, p.config.FabVersion, p.config.Fab = x.ID(), x.Version, x.Content
	p.readOnly = append(b.readOnly(), b.cfg.ReadOnly...)
	p.command, p.env = b.command("flwr-clientapp")
	return nil
}

// command is one of Flower's processes. It reports nothing to anybody: there is no
// network either.
func (b *bundles) command(name string) (command, env []string) {
	return []string{filepath.Join(b.cfg.Environment, "bin", name)},
		[]string{"FLWR_TELEMETRY_ENABLED=0", "FLWR_DISABLE_UPDATE_CHECK=1", "PYTHONDONTWRITEBYTECODE=1", "PYTHONUNBUFFERED=1"}
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
