package collect

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/collect/gpuhelper"
	"github.com/concordat/concordat/attestation/sim"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/policy"
	"github.com/google/go-configfs-tsm/configfs/configfsi"
	"github.com/google/go-configfs-tsm/configfs/fakertmr"
	"github.com/google/go-configfs-tsm/configfs/faketsm"
)

// The tests run the collector as it is released. What is fake is the kernel's tree
// (go-configfs-tsm's faketsm), the hardware behind it (package sim), and the program
// that speaks to GPUs: this binary, started under another name.

const fakeName = "fake-gpu"

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == fakeName {
		// Not os.Exit: the race detector would have every process wait a second.
		syscall.Exit(serveGPUs(filepath.Dir(os.Args[0])))
	}
	os.Exit(m.Run())
}

var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

var vendor = sync.OnceValue(func() *sim.Vendor {
	v, err := sim.NewVendor()
	if err != nil {
		panic(err)
	}
	return v
})

func simulated(t testing.TB, c sim.Config) *sim.Machine {
	t.Helper()
	c.Vendor = vendor()
	m, err := sim.New(c, now)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// kernel is the kernel of a machine: its configfs, over hardware that does not exist.
type kernel struct {
	*faketsm.Client
	reports *faketsm.ReportSubsystem

	provider string
	certs    []byte                             // beside a report
	floor    string                             // of privilege levels
	answer   func(reportData [64]byte) []byte   // what the hardware says
	before   func(e *faketsm.ReportEntry) error // called before it is asked; nil: nothing
	written  map[string]string                  // the last value of every attribute
}

func newKernel(t testing.TB, m *sim.Machine) *kernel {
	t.Helper()
	k := &kernel{
		provider: "sev_guest", floor: "0", written: map[string]string{}, reports: faketsm.ReportV7(0),
		answer: func(d [64]byte) []byte {
			items, err := m.Collect(context.Background(), d)
			if err != nil {
				t.Error(err)
				return nil
			}
			return items[0].Raw
		},
	}
	if m.Config().Platform == sim.PlatformTDX {
		k.provider = "tdx_guest"
	}
	make1, check := k.reports.MakeEntry, k.reports.CheckInAttr
	k.reports.MakeEntry = func() *faketsm.ReportEntry {
		e := make1()
		if k.provider != "sev_guest" {
			delete(e.InAttrs, "privlevel")
		}
		return e
	}
	k.reports.CheckInAttr = func(e *faketsm.ReportEntry, attr string, value []byte) error {
		if e.InAttrs[attr] == nil {
			return syscall.EACCES // configfs makes no files
		}
		k.written[attr] = string(value)
		return check(e, attr, value)
	}
	k.reports.ReadAttr = k.read
	registers := fakertmr.CreateRtmrSubsystem(t.TempDir())
	k.Client = &faketsm.Client{Subsystems: map[string]configfsi.Client{"report": k.reports, "rtmrs": registers}}
	return k
}

func (k *kernel) read(e *faketsm.ReportEntry, attr string) ([]byte, error) {
	extra := k.provider == "sev_guest"
	switch {
	case attr == "provider":
		return []byte(k.provider + "\n"), nil
	case attr == "privlevel_floor" && extra:
		return []byte(k.floor + "\n"), nil
	case attr == "auxblob" && extra:
		return k.certs, nil
	case attr == "outblob":
		if k.before != nil {
			if err := k.before(e); err != nil {
				return nil, err
			}
		}
		return k.answer([64]byte(e.InAttrs["inblob"].Value)), nil
	}
	return nil, fs.ErrNotExist
}

// kept wraps the fake tree, whose errors are text, so that they are what a kernel
// returns.
type kept struct {
	configfsi.Client
	err map[string]error // by attribute; "mkdir" for a new entry
}

func (c kept) MkdirTemp(dir, pattern string) (string, error) {
	if err := c.err["mkdir"]; err != nil {
		return "", err
	}
	return c.Client.MkdirTemp(dir, pattern)
}

func (c kept) ReadFile(name string) ([]byte, error) {
	if err := c.err[filepath.Base(name)]; err != nil {
		return nil, err
	}
	return c.Client.ReadFile(name)
}

// onTop is a machine over k.
func (k *kernel) host(t testing.TB) host {
	return host{files: k, registers: t.TempDir(), helper: filepath.Join(t.TempDir(), "none")}
}

func key(words string) *cose.Signer {
	seed := sha256.Sum256([]byte(words))
	s, err := cose.NewSigner(ed25519.NewKeyFromSeed(seed[:]))
	if err != nil {
		panic(err)
	}
	return s
}

// noteKey returns a C2SP verifier key (typ 1: Ed25519, 4: cosignature).
func noteKey(name string, typ byte) string {
	data := append([]byte{typ}, key(name).Public().Public().(ed25519.PublicKey)...)
	h := sha256.Sum256(slices.Concat([]byte(name), []byte{'\n'}, data))
	return fmt.Sprintf("%s+%x+%s", name, h[:4], base64.StdEncoding.EncodeToString(data))
}

// accepts returns the policy of a simulated federation that accepts m.
func accepts(t testing.TB, m *sim.Machine) *policy.Policy {
	t.Helper()
	d, err := m.Describe()
	if err != nil {
		t.Fatal(err)
	}
	p := &policy.Policy{
		Schema: policy.Schema, Version: 1, Name: "test", Approvals: 2,
		Simulated: true, SimulatedRoots: d.Roots, Platforms: d.Platforms,
		Evidence: policy.Evidence{MaxAge: 600, MaxCollateralAge: 30 * 86400, MaxEpochAge: 86400, MaxRoundsPerEpoch: 100},
		Log:      policy.Log{Origin: "log.example", Key: noteKey("log.example", 1), Witnesses: 1, MaxUnpublishedSteps: 1, DenialLag: 60},
		Release: policy.Release{
			MinContributors: 2, MaxWeightShare: 600, Cohort: policy.CohortFixed, Dropouts: policy.DropoutsRefuse,
			Downlink: policy.DownlinkShared, MaxMetricBytes: 1024, StepDeadline: 60, AckDeadline: 60,
		},
		Apps:  []policy.App{{Digest: policy.Digest{1}, Name: "app", Exposure: policy.ExposureAggregate, Strategies: []string{"fedavg"}, MaxRounds: 10}},
		Nodes: policy.NodeRules{MessageTypes: []string{"train"}, MetricKeys: []string{"loss"}, CredentialAge: 86400},
	}
	for _, id := range []policy.MemberID{"a", "b", "c"} {
		p.Members = append(p.Members, policy.Member{
			ID: id, PolicyKeys: []cose.Key{key(string(id) + " policy").Public()}, IssuerKey: key(string(id) + " issuer").Public(),
			WitnessKey: noteKey(string(id)+".example/witness", 4),
		})
	}
	if err := p.Check(); err != nil {
		t.Fatal(err)
	}
	return p
}

// open opens the machine as [Open] does where it is not simulated.
func open(t testing.TB, h host, p *policy.Policy) *Machine {
	t.Helper()
	m, err := h.open(context.Background(), Config{Policy: p, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// documents returns what the simulated vendors publish, of the given types.
func documents(t testing.TB, m *sim.Machine, types ...string) []attestation.Endorsement {
	t.Helper()
	s, err := m.Endorsements()
	if err != nil {
		t.Fatal(err)
	}
	var out []attestation.Endorsement
	for _, d := range s.All() {
		if slices.Contains(types, d.Type) {
			out = append(out, d)
		}
	}
	if len(out) == 0 {
		t.Fatalf("the simulator has none of %q", types)
	}
	return out
}

// gpuBox is the GPUs of a machine in a directory: machine.json, mode.json, and the
// program.
type gpuBox struct {
	dir string
	t   testing.TB
}

// newGPUs makes the GPUs of m.
func newGPUs(t testing.TB, m *sim.Machine) gpuBox {
	t.Helper()
	b := gpuBox{t.TempDir(), t}
	b.become(m)
	b.set(gpuhelper.State{Driver: "550.90.07", GPUs: m.GPUs(), Environment: gpuhelper.Production, Confidential: true, Ready: true})
	self, err := os.Executable()
	if err == nil {
		err = os.Symlink(self, b.program())
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (b gpuBox) program() string { return filepath.Join(b.dir, fakeName) }

func (b gpuBox) become(m *sim.Machine) {
	b.t.Helper()
	if err := sim.WriteConfig(filepath.Join(b.dir, "machine.json"), m.Config()); err != nil {
		b.t.Fatal(err)
	}
}

func (b gpuBox) set(s gpuhelper.State) {
	b.t.Helper()
	if err := (gpuProcess{dir: b.dir}).write(s); err != nil {
		b.t.Fatal(err)
	}
}

func (b gpuBox) state() gpuhelper.State {
	b.t.Helper()
	s, err := gpuProcess{dir: b.dir}.State()
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

// gpuProcess is the driver in the fake program. It makes evidence where the real one
// asks NVML.
type gpuProcess struct {
	dir string
	m   *sim.Machine
}

func serveGPUs(dir string) int {
	c, err := sim.ReadConfig(filepath.Join(dir, "machine.json"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	m, err := sim.New(c, now)
	if err == nil {
		err = gpuhelper.Serve(os.Stdin, os.Stdout, gpuProcess{dir, m})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func (p gpuProcess) State() (s gpuhelper.State, err error) {
	b, err := os.ReadFile(filepath.Join(p.dir, "mode.json"))
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(b, &s)
}

func (p gpuProcess) write(s gpuhelper.State) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(p.dir, "mode.json"), b, 0o600)
}

func (p gpuProcess) SetReady(ready bool) error {
	s, err := p.State()
	if err != nil {
		return err
	}
	s.Ready = ready
	return p.write(s)
}

func (p gpuProcess) Evidence(i int, nonce [32]byte) (gpuhelper.GPU, error) {
	nonces := make([][32]byte, p.m.GPUs())
	nonces[i] = nonce
	items, err := p.m.CollectGPU(context.Background(), nonces)
	if err != nil {
		return gpuhelper.GPU{}, err
	}
	ends, err := p.m.Endorsements()
	if err != nil {
		return gpuhelper.GPU{}, err
	}
	chain, ok := ends.Get(items[i].Endorsements[0])
	if !ok || !strings.HasPrefix(string(chain.Data), "-----BEGIN CERTIFICATE") {
		return gpuhelper.GPU{}, fmt.Errorf("the simulator does not name the chain first")
	}
	return gpuhelper.GPU{Report: items[i].Raw, Chain: chain.Data}, nil
}
