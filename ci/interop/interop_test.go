package interop

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/ci"
	"github.com/concordat/concordat/enclave/aggregate"
	"github.com/concordat/concordat/examples/breast-cancer/data"
	"github.com/concordat/concordat/examples/breast-cancer/model"
	"github.com/concordat/concordat/internal/flower/clientapp"
	flowercontrol "github.com/concordat/concordat/internal/flower/control"
	"github.com/concordat/concordat/internal/flower/superlink"
	"github.com/concordat/concordat/internal/sandbox"
	"github.com/concordat/concordat/node"
	"github.com/concordat/concordat/policy"
)

func TestMain(m *testing.M) {
	ci.Main(m, func(context.Context, clientapp.Message) (object.RecordDict, error) {
		return nil, errors.New("this app is not asked for")
	}, nil)
}

// environments returns the Python environments with Flower to test with: of each version
// of CONCORDAT_INTEROP_VERSIONS the folder flwr-VERSION.
func environments(t *testing.T) []string {
	t.Helper()
	dir := os.Getenv("CONCORDAT_INTEROP")
	if dir == "" {
		t.Skip("NOT TESTED with Flower: CONCORDAT_INTEROP names no folder of Python environments; \"make interop\" makes one")
	}
	var found []string
	for _, v := range strings.Fields(os.Getenv("CONCORDAT_INTEROP_VERSIONS")) {
		found = append(found, filepath.Join(dir, "flwr-"+v))
	}
	if len(found) == 0 {
		t.Fatal("CONCORDAT_INTEROP_VERSIONS names no version")
	}
	return found
}

// ends are the first and the last of them, one of each dialect: for tests that would find
// nothing else between.
func ends(t *testing.T) []string {
	t.Helper()
	all := environments(t)
	return slices.Compact([]string{all[0], all[len(all)-1]})
}

// isolation is the sandbox, if this machine allows it.
func isolation(t *testing.T) string {
	t.Helper()
	p, err := sandbox.Start(t.Context(), sandbox.Config{Command: []string{"/bin/true"}, Dir: t.TempDir(), ReadOnly: sandbox.System(), Isolation: sandbox.Sandbox})
	var refused *sandbox.Refused
	if errors.As(err, &refused) {
		t.Logf("apps run UNCONFINED: this machine refuses %s", refused.Confinement)
		return string(sandbox.None)
	}
	if err != nil {
		t.Fatal(err)
	}
	p.Wait()
	return string(sandbox.Sandbox)
}

// user is a data scientist with the flwr command, and an owner with concordat.
type user struct {
	t       *testing.T
	env     string
	home    string
	program string // concordat
	sockets string // of the federation's nodes, by name
	address string // where the first of them serves the flwr command
}

func (u *user) start(name string, args ...string) *exec.Cmd {
	c := exec.Command(name, args...)
	c.Dir = u.home
	c.Env = append(superlink.Environ(u.home), "PYTHONDONTWRITEBYTECODE=1", "BROWSER=/bin/true")
	return c
}

// run returns what a command printed, and whether it ended well.
func (u *user) run(name string, args ...string) (string, bool) {
	u.t.Helper()
	out, err := u.start(name, args...).CombinedOutput()
	return string(out), err == nil
}

// flwr runs Flower's command, which must end well.
func (u *user) flwr(args ...string) string {
	u.t.Helper()
	out, ok := u.run(filepath.Join(u.env, "bin", "flwr"), args...)
	if !ok {
		u.t.Fatalf("flwr %s:\n%s", strings.Join(args, " "), out)
	}
	return out
}

// refused runs Flower's command, which must end badly and say why.
func (u *user) refused(why string, args ...string) {
	u.t.Helper()
	out, ok := u.run(filepath.Join(u.env, "bin", "flwr"), args...)
	if ok || !strings.Contains(plain(out), why) {
		u.t.Errorf("flwr %s: ended well: %v; want %q in\n%s", strings.Join(args, " "), ok, why, out)
	}
}

// plain takes away the box that Flower's command draws around errors.
func plain(out string) string {
	return strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if r == '│' || r == '╭' || r == '╰' || r == '─' || r == '╮' || r == '╯' {
			return ' '
		}
		return r
	}, out)), " ")
}

