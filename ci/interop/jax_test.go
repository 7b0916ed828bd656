package interop

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/concordat/concordat/ci"
	"github.com/concordat/concordat/node"
	"github.com/concordat/concordat/policy"
)

// TestJAX runs the example in JAX as its page says, with the newest version of Flower:
// three owners, none of whom has all digits, together reach what none of them can alone.
// Natively, and with the same bundle's ServerApp in the enclave, which averages the same.
func TestJAX(t *testing.T) {
	env, app := installed(t, "jax"), example(t, "flower-jax")
	var native string
	t.Run("native", func(t *testing.T) {
		u := newUser(t, env)
		parts := u.deal(app)
		file, digest := u.build(app)
		_, approve := u.federation(digest, [3]string{env, env, env}, nil, parts, ci.Policy(patient))
		approve(file)
		native = u.timed(app, "-c", "num-server-rounds=3")
		got, err := strconv.ParseFloat(accuracy(t, native, 3), 64)
		if err != nil || got < 0.9 {
			t.Errorf("accuracy %v (%v) on rows that were held out, want at least 0.9", got, err)
		}
		for i, alone := range u.alone(app) {
			if alone > got-0.1 {
				t.Errorf("accuracy %v, and owner %d alone reaches %v: want 0.1 less", got, i, alone)
			}
		}
	})
	t.Run("custom", func(t *testing.T) {
		u := newUser(t, env)
		parts := u.deal(app)
		file, digest := u.build(app)
		config := map[string]any{"num-server-rounds": int64(1), "epochs": int64(5), "learning-rate": 0.2, "seed": int64(7)}
		_, approve := u.federation(digest, [3]string{env, env, env}, nil, append(u.aggregates(digest, config), parts, ci.Policy(patient))...)
		approve(file)
		own := u.timed(app, "-c", `num-server-rounds=1 concordat.strategy="custom"`)
		if !strings.Contains(own, "its own ServerApp aggregates") {
			t.Error("the ServerApp did not aggregate")
		}
		if got, want := accuracy(t, own, 1), accuracy(t, native, 1); got != want {
			t.Errorf("accuracy %s after a round, want %s as with the native strategy", got, want)
		}
	})
}

// alone is what each owner reaches without the others, by the example's own script.
func (u *user) alone(app string) (accuracies []float64) {
	u.t.Helper()
	args := []string{filepath.Join(app, "yardstick.py")}
	for i := range 3 {
		args = append(args, filepath.Join("parts", fmt.Sprintf("owner-%d.csv", i)))
	}
	out, _ := u.run(filepath.Join(u.env, "bin", "python"), args...)
	for _, m := range regexp.MustCompile(`(?m)^parts/owner-\d\.csv: accuracy ([0-9.]+),`).FindAllStringSubmatch(out, -1) {
		v, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			u.t.Fatal(err)
		}
		accuracies = append(accuracies, v)
	}
	u.t.Logf("each owner alone, and all rows in one place:\n%s", out)
	if len(accuracies) != 3 {
		u.t.Fatal("yardstick.py does not tell of three owners")
	}
	return accuracies
}

// timed runs an app to its end and returns the log.
func (u *user) timed(app string, args ...string) string {
	u.t.Helper()
	begin := time.Now()
	out := u.flwr(append([]string{"run", app, "my-node", "--stream"}, args...)...)
	u.t.Logf("the run took %.1f s:\n%s", time.Since(begin).Seconds(), out)
	if !strings.Contains(out, "Run completed.") {
		u.t.Fatal("the run did not complete")
	}
	return out
}

// installed is the newest version's environment, if a package was installed there.
func installed(t *testing.T, name string) string {
	t.Helper()
	envs := environments(t)
	env := envs[len(envs)-1]
	found, err := filepath.Glob(filepath.Join(env, "lib", "python3*", "site-packages", name+"-*.dist-info"))
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 {
		t.Skipf("NOT TESTED with %s: it is not in %s; \"make interop\" installs it where PyPI has it for this machine", name, filepath.Base(env))
	}
	return env
}

// deal runs the example's own script, and gives each node its owner's rows.
func (u *user) deal(app string) ci.Option {
	u.t.Helper()
	if out, ok := u.run(filepath.Join(u.env, "bin", "python"), filepath.Join(app, "deal.py"), "parts"); !ok {
		u.t.Fatalf("deal.py:\n%s", out)
	}
	owner := 0
	return ci.NodeConfig(func(_ string, c *node.Config) {
		rows := filepath.Join(u.home, "parts", fmt.Sprintf("owner-%d.csv", owner))
		c.Flower.ReadOnly = []string{rows}
		c.Flower.NodeConfig = map[string]any{"data": rows, "partition-id": owner}
		owner++
	})
}

// patient gives steps the time that three processes need to load JAX and compile, on two
// busy cores.
func patient(p *policy.Policy) { p.Release.StepDeadline = 300 }

// accuracy is what a run's log says of a round.
func accuracy(t *testing.T, log string, round int) string {
	t.Helper()
	form := fmt.Sprintf(`\[ROUND %d/\d+\] evaluate: 3 contributions  accuracy ([0-9.]+)  `, round)
	m := regexp.MustCompile(form).FindStringSubmatch(log)
	if m == nil {
		t.Fatalf("round %d has no accuracy", round)
	}
	return m[1]
}
