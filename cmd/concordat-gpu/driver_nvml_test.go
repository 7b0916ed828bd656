//go:build cgo && linux

package main

import (
	"bytes"
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"
	"github.com/concordat/concordat/attestation/collect/gpuhelper"
)

// library is NVML's own mock of one GPU in confidential mode.
func library() (*mock.Interface, *mock.Device) {
	var ready uint32
	dev := &mock.Device{
		GetConfComputeGpuAttestationReportFunc: func(r *nvml.ConfComputeGpuAttestationReport) nvml.Return {
			r.AttestationReportSize = uint32(copy(r.AttestationReport[:], append([]byte("report "), r.Nonce[:]...)))
			return nvml.SUCCESS
		},
		GetConfComputeGpuCertificateFunc: func() (c nvml.ConfComputeGpuCertificate, _ nvml.Return) {
			copy(c.CertChain[:], "another chain")
			c.CertChainSize = 13
			c.AttestationCertChainSize = uint32(copy(c.AttestationCertChain[:], "chain\x00"))
			return c, nvml.SUCCESS
		},
	}
	return &mock.Interface{
		SystemGetDriverVersionFunc: func() (string, nvml.Return) { return "550.90.07", nvml.SUCCESS },
		DeviceGetCountFunc:         func() (int, nvml.Return) { return 1, nvml.SUCCESS },
		SystemGetConfComputeStateFunc: func() (nvml.ConfComputeSystemState, nvml.Return) {
			return nvml.ConfComputeSystemState{Environment: nvml.CC_SYSTEM_ENVIRONMENT_PROD, CcFeature: nvml.CC_SYSTEM_FEATURE_ENABLED}, nvml.SUCCESS
		},
		SystemGetConfComputeGpusReadyStateFunc: func() (uint32, nvml.Return) { return ready, nvml.SUCCESS },
		SystemSetConfComputeGpusReadyStateFunc: func(s uint32) nvml.Return { ready = s; return nvml.SUCCESS },
		DeviceGetHandleByIndexFunc:             func(int) (nvml.Device, nvml.Return) { return dev, nvml.SUCCESS },
	}, dev
}

type symbolTable map[string]bool

func (s symbolTable) LookupSymbol(name string) error {
	if !s[name] {
		return errors.New("undefined symbol: " + name)
	}
	return nil
}

func TestConnect(t *testing.T) {
	t.Parallel()
	has := symbolTable{}
	for _, s := range symbols {
		has[s] = true
	}
	lib, _ := library()
	for name, c := range map[string]struct {
		init        nvml.Return
		lacks       string
		want        string // in the reason; "" for a driver
		unsupported bool
	}{
		"good":        {nvml.SUCCESS, "", "", false},
		"no library":  {nvml.ERROR_LIBRARY_NOT_FOUND, "", "no NVIDIA driver", true},
		"no driver":   {nvml.ERROR_DRIVER_NOT_LOADED, "", "no NVIDIA driver", true},
		"other error": {nvml.ERROR_NO_PERMISSION, "", "nvmlInit: ERROR_NO_PERMISSION", false},
		"old driver":  {nvml.SUCCESS, symbols[4], "too old", true},
	} {
		ended := 0
		lib.InitFunc = func() nvml.Return { return c.init }
		lib.ShutdownFunc = func() nvml.Return { ended++; return nvml.SUCCESS }
		mine := maps.Clone(has)
		delete(mine, c.lacks)
		lib.ExtensionsFunc = func() nvml.ExtendedInterface { return mine }
		d, end := connect(lib)
		end()
		if (ended == 1) != (c.init == nvml.SUCCESS) {
			t.Errorf("%s: shut down %d times", name, ended)
		}
		_, err := d.State()
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, errors.ErrUnsupported) != c.unsupported):
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// TestOpenDriver loads the library that this machine has, or none.
func TestOpenDriver(t *testing.T) {
	t.Parallel()
	d, end := openDriver()
	defer end()
	_, err := d.State()
	if _, absent := d.(none); absent && !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("without a driver: %v", err)
	}
	t.Logf("this machine's driver says: %v", err)
}

func TestDriver(t *testing.T) {
	t.Parallel()
	lib, _ := library()
	d := driver{lib}
	want := gpuhelper.State{Driver: "550.90.07", GPUs: 1, Environment: gpuhelper.Production, Confidential: true}
	for _, ready := range []bool{false, true, false} {
		if err := d.SetReady(ready); err != nil {
			t.Fatal(err)
		}
		want.Ready = ready
		if got, err := d.State(); err != nil || got != want {
			t.Errorf("%+v, want %+v: %v", got, want, err)
		}
	}
	nonce := [32]byte{1, 2, 3}
	g, err := d.Evidence(0, nonce)
	if err != nil || !bytes.Equal(g.Report, append([]byte("report "), nonce[:]...)) || string(g.Chain) != "chain" {
		t.Errorf("%q, %q, %v", g.Report, g.Chain, err)
	}
}