// build returns the bundle that this version of Flower makes of an app's folder.
func (u *user) build(app string) (file string, digest [32]byte) {
	u.t.Helper()
	u.flwr("build", "--app", app)
	found, err := filepath.Glob(filepath.Join(u.home, "*.fab"))
	if err != nil || len(found) != 1 {
		u.t.Fatalf("flwr build left %v, %v", found, err)
	}
	b, err := os.ReadFile(found[0])
	if err != nil {
		u.t.Fatal(err)
	}
	return found[0], sha256.Sum256(b)
}

// TestFlower runs the quickstart with each version of Flower: its command against a
// member's own node, its ServerApp as far as the first message, its ClientApps on every
// node, and the native strategy in the enclave.
func TestFlower(t *testing.T) {
	for _, env := range environments(t) {
		t.Run(filepath.Base(env), func(t *testing.T) { whole(t, env) })
	}
}

// quickstart is the app that is run, the same as everybody's.
func quickstart(t *testing.T) string { return example(t, "flower-quickstart") }

// example is the folder of one of the examples.
func example(t *testing.T, name string) string {
	t.Helper()
	app, err := filepath.Abs(filepath.Join("../../examples", name))
	if err != nil {
		t.Fatal(err)
	}
	return app
}

// newUser returns a user of one version of Flower, and of concordat.
func newUser(t *testing.T, env string) *user {
	t.Helper()
	u := &user{t: t, env: env, home: t.TempDir()}
	u.program = filepath.Join(u.home, "concordat")
	if out, err := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", u.program, "../../cmd/concordat").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return u
}

// federation starts one whose three nodes run Flower in the given environments, and whose
// policy has the bundle; the user is at the first, whose listener is given (nil: one
// without a login). It returns how an owner approves.
func (u *user) federation(digest [32]byte, envs [3]string, at *flowercontrol.Listener, more ...ci.Option) (f *ci.Federation, approve func(file string)) {
	t := u.t
	t.Helper()
	hospitals, err := model.Hospitals(data.CSV)
	if err != nil {
		t.Fatal(err)
	}
	if u.sockets, err = os.MkdirTemp("", "interop"); err != nil { // t.TempDir is too long a name for a socket
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(u.sockets) })
	isolated := isolation(t)
	if at == nil {
		if at, err = flowercontrol.Listen("127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		u.connect(at, "insecure = true")
	}
	places := map[string]int{} // of nodes, in the order of their first start
	f = ci.StartFederation(t, append([]ci.Option{
		ci.Policy(func(p *policy.Policy) {
			p.Apps = append(p.Apps, policy.App{Digest: digest, Name: "quickstart", Exposure: policy.ExposureAggregate, Strategies: []string{"fedadam", "fedavg"}, MaxRounds: 100})
			slices.SortFunc(p.Apps, func(a, b policy.App) int { return bytes.Compare(a.Digest[:], b.Digest[:]) })
			p.Nodes.MetricKeys = []string{"accuracy", "loss", "num-examples", "partition-id", "rounds"}
		}),
		ci.NodeConfig(func(name string, c *node.Config) {
			i, again := places[name]
			if !again {
				i = len(places)
				places[name] = i
			}
			rows := filepath.Join(u.home, name+".csv")
			if err := os.WriteFile(rows, hospitals[i].CSV, 0o600); err != nil {
				t.Fatal(err)
			}
			c.Isolation = isolated
			c.CheckStrategy = func(name string, arguments map[string]any) error {
				_, err := aggregate.New(name, arguments)
				return err
			}
			c.CheckArray = func(name, descr string) error {
				_, err := aggregate.Tensor{Name: name, Type: descr}.StateType()
				return err
			}
			c.Flower = &node.Flower{Environment: envs[i], ReadOnly: []string{rows}, NodeConfig: map[string]any{"data": rows, "partition-id": i}}
			if c.Control, err = net.Listen("unix", filepath.Join(u.sockets, name)); err != nil {
				t.Fatal(err)
			}
			if i == 0 && again { // the listener ended with the node
				if at, err = flowercontrol.Listen(at.Addr().String()); err != nil {
					t.Fatal(err)
				}
			}
			if i == 0 {
				c.FlowerControl = at
			}
		})}, more...)...)
	for _, n := range f.Nodes {
		n.AwaitKind(t, "joined")
	}
	return f, func(file string) {
		for _, n := range f.Nodes {
			out, ok := u.run(u.program, "app", "approve", file, "--control", u.control(n))
			if !ok || !strings.Contains(out, fmt.Sprintf("%x", digest)) {
				t.Fatalf("app approve: %s", out)
			}
		}
	}
}

