package nvgpu

import (
	"bytes"
	"slices"
	"testing"
)

func with(fields ...Field) *Report { return &Report{Opaque: fields} }

func TestManifestIDs(t *testing.T) {
	t.Parallel()
	hopper, err := EncodeVBIOS("96.00.9F.00.01")
	if err != nil {
		t.Fatal(err)
	}
	board := []Field{
		{FieldVBIOS, hopper}, {FieldDriver, []byte("550.90.07\x00")}, {FieldProject, []byte("g520\x00")},
		{FieldProjectSKU, []byte("0200\x00")}, {FieldChipSKU, []byte("886\x00\x00\x00")},
	}
	for name, c := range map[string]struct {
		r             *Report
		chip          string
		driver, vbios string // empty where refused, "none" where there is none
	}{
		"hopper":            {with(board...), "GH100", "NV_GPU_DRIVER_GH100_550.90.07", "NV_GPU_VBIOS_G520_0200_886_96009F0001"},
		"blackwell":         {with(board...), "GB100", "NV_GPU_CC_DRIVER_GB100_550.90.07", "NV_GPU_VBIOS_G520_0200_886_96009F0001"},
		"blackwell, stated": {with(append(slices.Clone(board), Field{FieldChipInfo, []byte("GB202\x00")})...), "GB202", "NV_GPU_CC_DRIVER_GB202_550.90.07", "NV_GPU_VBIOS_G520_0200_886_96009F0001"},
		"blackwell, odd":    {with(append(slices.Clone(board), Field{FieldChipInfo, []byte("../x")})...), "GB202", "", "NV_GPU_VBIOS_G520_0200_886_96009F0001"},
		"switch":            {with(Field{FieldVBIOS, []byte("96.10.55.00.0a")}), ChipSwitch, "none", "NV_SWITCH_BIOS_5612_0002_890_961055000A"},
		"no board":          {with(board[:2]...), "GH100", "NV_GPU_DRIVER_GH100_550.90.07", ""},
		"nothing":           {with(), "GH100", "", ""},
	} {
		driver, err1 := c.r.DriverRIM(c.chip)
		if err1 == nil && driver == "" {
			driver = "none"
		}
		vbios, err2 := c.r.VBIOSRIM(c.chip)
		if driver != c.driver || vbios != c.vbios || (err1 == nil) != (c.driver != "") || (err2 == nil) != (c.vbios != "") {
			t.Errorf("%s: %q, %v; %q, %v", name, driver, err1, vbios, err2)
		}
	}
	for _, bad := range []string{"96.10.55.00", "96.10.55.00.1", "96.10.55.00.0G", "96.10.55.00.01 ", ""} {
		if v, err := with(Field{FieldVBIOS, []byte(bad)}).VBIOS(); err == nil {
			t.Errorf("VBIOS %q is %q", bad, v)
		}
	}
}

func TestLinks(t *testing.T) {
	t.Parallel()
	a, b := PDI{1, 2, 3, 4, 5, 6, 7, 8}, PDI{9}
	turned := func(ids ...PDI) (out []byte) {
		for _, id := range ids {
			slices.Reverse(id[:])
			out = append(out, id[:]...)
		}
		return out
	}
	got, err := with(Field{FieldPDI, turned(b, a, PDI{}, a)}).Switches()
	if err != nil || !slices.Equal(got, []PDI{a, b}) {
		t.Errorf("%x, %v", got, err)
	}
	if got, err := with().Switches(); err != nil || got != nil {
		t.Errorf("no links: %x, %v", got, err)
	}
	if _, err := with(Field{FieldPDI, make([]byte, 9)}).Switches(); err == nil {
		t.Error("half an id accepted")
	}
	sw := with(Field{FieldPDI, a[:]}, Field{FieldGPUs, append(bytes.Clone(b[:]), 1, 2)})
	if id, err := sw.PDI(); err != nil || id != a {
		t.Errorf("%x, %v", id, err)
	}
	if !sw.LinksGPU(b) || sw.LinksGPU(a) || with().LinksGPU(b) {
		t.Error("links to GPUs")
	}
	if _, err := with(Field{FieldPDI, make([]byte, 16)}).PDI(); err == nil {
		t.Error("two ids are a switch's own")
	}
}

func TestFeatureOfOldDrivers(t *testing.T) {
	t.Parallel()
	if f, ok, err := with(Field{FieldPCIe, []byte{pcieOn}}).Feature(); f != ProtectedPCIe || !ok || err != nil {
		t.Errorf("on: %v, %v, %v", f, ok, err)
	}
	if _, ok, err := with(Field{FieldPCIe, []byte{0x55}}).Feature(); ok || err != nil {
		t.Errorf("off: %v, %v", ok, err)
	}
}