func TestDriverModes(t *testing.T) {
	t.Parallel()
	lib, _ := library()
	for _, c := range []struct {
		mode nvml.ConfComputeSystemState
		want gpuhelper.State
	}{
		{nvml.ConfComputeSystemState{}, gpuhelper.State{Environment: gpuhelper.Unavailable}},
		{nvml.ConfComputeSystemState{Environment: 9}, gpuhelper.State{Environment: gpuhelper.Unavailable}},
		{nvml.ConfComputeSystemState{Environment: nvml.CC_SYSTEM_ENVIRONMENT_SIM, CcFeature: 1}, gpuhelper.State{Environment: gpuhelper.Simulation, Confidential: true}},
		{nvml.ConfComputeSystemState{Environment: nvml.CC_SYSTEM_ENVIRONMENT_PROD, CcFeature: 1, DevToolsMode: 1}, gpuhelper.State{Environment: gpuhelper.Production, Confidential: true, DevTools: true}},
		{nvml.ConfComputeSystemState{Environment: nvml.CC_SYSTEM_ENVIRONMENT_PROD, CcFeature: 2, DevToolsMode: 2}, gpuhelper.State{Environment: gpuhelper.Production, DevTools: true}},
	} {
		lib.SystemGetConfComputeStateFunc = func() (nvml.ConfComputeSystemState, nvml.Return) { return c.mode, nvml.SUCCESS }
		c.want.Driver, c.want.GPUs = "550.90.07", 1
		if got, err := (driver{lib}).State(); err != nil || got != c.want {
			t.Errorf("%+v: %+v, want %+v: %v", c.mode, got, c.want, err)
		}
	}
}

// TestDriverFails: every function's failure is named, and sizes are not believed.
func TestDriverFails(t *testing.T) {
	t.Parallel()
	const lost, old = nvml.ERROR_GPU_IS_LOST, nvml.ERROR_NOT_SUPPORTED
	for want, c := range map[string]struct {
		change func(*mock.Interface, *mock.Device)
		old    bool
	}{
		"nvmlSystemGetDriverVersion: " + lost.Error(): { // in the words of the driver, where there is one
			func(l *mock.Interface, _ *mock.Device) {
				l.SystemGetDriverVersionFunc = func() (string, nvml.Return) { return "", lost }
			}, false},
		"nvmlDeviceGetCount": {func(l *mock.Interface, _ *mock.Device) {
			l.DeviceGetCountFunc = func() (int, nvml.Return) { return 0, lost }
		}, false},
		"nvmlSystemGetConfComputeState": {func(l *mock.Interface, _ *mock.Device) {
			l.SystemGetConfComputeStateFunc = func() (s nvml.ConfComputeSystemState, _ nvml.Return) { return s, old }
		}, true},
		"nvmlSystemGetConfComputeGpusReadyState": {func(l *mock.Interface, _ *mock.Device) {
			l.SystemGetConfComputeGpusReadyStateFunc = func() (uint32, nvml.Return) { return 0, lost }
		}, false},
		"nvmlSystemSetConfComputeGpusReadyState": {func(l *mock.Interface, _ *mock.Device) {
			l.SystemSetConfComputeGpusReadyStateFunc = func(uint32) nvml.Return { return lost }
		}, false},
		"nvmlDeviceGetHandleByIndex": {func(l *mock.Interface, _ *mock.Device) {
			l.DeviceGetHandleByIndexFunc = func(int) (nvml.Device, nvml.Return) { return nil, lost }
		}, false},
		"nvmlDeviceGetConfComputeGpuAttestationReport": {func(_ *mock.Interface, d *mock.Device) {
			d.GetConfComputeGpuAttestationReportFunc = func(*nvml.ConfComputeGpuAttestationReport) nvml.Return { return old }
		}, true},
		"nvmlDeviceGetConfComputeGpuCertificate": {func(_ *mock.Interface, d *mock.Device) {
			d.GetConfComputeGpuCertificateFunc = func() (c nvml.ConfComputeGpuCertificate, _ nvml.Return) { return c, lost }
		}, false},
		"report: 8193 bytes in a buffer of 8192": {func(_ *mock.Interface, d *mock.Device) {
			d.GetConfComputeGpuAttestationReportFunc = func(r *nvml.ConfComputeGpuAttestationReport) nvml.Return {
				r.AttestationReportSize = 8193
				return nvml.SUCCESS
			}
		}, false},
		"chain: 4294967295 bytes in a buffer of 5120": {func(_ *mock.Interface, d *mock.Device) {
			d.GetConfComputeGpuCertificateFunc = func() (c nvml.ConfComputeGpuCertificate, _ nvml.Return) {
				c.AttestationCertChainSize = 1<<32 - 1
				return c, nvml.SUCCESS
			}
		}, false},
	} {
		lib, dev := library()
		c.change(lib, dev)
		d := driver{lib}
		_, err1 := d.State()
		_, err2 := d.Evidence(0, [32]byte{})
		err := errors.Join(err1, err2, d.SetReady(true))
		if err == nil || !strings.Contains(err.Error(), want) || errors.Is(err, errors.ErrUnsupported) != c.old {
			t.Errorf("%s: %v", want, err)
		}
	}
}