// control is the address of a node's socket.
func (u *user) control(n *ci.Node) string { return "unix://" + filepath.Join(u.sockets, n.Name) }

// connect writes the flwr command's configuration: a node, and how it is reached.
func (u *user) connect(at *flowercontrol.Listener, how string) {
	u.t.Helper()
	u.address = at.Addr().String()
	u.configure(how, "my-node", u.address)
}

// connections is connect for several that are reached without TLS: names and addresses in
// turn.
func (u *user) connections(all ...string) {
	u.t.Helper()
	u.configure("insecure = true", all...)
}

func (u *user) configure(how string, all ...string) {
	u.t.Helper()
	config := fmt.Sprintf("[superlink]\ndefault = %q\n", all[0])
	for i := 0; i < len(all); i += 2 {
		config += fmt.Sprintf("\n[superlink.%s]\naddress = %q\n%s\n", all[i], all[i+1], how)
	}
	if err := os.MkdirAll(filepath.Join(u.home, "flwr"), 0o700); err != nil {
		u.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(u.home, "flwr", "config.toml"), []byte(config), 0o600); err != nil {
		u.t.Fatal(err)
	}
}

// TestMixed: owners install Flower when they like. The first and the last version, with
// their dialects, run in one federation, and their commands see the same runs at one node.
func TestMixed(t *testing.T) {
	envs := environments(t)
	first, last := envs[0], envs[len(envs)-1]
	if first == last {
		t.Skip("NOT TESTED: one version alone is no mixture")
	}
	u, app := newUser(t, first), quickstart(t)
	file, digest := u.build(app)
	_, approve := u.federation(digest, [3]string{last, first, last}, nil)
	approve(file)
	id := u.begun(app, "my-node", "-c", "num-server-rounds=1")
	u.env = last
	if out := u.flwr("log", id, "my-node"); !strings.Contains(out, "Run completed.") || !strings.Contains(out, "[ROUND 1/1] evaluate: 3 contributions") {
		t.Errorf("flwr log:\n%s", out)
	}
	for _, u.env = range []string{first, last} {
		if runs := u.listed(); len(runs) != 1 || runs[0].ID != id || runs[0].Status != "finished:completed" {
			t.Errorf("flwr ls of %s: %+v", filepath.Base(u.env), runs)
		}
	}
}

