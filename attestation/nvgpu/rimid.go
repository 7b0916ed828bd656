package nvgpu

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
)

// ChipSwitch is the name of the third generation's NVLink switch.
const ChipSwitch = "LS10"

// rimPart is what NVIDIA's names for board and chip look like in a manifest's id.
var rimPart = regexp.MustCompile(`^[A-Za-z0-9-]{1,24}$`)

// DriverRIM returns the id under which NVIDIA's RIM service has the manifest of
// the report's driver. chip is the chip's name in the device's certificates, such
// as GH100. A switch has no driver and no such manifest: the id is then empty.
func (r *Report) DriverRIM(chip string) (string, error) {
	if chip == ChipSwitch {
		return "", nil
	}
	driver, err := r.Driver()
	if err != nil {
		return "", err
	}
	if strings.HasPrefix(chip, "GH") {
		return "NV_GPU_DRIVER_GH100_" + driver, nil
	}
	name := "GB100" // where the report does not say, as NVIDIA's verifier has it
	if _, ok := r.Field(FieldChipInfo); ok {
		if name, err = r.rimPart(FieldChipInfo); err != nil {
			return "", err
		}
	}
	return "NV_GPU_CC_DRIVER_" + name + "_" + driver, nil
}

// VBIOSRIM returns the id under which NVIDIA's RIM service has the manifest of
// the report's VBIOS; chip as in [Report.DriverRIM].
func (r *Report) VBIOSRIM(chip string) (string, error) {
	version, err := r.VBIOS()
	if err != nil {
		return "", err
	}
	version = strings.ReplaceAll(version, ".", "")
	if chip == ChipSwitch {
		return "NV_SWITCH_BIOS_5612_0002_890_" + version, nil // one board: NVIDIA's verifier has it built in
	}
	id := "NV_GPU_VBIOS_"
	for _, t := range []FieldType{FieldProject, FieldProjectSKU, FieldChipSKU} {
		part, err := r.rimPart(t)
		if err != nil {
			return "", err
		}
		id += strings.ToUpper(part) + "_"
	}
	return id + version, nil
}

func (r *Report) rimPart(t FieldType) (string, error) {
	b, _ := r.Field(t)
	s := string(bytes.TrimRight(b, "\x00"))
	if !rimPart.MatchString(s) {
		return "", fmt.Errorf("nvgpu: field %d, %.40q, is no part of a manifest's name", t, s)
	}
	return s, nil
}
