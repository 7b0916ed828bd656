//go:build cgo && linux

package main

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/concordat/concordat/attestation/collect/gpuhelper"
)

// driver is NVML, initialised.
type driver struct{ lib nvml.Interface }

// symbols are what the library must have. A call of one that an older driver lacks
// would end the process.
var symbols = []string{
	"nvmlSystemGetConfComputeState",
	"nvmlSystemGetConfComputeGpusReadyState",
	"nvmlSystemSetConfComputeGpusReadyState",
	"nvmlDeviceGetConfComputeGpuCertificate",
	"nvmlDeviceGetConfComputeGpuAttestationReport",
}

// openDriver loads the library. end shuts it down.
func openDriver() (d gpuhelper.Driver, end func()) { return connect(nvml.New()) }

func connect(lib nvml.Interface) (d gpuhelper.Driver, end func()) {
	switch ret := lib.Init(); ret {
	case nvml.SUCCESS:
	case nvml.ERROR_LIBRARY_NOT_FOUND, nvml.ERROR_DRIVER_NOT_LOADED:
		return none{fmt.Errorf("no NVIDIA driver: %v: %w", ret, errors.ErrUnsupported)}, func() {}
	default:
		return none{failed("nvmlInit", ret)}, func() {}
	}
	end = func() { lib.Shutdown() } // the process ends; there is nobody to tell
	for _, s := range symbols {
		if err := lib.Extensions().LookupSymbol(s); err != nil {
			return none{fmt.Errorf("this driver is too old for confidential computing: %v: %w", err, errors.ErrUnsupported)}, end
		}
	}
	return driver{lib}, end
}

// failed makes an error of what a function returned.
func failed(function string, ret nvml.Return) error {
	if ret == nvml.ERROR_NOT_SUPPORTED {
		return fmt.Errorf("%s: %w by driver or GPU", function, errors.ErrUnsupported)
	}
	return fmt.Errorf("%s: %v", function, ret)
}

// State asks for the modes of the whole machine.
func (d driver) State() (s gpuhelper.State, err error) {
	var ret nvml.Return
	if s.Driver, ret = d.lib.SystemGetDriverVersion(); ret != nvml.SUCCESS {
		return s, failed("nvmlSystemGetDriverVersion", ret)
	}
	if s.GPUs, ret = d.lib.DeviceGetCount(); ret != nvml.SUCCESS {
		return s, failed("nvmlDeviceGetCount", ret)
	}
	mode, ret := d.lib.SystemGetConfComputeState()
	if ret != nvml.SUCCESS {
		return s, failed("nvmlSystemGetConfComputeState", ret)
	}
	s.Environment = gpuhelper.Unavailable
	switch mode.Environment {
	case nvml.CC_SYSTEM_ENVIRONMENT_SIM:
		s.Environment = gpuhelper.Simulation
	case nvml.CC_SYSTEM_ENVIRONMENT_PROD:
		s.Environment = gpuhelper.Production
	}
	s.Confidential = mode.CcFeature == nvml.CC_SYSTEM_FEATURE_ENABLED
	s.DevTools = mode.DevToolsMode != nvml.CC_SYSTEM_DEVTOOLS_MODE_OFF
	if !s.Confidential {
		return s, nil // there is no ready state then
	}
	ready, ret := d.lib.SystemGetConfComputeGpusReadyState()
	if ret != nvml.SUCCESS {
		return s, failed("nvmlSystemGetConfComputeGpusReadyState", ret)
	}
	s.Ready = ready != nvml.CC_ACCEPTING_CLIENT_REQUESTS_FALSE
	return s, nil
}

// Evidence has GPU i sign nonce.
func (d driver) Evidence(i int, nonce [32]byte) (g gpuhelper.GPU, err error) {
	dev, ret := d.lib.DeviceGetHandleByIndex(i)
	if ret != nvml.SUCCESS {
		return g, failed("nvmlDeviceGetHandleByIndex", ret)
	}
	report := nvml.ConfComputeGpuAttestationReport{Nonce: nonce}
	if ret := dev.GetConfComputeGpuAttestationReport(&report); ret != nvml.SUCCESS {
		return g, failed("nvmlDeviceGetConfComputeGpuAttestationReport", ret)
	}
	cert, ret := dev.GetConfComputeGpuCertificate()
	if ret != nvml.SUCCESS {
		return g, failed("nvmlDeviceGetConfComputeGpuCertificate", ret)
	}
	if g.Report, err = prefix(report.AttestationReport[:], report.AttestationReportSize); err != nil {
		return g, fmt.Errorf("report: %w", err)
	}
	if g.Chain, err = prefix(cert.AttestationCertChain[:], cert.AttestationCertChainSize); err != nil {
		return g, fmt.Errorf("chain: %w", err)
	}
	g.Chain = bytes.TrimRight(g.Chain, "\x00") // text, which C ends so
	return g, nil
}

// prefix returns the first n bytes of a buffer that C filled.
func prefix(b []byte, n uint32) ([]byte, error) {
	if uint64(n) > uint64(len(b)) {
		return nil, fmt.Errorf("%d bytes in a buffer of %d", n, len(b))
	}
	return b[:n:n], nil
}

// SetReady is for all GPUs of the machine.
func (d driver) SetReady(ready bool) error {
	state := uint32(nvml.CC_ACCEPTING_CLIENT_REQUESTS_FALSE)
	if ready {
		state = nvml.CC_ACCEPTING_CLIENT_REQUESTS_TRUE
	}
	if ret := d.lib.SystemSetConfComputeGpusReadyState(state); ret != nvml.SUCCESS {
		return failed("nvmlSystemSetConfComputeGpusReadyState", ret)
	}
	return nil
}