func whole(t *testing.T, env string) {
	u, app := newUser(t, env), quickstart(t)
	file, digest := u.build(app)
	f, approve := u.federation(digest, [3]string{env, env, env}, nil)

	u.refused("not approved on this node", "run", app, "my-node")
	approve(file)

	begin := time.Now()
	out := u.flwr("run", app, "my-node", "--stream", "-c", "epochs=50")
	t.Logf("a run of 3 rounds took %.1f s:\n%s", time.Since(begin).Seconds(), out)
	if !strings.Contains(out, "Run completed.") || strings.Count(out, ": 3 contributions") != 6 { // the ServerApp prints rounds too
		t.Fatalf("the run did not complete in 3 rounds of two steps")
	}
	accuracy := regexp.MustCompile(`\[ROUND 3/3\] evaluate: 3 contributions  accuracy ([0-9.]+)  loss`).FindStringSubmatch(out)
	if accuracy == nil {
		t.Fatal("the last round has no accuracy")
	}
	if v, err := strconv.ParseFloat(accuracy[1], 64); err != nil || v < 0.93 {
		t.Errorf("accuracy %s on rows that were held out, want at least 0.93", accuracy[1])
	}
	// Context.state came back in every round: each ClientApp counts its own.
	for round := 1; round <= 3; round++ {
		if want := fmt.Sprintf("[ROUND %d/3] train: 3 contributions  rounds %d", round, round); !strings.Contains(out, want) {
			t.Errorf("no %q", want)
		}
	}
	for i, n := range f.Nodes {
		n.AwaitKind(t, "ended")
		if i > 0 && len(n.Events()) == 0 {
			t.Errorf("%s took no part", n.Name)
		}
	}

	runs := u.listed()
	if len(runs) != 1 || runs[0].Status != "finished:completed" || !strings.HasPrefix(fmt.Sprintf("%x", digest), runs[0].Fab) {
		t.Errorf("flwr ls: %+v", runs)
	}
	first := runs[0].ID
	if out := u.flwr("log", first, "my-node"); !strings.Contains(out, "Run completed.") {
		t.Errorf("flwr log:\n%s", out)
	}
	if out := u.flwr("log", first, "my-node", "--show"); !strings.Contains(out, "[ROUND 1/3]") {
		t.Errorf("flwr log --show:\n%s", out)
	}
	u.pull(f, first, out)
	u.refused("already finished", "stop", first, "my-node")
	u.refused("has no key", "run", app, "my-node", "-c", "no-such-key=1")
	u.refused("is in no federation", "run", app, "my-node", "--federation", "@somebody/else")
	u.refused("101 rounds, want 1 to 100", "run", app, "my-node", "-c", "num-server-rounds=101")
	federation := "@concordat/" + f.Chain.Federation().Short()
	if out := u.flwr("federation", "list", "my-node"); !strings.Contains(out, federation) {
		t.Errorf("flwr federation list:\n%s", out)
	}
	if !strings.HasSuffix(env, "1.26.1") { // it numbers those fields in another way
		if out := u.flwr("federation", "list", "my-node", "--federation", federation); !strings.Contains(out, "member-b") || !strings.Contains(out, "completed") {
			t.Errorf("flwr federation list --federation:\n%s", out)
		}
	}
	if out := u.flwr("supernode", "list", "my-node"); !strings.Contains(out, "member-a") || !strings.Contains(out, "online") {
		t.Errorf("flwr supernode list:\n%s", out)
	}

	// Another strategy, with an argument; and one that it does not take. An array stays as it
	// began: the app is as it is, and its model's second array is in no contribution.
	out = u.flwr("run", app, "my-node", "--stream", "-c", `num-server-rounds=2 epochs=20 concordat.strategy="fedadam" concordat.eta=0.05 concordat.frozen="1"`)
	if !strings.Contains(out, "native strategy fedadam") || !strings.Contains(out, "Run completed.") {
		t.Errorf("flwr run with fedadam:\n%s", out)
	}
	u.refused("it takes eta, beta_1, beta_2, tau", "run", app, "my-node", "-c", `concordat.strategy="fedadam" concordat.beta=0.05`)

	if !slices.Contains(ends(t), env) {
		return // what follows is the node's own doing, whatever the version
	}
	out = u.flwr("run", app, "my-node", "--stream", "-c", `concordat.frozen="bias"`)
	if !strings.Contains(out, `the model has no array "bias"`) {
		t.Errorf("flwr run with an array to freeze that is not there:\n%s", out)
	}

	u.stopDuringARound(f, app, federation)
	u.twoAtOnce(app)
	u.restartDuringARun(f, app)
}

// pull has the command show where the results of a run are, and fetches them: they are what
// the node's owner gets. out is the run's log.
func (u *user) pull(f *ci.Federation, run, out string) {
	u.t.Helper()
	said := plain(u.flwr("pull", run, "my-node"))
	address := regexp.MustCompile(`https?://[^ ]+`).FindString(said)
	res, err := http.Get(address)
	if err != nil {
		u.t.Fatalf("flwr pull said %q: %v", said, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		u.t.Fatalf("%s: %s, %v", address, res.Status, err)
	}
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		u.t.Fatal(err)
	}
	want, err := os.ReadFile(u.modelFile(f, out))
	if err != nil {
		u.t.Fatal(err)
	}
	for _, name := range []string{"model.npz", "bundle.cbor"} {
		r, err := z.Open(name)
		if err != nil {
			u.t.Errorf("flwr pull: %s: %v", name, err)
			continue
		}
		got, err := io.ReadAll(r)
		if err != nil || len(got) == 0 || name == "model.npz" && !bytes.Equal(got, want) {
			u.t.Errorf("flwr pull: %s has %d bytes, and the owner gets another (%v)", name, len(got), err)
		}
	}
}

type listedRun struct {
	ID     string `json:"run-id"`
	Fab    string `json:"fab-hash"`
	Status string `json:"status"`
}

