package nvgpu

import (
	"bytes"
	"encoding/hex"
	"fmt"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/nvgpu"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/internal/check"
)

// Set judges the GPUs and switches of one machine: [Set.Appraise] once for each
// report, then [Set.Judge] once. What their chains share is verified once: CAs,
// OCSP responses, manifests. It is not safe for concurrent use.
type Set struct {
	ends    *attestation.Endorsements
	p       *policy.Policy
	members []*device // one a report; nil where it was not authentic

	upper     map[string]bool       // chains that were verified, without their first two certificates
	status    map[string]certStatus // by certificate
	manifests map[string]manifests  // by the id of a manifest
}

// NewSet returns an empty set. Both arguments may be nil: no endorsements, and
// what the platform demands without a policy.
func NewSet(ends *attestation.Endorsements, p *policy.Policy) *Set {
	return &Set{ends: ends, p: p, upper: make(map[string]bool), status: make(map[string]certStatus), manifests: make(map[string]manifests)}
}

// Judge judges the devices together. No device may be there twice, or one GPU
// could stand for many; there are at least as many as the policy demands; and
// GPUs and switches name each other. Call it with no report appraised too: a
// policy that demands GPUs is then not satisfied, and where none are demanded it
// records nothing. r is a recorder of its own.
func (s *Set) Judge(r *check.Recorder) {
	var g *policy.GPU
	if s.p != nil {
		g = s.p.Platforms.GPU
	}
	if len(s.members) == 0 && g == nil {
		return
	}
	s.distinct(r)
	var gpus, switches []*device
	other := 0
	for _, d := range s.members {
		switch {
		case d == nil:
			other++ // no authentic evidence counts as a GPU: distinct has failed already
		case d.chip.link:
			switches = append(switches, d)
		default:
			gpus = append(gpus, d)
		}
	}
	var least, links uint64
	if g != nil {
		least, links = max(1, g.MinCount), g.MinSwitches
	}
	r.That(uint64(len(gpus)+other) >= least, "count", fmt.Sprintf("at least %d", least), fmt.Sprintf("%d GPUs", len(gpus)+other),
		"evidence of every GPU of the machine is needed")
	if links > 0 || len(switches) > 0 {
		r.That(uint64(len(switches)) >= links, "switches", fmt.Sprintf("at least %d", links), fmt.Sprintf("%d switches", len(switches)),
			"evidence of every NVLink switch of the machine is needed")
	}
	checkTopology(gpus, switches, r)
}

func (s *Set) distinct(r *check.Recorder) {
	const name = "distinct"
	if len(s.members) == 0 {
		return
	}
	for i, d := range s.members {
		if d == nil {
			r.Fail(name, "authentic reports of different devices", fmt.Sprintf("report %d is not authentic", i), "")
			return
		}
		for j, e := range s.members[:i] {
			if bytes.Equal(d.ueid(), e.ueid()) {
				r.Fail(name, "a device each", fmt.Sprintf("reports %d and %d are of device %s", j, i, hex.EncodeToString(d.ueid())), "one GPU was counted twice")
				return
			}
		}
	}
	r.Pass(name, "")
}

// checkTopology demands, where there are switches or a GPU needs them, that every
// GPU's links end at switches whose evidence is here, and that each of these
// names every GPU. What the names prove is NVIDIA's word: firmware that is
// measured reads them from the links.
func checkTopology(gpus, switches []*device, r *check.Recorder) {
	const name = "topology"
	const advice = "evidence of every GPU and every switch of one machine, and of no other, is needed"
	needed := len(switches) > 0
	for _, d := range gpus {
		f, ok, _ := d.report.Feature()
		needed = needed || ok && f == nvgpu.ProtectedPCIe
	}
	if !needed {
		return
	}
	given := make(map[nvgpu.PDI]*device)
	for _, d := range switches {
		id, err := d.report.PDI()
		if err == nil && id != d.pdi() {
			err = fmt.Errorf("switch %x states the id %x", d.ueid(), id)
		}
		if err != nil {
			r.Fail(name, "a switch's own id", err.Error(), advice)
			return
		}
		given[id] = d
	}
	for _, d := range gpus {
		ids, err := d.report.Switches()
		if err == nil && len(ids) == 0 {
			err = fmt.Errorf("GPU %x is linked to no switch", d.ueid())
		}
		for _, id := range ids {
			if given[id] == nil && err == nil {
				err = fmt.Errorf("GPU %x is linked to switch %x, of which there is no evidence", d.ueid(), id)
			}
		}
		for _, w := range switches {
			if !w.report.LinksGPU(d.pdi()) && err == nil {
				err = fmt.Errorf("switch %x is not linked to GPU %x", w.ueid(), d.ueid())
			}
		}
		if err != nil {
			r.Fail(name, "GPUs and switches that are linked to each other", err.Error(), advice)
			return
		}
	}
	r.Pass(name, fmt.Sprintf("%d GPUs on %d switches", len(gpus), len(switches)))
}

// pdi is the device's id on its links, the last bytes of its ueid; zeros, which
// nothing is linked to, where that is too short.
func (d *device) pdi() nvgpu.PDI {
	u := d.ueid()
	if len(u) < nvgpu.PDISize {
		return nvgpu.PDI{}
	}
	return nvgpu.PDI(u[len(u)-nvgpu.PDISize:])
}
