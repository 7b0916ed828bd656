package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/policy/source"
)

// makeKeys has every member and node make its keys.
func (d *demo) makeKeys() error {
	for _, h := range d.members {
		var enrolled struct{ Witness string }
		if err := d.command(&enrolled, "node", "enroll", "--member", string(h.id), "--out", h.at("node")); err != nil {
			return err
		}
		if err := d.command(nil, "member", "key", "--id", string(h.id), "--out", h.at("member"), "--witness", enrolled.Witness); err != nil {
			return err
		}
	}
	return nil
}

// agree writes the policy, has every member sign it, and certifies the nodes.
func (d *demo) agree() error {
	p, err := d.draft()
	if err != nil {
		return err
	}
	file := filepath.Join(d.state, "policy.yaml")
	if err := createFile(file, source.Render(p)); err != nil {
		return err
	}
	if err := d.command(nil, "policy", "check", file); err != nil {
		return err
	}
	d.chain = filepath.Join(d.state, "federation.policy")
	adopt := []string{"policy", "adopt", file, "--chain", d.chain}
	for _, h := range d.members {
		if err := d.command(nil, "policy", "sign", file, "--key", h.at("member/policy.key"), "--out", h.at("approval")); err != nil {
			return err
		}
		adopt = append(adopt, "--approval", h.at("approval"))
	}
	var adopted struct{ Approvers []string }
	if err := d.command(&adopted, adopt...); err != nil {
		return err
	}
	for _, h := range d.members {
		if err := d.command(nil, "member", "certify", "--request", h.at("node/enroll.json"), "--key", h.at("member/issuer.key"),
			"--policy", d.chain, "--out", h.at("node/node.credential")); err != nil {
			return err
		}
	}
	c, err := loadChain(d.chain)
	if err != nil {
		return err
	}
	d.result.Federation = c.Federation()
	d.out.row("policy", "version 1, signed by %s", strings.Join(adopted.Approvers, ", "))
	d.out.row("federation", "%s: the digest of that policy", c.Federation().Short())
	return nil
}

// draft returns the policy that the members are to sign: what "policy new" suggests,
// for this machine and this app, with deadlines for a demo.
func (d *demo) draft() (*policy.Policy, error) {
	out, err := output(d.ctx, d.sim, "describe", "--machine", d.machine)
	if err != nil {
		return nil, err
	}
	var machine struct {
		Roots     []cose.Digest
		Platforms policy.Platforms
	}
	if err := json.Unmarshal(out, &machine); err != nil {
		return nil, fmt.Errorf("describe: %w", err)
	}
	var log struct{ Key string }
	if err := d.command(&log, "link", "key", "--data", filepath.Join(d.state, "link"), "--origin", logOrigin); err != nil {
		return nil, err
	}
	p := &policy.Policy{Name: "Demo: hospitals", Log: policy.Log{Origin: logOrigin, Key: log.Key}}
	var members []string
	for _, h := range d.members {
		members = append(members, h.at("member/member.yaml"))
	}
	if err := draft(p, members, nil, nil); err != nil {
		return nil, err
	}
	p.Simulated, p.SimulatedRoots, p.Platforms = true, machine.Roots, machine.Platforms
	if p.Platforms.SNP != nil {
		p.Platforms.SNP.HostData = true
	}
	if p.Platforms.TDX != nil {
		p.Platforms.TDX.MRConfigID = true
	}
	app, err := fileDigest(d.app)
	if err != nil {
		return nil, err
	}
	p.Apps = []policy.App{{Digest: app, Name: appName, Exposure: policy.ExposureAggregate, Strategies: []string{"fedavg"}, MaxRounds: max(100, d.rounds)}}
	if d.flower != nil {
		p.Apps = append(p.Apps, policy.App{Digest: d.flower.digest, Name: "flower", Exposure: policy.ExposureAggregate, Strategies: []string{"fedavg"}, MaxRounds: max(100, d.rounds)})
		slices.SortFunc(p.Apps, func(a, b policy.App) int { return bytes.Compare(a.Digest[:], b.Digest[:]) })
	}
	r := &p.Release
	// A member may be missing from a step, so that case c is the nodes' to refuse and
	// not the policy's; then the largest hospital has 60 % of the rows that are left.
	r.MinContributors, r.Collusion, r.MaxWeightShare, r.Dropouts = uint64(d.nodes-1), 0, 700, policy.DropoutsAllow
	r.StepDeadline, r.AckDeadline = d.deadline, demoAckDeadline
	p.Nodes.MetricKeys = []string{"accuracy", "loss", "num-examples"}
	p.Log.Witnesses = p.Approvals
	p.Evidence.MaxRoundsPerEpoch = max(1000, 3*d.rounds)
	return p, nil
}

// fileDigest returns the SHA-256 of a file.
func fileDigest(path string) (cose.Digest, error) {
	f, err := os.Open(path)
	if err != nil {
		return cose.Digest{}, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return cose.Digest{}, err
	}
	return cose.Digest(h.Sum(nil)), nil
}
