package sim

import (
	"fmt"

	"github.com/concordat/concordat/attestation/nvgpu"
)

// What the GPUs of a machine can be.
const (
	GPUHopper    = "hopper"
	GPUBlackwell = "blackwell"
)

// gpuModel is what one kind of device is called and runs. Versions are of devices
// that exist.
type gpuModel struct {
	chip, cn              string // in manifests and ids; in certificates
	sp                    string // the processor that attests: GSP, FSP
	provisioner           string
	driver, vbios         string
	oldDriver, oldVBIOS   string
	project, sku, chipSKU string
	blocks, measured      int // measurement blocks, and of these those that are not zero
	edition               string
}

var (
	gpuModels = map[string]*gpuModel{
		GPUHopper: {
			chip: "GH100", cn: "GH100", sp: "GSP", provisioner: "NVIDIA GH100 Provisioner ICA 1",
			driver: "550.90.07", oldDriver: "550.9.7", // as text it would sort above
			vbios: "96.00.9F.00.01", oldVBIOS: "96.00.9E.00.FF",
			project: "1010", sku: "0200", chipSKU: "882", blocks: 64, measured: 41, edition: "GPU",
		},
		GPUBlackwell: {
			chip: "GB100", cn: "GB100", sp: "GSP", provisioner: "NVIDIA GB100 Provisioner ICA 00000",
			driver: "575.32", oldDriver: "575.9",
			vbios: "97.00.88.00.0F", oldVBIOS: "97.00.87.00.FF",
			project: "G525", sku: "0220", chipSKU: "886", blocks: 64, measured: 42, edition: "GPU",
		},
	}
	switchModel = &gpuModel{
		chip: nvgpu.ChipSwitch, cn: "LS_10", sp: "FSP", provisioner: "NVIDIA LS_10 Provisioner ICA 1",
		vbios: "96.10.55.00.01", oldVBIOS: "96.10.54.00.FF", blocks: 31, measured: 26, edition: "SWITCH",
	}
)

// checkGPU fills in and checks what the configuration says of GPUs.
func (c *Config) checkGPU() error {
	if c.GPUs > 0 && c.GPU == "" {
		c.GPU = GPUHopper
	}
	switch {
	case c.GPUs == 0 && (c.GPU != "" || c.Switches != 0 || c.Manifests):
		return fmt.Errorf("a kind of GPU, %d switches or manifests, and no GPU", c.Switches)
	case c.GPUs > 0 && gpuModels[c.GPU] == nil:
		return fmt.Errorf("GPUs of kind %q, want %q or %q", c.GPU, GPUHopper, GPUBlackwell)
	case c.Switches < 0 || c.GPUs+c.Switches > 16:
		return fmt.Errorf("%d GPUs and %d switches, want 16 together", c.GPUs, c.Switches)
	}
	return nil
}

// model returns what device i is: the GPUs come first.
func (m *Machine) model(i int) *gpuModel {
	if i >= m.cfg.GPUs {
		return switchModel
	}
	return gpuModels[m.cfg.GPU]
}

// measurement returns what block n of a genuine device holds.
func (v *Vendor) measurement(g *gpuModel, n int) (value [nvgpu.MeasurementSize]byte) {
	if n <= g.measured {
		copy(value[:], v.bytes(fmt.Sprintf("nvidia/%s/measurement/%d", g.chip, n), len(value)))
	}
	return value
}

// fwid returns the SHA-384 of the firmware that the vendor's devices boot.
func (v *Vendor) fwid(g *gpuModel) []byte {
	return v.bytes("nvidia/"+g.chip+"/fwid", nvgpu.MeasurementSize)
}