// listed is what flwr ls says.
func (u *user) listed() []listedRun {
	u.t.Helper()
	out := u.flwr("list", "my-node", "--format", "json")
	var v struct {
		Success bool        `json:"success"`
		Runs    []listedRun `json:"runs"`
	}
	if err := json.Unmarshal([]byte(out[strings.Index(out, "{"):]), &v); err != nil {
		u.t.Fatalf("flwr ls: %v\n%s", err, out)
	}
	if !v.Success { // the command ends well all the same
		u.t.Fatalf("flwr ls:\n%s", out)
	}
	return v.Runs
}

// begun starts a run and returns its number.
func (u *user) begun(args ...string) string {
	u.t.Helper()
	m := regexp.MustCompile(`started run (\d+)`).FindStringSubmatch(u.flwr(append([]string{"run"}, args...)...))
	if m == nil {
		u.t.Fatal("flwr run gave no number")
	}
	return m[1]
}

// stopDuringARound stops a long run once a round of it is over.
func (u *user) stopDuringARound(f *ci.Federation, app, federation string) {
	u.t.Helper()
	seen := len(f.Nodes[0].Events())
	id := u.begun(app, "my-node", "--federation", federation, "-c", "num-server-rounds=100")
	n := 0
	f.Nodes[0].Await(u.t, "a second step of the run", func(e node.Event) bool {
		n++
		return n > seen && e.Kind == "step" && e.Seq >= 2
	})
	u.flwr("stop", id, "my-node")
	out := u.flwr("log", id, "my-node")
	if !strings.Contains(out, "stop asked for") || !strings.Contains(out, "Run stopped.") || strings.Contains(out, "[ROUND 100/100]") {
		u.t.Errorf("log of a stopped run:\n%s", out)
	}
	runs := u.listed()
	if i := slices.IndexFunc(runs, func(r listedRun) bool { return r.ID == id }); i < 0 || runs[i].Status != "finished:stopped" {
		u.t.Errorf("flwr ls: %+v", runs)
	}
	for _, n := range f.Nodes {
		n.Await(u.t, "the run's end as stopped", func(e node.Event) bool { return e.Kind == "ended" && e.Outcome == "stopped" })
	}
}

// restartDuringARun restarts the user's node once a round of a run is over: the command
// shows all runs as before, and the run to its end, with the ClientApp's state; another one
// it stops after the restart.
func (u *user) restartDuringARun(f *ci.Federation, app string) {
	u.t.Helper()
	n := f.Nodes[0]
	before := u.listed()
	restart := func(rounds int) string {
		seen := len(n.Events())
		id := u.begun(app, "my-node", "-c", fmt.Sprintf("num-server-rounds=%d", rounds))
		i := 0
		n.Await(u.t, "a second step of the run", func(e node.Event) bool {
			i++
			return i > seen && e.Kind == "step" && e.Seq >= 2
		})
		f.Restart(n)
		n.AwaitKind(u.t, "joined")
		return id
	}
	id := restart(4)
	out := u.flwr("log", id, "my-node")
	for _, want := range []string{"run request", "this node stopped", "this node restarted", "[ROUND 4/4] train: 3 contributions  rounds 4", "Run completed."} {
		if !strings.Contains(out, want) {
			u.t.Errorf("no %q in the log of a run during which the node was restarted:\n%s", want, out)
		}
	}
	after := u.listed()
	if i := slices.IndexFunc(after, func(r listedRun) bool { return r.ID == id }); i < 0 || after[i].Status != "finished:completed" {
		u.t.Errorf("flwr ls: %+v", after)
	}
	for _, r := range before {
		if !slices.Contains(after, r) {
			u.t.Errorf("flwr ls after a restart: %+v, it had %+v", after, r)
		}
	}
	id = restart(100)
	u.flwr("stop", id, "my-node")
	if out := u.flwr("log", id, "my-node"); !strings.Contains(out, "Run stopped.") || strings.Contains(out, "[ROUND 100/100]") {
		u.t.Errorf("log of a run that was stopped after a restart:\n%s", out)
	}
}

// twoAtOnce has two runs of one app with different configs go on together.
func (u *user) twoAtOnce(app string) {
	u.t.Helper()
	var ids []string
	for _, epochs := range []string{"5", "6"} { // other settings: the ledger knows the first run's model
		ids = append(ids, u.begun(app, "my-node", "-c", "num-server-rounds=1 epochs="+epochs))
	}
	for _, id := range ids {
		if out := u.flwr("log", id, "my-node"); !strings.Contains(out, "Run completed.") {
			u.t.Errorf("run %s:\n%s", id, out)
		}
	}
}
