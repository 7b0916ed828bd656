package enclave

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/enclave/aggregate"
)

// planTraining plans the strategy's step over the inputs and proposes it.
func (r *run) planTraining(c *closing, survey *aggregate.Survey) {
	step := aggregate.Step{Round: r.open.body.Round, Contributions: c.weights(), Survey: survey}
	if r.strategy.Noisy() {
		var err error
		if step.Secret, err = r.noiseSecret(c); err != nil {
			r.fail("other", err.Error())
			return
		}
	}
	plan, err := r.strategy.Plan(step)
	if err != nil {
		r.fail("policy", err.Error())
		return
	}
	parts, whole := plan.Shares()
	if !r.counted(c, parts, whole) {
		return
	}
	var weights []aggregate.Contribution
	var records []object.MetricRecord
	for _, i := range plan.Used() {
		weights = append(weights, step.Contributions[i])
		records = append(records, c.inputs[i].update.metrics)
	}
	metrics, err := aggregate.Metrics(weights, aggregate.ExamplesKey, records)
	if err != nil {
		r.fail("invalid", err.Error())
		return
	}
	c.produce = r.aggregated(r.model, r.open, c.updates(), plan, c.round, metrics)
	r.propose(c)
}

// planEvaluation proposes a step that closes an evaluation: the model stays, and metrics
// are weighed by examples whatever the strategy, as Flower does.
func (r *run) planEvaluation(c *closing) {
	weights := c.weights()
	var records []object.MetricRecord
	var parts []uint64
	var whole uint64
	for i, x := range c.inputs {
		records = append(records, x.update.metrics)
		parts = append(parts, weights[i].Examples)
		whole += weights[i].Examples
	}
	metrics, err := aggregate.Metrics(weights, aggregate.ExamplesKey, records) // bounds whole
	if err != nil {
		r.fail("invalid", err.Error())
		return
	}
	if !r.counted(c, parts, whole) {
		return
	}
	c.produce = r.same(r.model, c.round, metrics)
	r.propose(c)
}

func (c *closing) weights() (list []aggregate.Contribution) {
	for _, x := range c.inputs {
		list = append(list, x.update.weight)
	}
	return list
}

// counted counts who contributes: members, not nodes, with examples, none with too large
// a share after selection and clipping (protocol F4). The run fails if one has.
func (r *run) counted(c *closing, parts []uint64, whole uint64) bool {
	byMember, contributes := map[string]uint64{}, map[string]bool{}
	for i, x := range c.inputs {
		byMember[x.member] += parts[i]
		if x.update.weight.Examples > 0 {
			contributes[x.member] = true
		}
	}
	for _, m := range slices.Sorted(maps.Keys(byMember)) {
		if share := float64(byMember[m]) / float64(whole) * 1000; share > float64(r.e.policy.Release.MaxWeightShare) {
			r.fail("policy", fmt.Sprintf("member %s has %.0f of 1000 parts of the weight, the policy allows %d", m, share, r.e.policy.Release.MaxWeightShare))
			return false
		}
	}
	c.members = uint64(len(contributes))
	return true
}

// noiseSecret is what the noise of a step is made of: the uplink secrets of all its
// nodes, so that nobody without every one of them can tell the noise, and the inputs, so
// that others have other noise. A successor of this enclave, which has the same secrets
// from the nodes, makes the same noise for the same inputs: asking twice shows nothing new.
func (r *run) noiseSecret(c *closing) (out [32]byte, err error) {
	var secrets []byte
	info := binary.BigEndian.AppendUint64([]byte("concordat/noise/v1\x00"), r.open.body.Seq)
	for _, x := range c.inputs {
		secrets = append(secrets, r.participants[x.node].uplink[:]...)
		digest := x.statement.Digest()
		info = append(info, digest[:]...)
	}
	key, err := hkdf.Key(sha256.New, secrets, r.digest[:], string(info), len(out))
	if err != nil {
		return out, fmt.Errorf("noise: %w", err)
	}
	return [32]byte(key), nil
}
