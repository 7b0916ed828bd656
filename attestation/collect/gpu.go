package collect

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/collect/gpuhelper"
	"github.com/concordat/concordat/verifier"
)

// helperTimeout is for one call of the helper: a GPU signs within a second or two,
// and there may be sixteen.
const helperTimeout = 60 * time.Second

// openGPU looks for the GPUs that the policy demands, and stops them from working.
func (m *Machine) openGPU(ctx context.Context) error {
	want := m.cfg.Policy.Platforms.GPU
	if want == nil {
		return nil // any evidence of a GPU would be refused
	}
	m.helper = gpuhelper.Helper{Path: m.host.helper, Timeout: helperTimeout}
	s, err := m.helper.State(ctx)
	if err != nil {
		return fmt.Errorf("the policy demands GPUs: %w", err)
	}
	if err := usable(s); err != nil {
		return fmt.Errorf("the policy demands GPUs: %w", err)
	}
	if least := max(1, want.MinCount); uint64(s.GPUs) < least {
		return fmt.Errorf("the policy demands %d GPUs, this machine has %d: %w", least, s.GPUs, errors.ErrUnsupported)
	}
	if err := m.helper.SetReady(ctx, false); err != nil {
		return err
	}
	m.gpus = s.GPUs
	return nil
}

// usable says what is wrong with the driver's mode. A GPU's report does not say that
// confidential computing is on; only the driver knows, and it is part of the measured
// image. DevTools mode has reports like any other.
func usable(s gpuhelper.State) error {
	switch {
	case !s.Confidential || s.Environment != gpuhelper.Production:
		return fmt.Errorf("gpu: confidential computing is off (feature %t, environment %.20q): turn it on at the host and restart the machine: %w", s.Confidential, s.Environment, errors.ErrUnsupported)
	case s.DevTools:
		return fmt.Errorf("gpu: confidential computing is in DevTools mode, which protects nothing: turn it off at the host and restart the machine: %w", errors.ErrUnsupported)
	}
	return nil
}

// GPUs returns the number of GPUs, if the policy knows of any.
func (m *Machine) GPUs() int { return m.gpus }

// CollectGPU gets the evidence of every GPU, of the i-th over nonces[i], and judges it
// under the policy, with the endorsements that the machine has. GPUs that pass, all of
// them, are let accept work. If one fails, or its mode has changed, all are stopped
// and the call fails: the error names the check. If something is missing to decide,
// such as an OCSP response, they are stopped too, but their evidence is good for
// others, who may have what is missing.
//
// That verdict is for this machine's own use of the GPUs, and made by a clock that the
// host controls. Nobody is told of it; whoever gets the evidence judges it anew.
func (m *Machine) CollectGPU(ctx context.Context, nonces [][32]byte) ([]attestation.Item, error) {
	if len(nonces) != m.gpus {
		return nil, fmt.Errorf("collect: %d nonces for %d GPUs", len(nonces), m.gpus)
	}
	if m.gpus == 0 {
		return nil, nil
	}
	if err := m.take(ctx); err != nil {
		return nil, fmt.Errorf("collect: %w", err)
	}
	defer m.release()
	s, gpus, err := m.helper.Evidence(ctx, nonces)
	if err != nil {
		s.Ready = true // for all that is known
	}
	var items []attestation.Item
	pass := false
	if err == nil {
		items, pass, err = m.judge(s, gpus, nonces)
	}
	if pass != s.Ready {
		// Whoever gave up waiting has not asked for GPUs that go on working.
		err = errors.Join(err, m.helper.SetReady(context.WithoutCancel(ctx), pass))
	}
	if err != nil {
		return nil, fmt.Errorf("collect: %w", err)
	}
	return items, nil
}

// judge makes items of what the helper brought, and says whether the GPUs may work.
func (m *Machine) judge(s gpuhelper.State, gpus []gpuhelper.GPU, nonces [][32]byte) ([]attestation.Item, bool, error) {
	if err := usable(s); err != nil {
		return nil, false, err
	}
	if err := distinct(gpus); err != nil {
		return nil, false, err
	}
	var items []attestation.Item
	var chains []attestation.Endorsement
	for _, g := range gpus {
		chain := attestation.Endorsement{Type: attestation.TypeNVIDIAChain, Data: g.Chain}
		chains = append(chains, chain)
		items = append(items, attestation.Item{Kind: attestation.KindGPU, Raw: g.Report, Endorsements: []attestation.Digest{chain.Digest()}})
	}
	ends, err := attestation.NewEndorsements(append(chains, m.more...)...)
	if err != nil {
		return nil, false, err
	}
	pass := true
	for i, it := range items {
		r, err := verifier.AppraiseItem(it.Kind, it.Raw, ends, m.cfg.Policy, nonces[i][:], m.cfg.Now())
		if err != nil {
			return nil, false, err
		}
		switch v := r.Verdict(); v {
		case verifier.Pass, verifier.PassSimulated:
		case verifier.Incomplete:
			pass = false
		default:
			return nil, false, fmt.Errorf("gpu %d: %s: %s", i, v, obstacle(r, v))
		}
	}
	m.gpuDocs = chains
	return items, pass, nil
}

// distinct refuses one GPU that is shown as several: the key that signs reports is a
// device's own.
func distinct(gpus []gpuhelper.GPU) error {
	seen := make(map[string]int)
	for i, g := range gpus {
		leaf, _ := pem.Decode(bytes.TrimSpace(g.Chain))
		if leaf == nil {
			return fmt.Errorf("gpu %d: its chain is no PEM", i)
		}
		if j, ok := seen[string(leaf.Bytes)]; ok {
			return fmt.Errorf("gpus %d and %d are one device", j, i)
		}
		seen[string(leaf.Bytes)] = i
	}
	return nil
}

// obstacle says in words what check stands behind a verdict.
func obstacle(r *verifier.Result, v verifier.Verdict) string {
	for _, c := range r.Checks() {
		if c.Verdict == v {
			s := fmt.Sprintf("%s: want %s, got %s", c.Name, c.Expected, c.Got)
			if c.Advice != "" {
				s += "; " + c.Advice
			}
			return s
		}
	}
	return "no check passed"
}
