package nvgpu

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/concordat/concordat/attestation/nvgpu"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/internal/check"
)

// checkReference compares the report with the policy's reference values. Without
// a policy everything that is genuine will do, and every line says so.
func checkReference(chain []*x509.Certificate, report *nvgpu.Report, p *policy.Policy, r *check.Recorder) {
	var g *policy.GPU
	if p != nil {
		g = p.Platforms.GPU
	}
	checkArchitecture(chain, g, r)
	checkDevice(chain, g, r)
	driver, vbios := "", ""
	if g != nil {
		driver, vbios = g.MinDriver, g.MinVBIOS
	}
	checkFloor("driver", report.Driver, nvgpu.ParseDriver, g != nil, driver, r)
	checkFloor("vbios", report.VBIOS, nvgpu.ParseVBIOS, g != nil, vbios, r)
	checkMeasurements(report, g, r)
	checkMode(report, r)
}

func checkArchitecture(chain []*x509.Certificate, g *policy.GPU, r *check.Recorder) {
	const name = "architecture"
	arch, chip, err := architecture(chain)
	switch {
	case err != nil:
		r.Fail(name, "NVIDIA's names for one chip", err.Error(), "")
	case arch == "":
		r.Unsupported(name, "chip "+chip, "this verifier knows Hopper and Blackwell")
	case g == nil:
		r.Pass(name, arch+" ("+chip+")")
	default:
		r.That(slices.Contains(g.Architectures, arch), name, strings.Join(g.Architectures, " or "), arch+" ("+chip+")",
			"the policy accepts no GPU of this architecture")
	}
}

func checkDevice(chain []*x509.Certificate, g *policy.GPU, r *check.Recorder) {
	const name = "device"
	ueid := chain[device].SerialNumber.Bytes()
	got := hex.EncodeToString(ueid)
	switch {
	case g == nil:
		r.NotChecked(name, "any device will do without a policy: this is "+got)
	case g.AnyDevice && len(g.Devices) == 0:
		r.Pass(name, got+" (the policy accepts any: one extracted key forges every GPU)")
	default:
		r.That(slices.ContainsFunc(g.Devices, func(d policy.Hex) bool { return bytes.Equal(d, ueid) }), name,
			fmt.Sprintf("one of the policy's %d devices", len(g.Devices)), got, "add the device to the policy if it is yours")
	}
}

// checkFloor compares a version with the policy's floor, number by number.
func checkFloor(name string, read func() (string, error), parse func(string) (nvgpu.Version, error), bounded bool, floor string, r *check.Recorder) {
	got, err := read()
	if err != nil {
		r.Fail(name, "a version", err.Error(), "")
		return
	}
	if !bounded {
		r.NotChecked(name, "no floor without a policy: this is "+got)
		return
	}
	least, err := parse(floor)
	if err != nil {
		r.Fail(name, "a floor in the policy", err.Error(), "correct the policy")
		return
	}
	have, err := parse(got)
	if err != nil {
		r.Fail(name, "a version", err.Error(), "")
		return
	}
	r.That(have.Compare(least) >= 0, name, floor+" or newer", got, "update the GPU's firmware or driver")
}

func checkMeasurements(report *nvgpu.Report, g *policy.GPU, r *check.Recorder) {
	const name = "measurements"
	got := nvgpu.MeasurementsDigest(report)
	switch {
	case g == nil:
		r.NotChecked(name, "any firmware will do without a policy: this set is "+got.String())
	case len(g.Measurements) == 0:
		r.Unsupported(name, got.String(), "the policy pins no set of measurements, and reference manifests are not read: pin one")
	default:
		for _, m := range g.Measurements {
			if m.Digest == got {
				r.Pass(name, fmt.Sprintf("%s (%s)", m.Name, got))
				return
			}
		}
		r.Fail(name, fmt.Sprintf("one of the policy's %d sets", len(g.Measurements)), got.String(),
			"the GPU runs firmware that the policy does not know: pin this set if you trust it")
	}
}

// checkMode looks at the feature flag. In protected-PCIe mode NVLink is in clear
// and the switches are part of what must be trusted; their evidence is not read.
func checkMode(report *nvgpu.Report, r *check.Recorder) {
	const name = "mode"
	f, ok, err := report.Feature()
	switch {
	case err != nil:
		r.Fail(name, "a feature flag", err.Error(), "")
	case !ok:
		r.NotChecked(name, "the report states no mode; older drivers do not")
	case f == nvgpu.SinglePassThrough || f == nvgpu.MultiPassThrough:
		r.Pass(name, f.String())
	default:
		r.Unsupported(name, f.String(), "evidence of NVLink switches is not read: use single or multiple pass-through")
	}
}
