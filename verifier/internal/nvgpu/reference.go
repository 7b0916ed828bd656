package nvgpu

import (
	"bytes"
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
func (s *Set) checkReference(d *device) {
	var g *policy.GPU
	if s.p != nil {
		g = s.p.Platforms.GPU
	}
	if !checkArchitecture(d, g) {
		return // what a version or a measurement means depends on it
	}
	checkDevice(d, g)
	driver, vbios := "", ""
	switch {
	case g != nil && d.chip.link:
		vbios = g.MinSwitchVBIOS
	case g != nil:
		driver, vbios = g.MinDriver, g.MinVBIOS
	}
	if d.chip.link {
		d.r.NotChecked("driver", "a switch has none")
	} else {
		checkFloor("driver", d.report.Driver, nvgpu.ParseDriver, g != nil, driver, d.r)
	}
	checkFloor("vbios", d.report.VBIOS, nvgpu.ParseVBIOS, g != nil, vbios, d.r)
	s.checkMeasurements(d, g)
	checkMode(d, g)
}

// checkArchitecture finds out what the device is, and reports whether that is
// something this verifier knows.
func checkArchitecture(d *device, g *policy.GPU) bool {
	const name = "architecture"
	var err error
	d.chip, err = readChip(d.chain)
	switch {
	case err != nil:
		d.r.Fail(name, "NVIDIA's names for one chip", err.Error(), "")
		return false
	case d.chip.arch == "" && !d.chip.link:
		d.r.Unsupported(name, "chip "+d.chip.name, "this verifier knows Hopper, Blackwell and the LS10 switch")
		return false
	case g == nil:
		d.r.Pass(name, d.chip.String())
	case d.chip.link:
		d.r.That(g.MinSwitches > 0, name, "no switch", d.chip.String(), "the policy accepts no switch: set min_switches, or give no evidence of one")
	default:
		d.r.That(slices.Contains(g.Architectures, d.chip.arch), name, strings.Join(g.Architectures, " or "), d.chip.String(),
			"the policy accepts no GPU of this architecture")
	}
	return true
}

func checkDevice(d *device, g *policy.GPU) {
	const name = "device"
	ueid := d.ueid()
	got := hex.EncodeToString(ueid)
	is := func(h policy.Hex) bool { return bytes.Equal(h, ueid) }
	switch {
	case g == nil:
		d.r.NotChecked(name, "any device will do without a policy: this is "+got)
	case slices.ContainsFunc(g.Denied, is):
		d.r.Fail(name, "a device that the policy does not deny", got, "the members have denied this device: use another")
	case g.AnyDevice && len(g.Devices) == 0:
		d.r.Pass(name, got+" (the policy accepts any: one extracted key forges every GPU)")
	default:
		d.r.That(slices.ContainsFunc(g.Devices, is), name,
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
	r.That(have.Compare(least) >= 0, name, floor+" or newer", got, "update the device's firmware or driver")
}

// checkMode looks at the feature flag of a GPU. In protected-PCIe mode NVLink is
// in clear and the switches are part of what must be trusted.
func checkMode(d *device, g *policy.GPU) {
	const name = "mode"
	if d.chip.link {
		d.r.NotChecked(name, "a switch has none: its GPUs state theirs")
		return
	}
	f, ok, err := d.report.Feature()
	if err != nil {
		d.r.Fail(name, "a feature flag", err.Error(), "")
		return
	}
	mode, word := f.String(), strings.ToLower(f.String())
	if !ok {
		mode, word = "no mode", "unstated"
	}
	switch {
	case ok && f > nvgpu.ProtectedPCIe:
		d.r.Unsupported(name, mode, "this verifier knows SPT, MPT and PPCIE")
	case g == nil && !ok:
		d.r.NotChecked(name, "the report states no mode; older drivers do not")
	case g == nil && f == nvgpu.ProtectedPCIe:
		d.r.NotChecked(name, "PPCIE: what GPUs send each other is in clear, and a policy must demand the switches")
	case g == nil:
		d.r.Pass(name, mode)
	default:
		accepted := g.AcceptedModes()
		d.r.That(slices.Contains(accepted, word), name, strings.Join(accepted, " or "), mode,
			"set another mode on the host (or update a driver that states none), or let the policy accept this one")
	}
}
