package interop

import (
	"path/filepath"
	"strconv"
	"testing"

	"github.com/concordat/concordat/ci"
	"github.com/concordat/concordat/policy"
)

// TestSklearn runs an app with an estimator of scikit-learn, whose ClientApps also start
// processes of joblib's, in the sandbox, with the newest version of Flower.
func TestSklearn(t *testing.T) {
	env := installed(t, "scikit_learn")
	u := newUser(t, env)
	app, err := filepath.Abs(filepath.Join("testdata", "sklearn"))
	if err != nil {
		t.Fatal(err)
	}
	file, digest := u.build(app)
	_, approve := u.federation(digest, [3]string{env, env, env}, nil, ci.Policy(patient), ci.Policy(func(p *policy.Policy) {
		p.Nodes.MetricKeys = []string{"accuracy", "alone", "loss", "num-examples"}
	}))
	approve(file)
	if got, err := strconv.ParseFloat(accuracy(t, u.timed(app), 2), 64); err != nil || got < 0.9 {
		t.Errorf("accuracy %v (%v) on rows that were held out, want at least 0.9", got, err)
	}
}
