package node

import (
	"fmt"
	"path/filepath"

	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/flower"
	"github.com/concordat/concordat/internal/flower/process"
)

// program is what is started for an app, before it is told where its node is.
type program struct {
	start    process.Program
	config   flower.Config
	settings map[string]any // for the config record of train messages
	bundle   bool           // messages hold what Flower's strategies send, and no more
}

// program finds the app, and compares it with the digest that the policy lists.
func (a *apps) program(r *run) (*program, error) {
	var config map[string]any
	if err := cose.Unmarshal(r.config, &config); err != nil {
		return nil, fmt.Errorf("config of the run: %w", err)
	}
	p := &program{config: flower.Config{RunID: r.body.RunID, NodeID: flower.NodeNumber(r.n.id), NodeConfig: map[string]any{}, RunConfig: flower.RunConfig(config)}}
	app := a.find(r.body.App)
	if app == nil {
		return p, a.bundles.program(p, r.body.App)
	}
	if err := checkExecutable(app.Command[0], app.Digest); err != nil {
		return nil, err
	}
	for k, v := range app.NodeConfig {
		p.config.NodeConfig[k] = v
	}
	p.start = process.Program{Command: app.Command, ReadOnly: append([]string{filepath.Dir(app.Command[0])}, app.ReadOnly...), Part: process.ClientApp}
	return p, nil
}
