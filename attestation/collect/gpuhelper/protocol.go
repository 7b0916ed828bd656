package gpuhelper

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Version is the protocol's. Helper and enclave are built together; a mismatch means
// that an image was put together from different releases.
const Version = 1

// Limits. Whoever exceeds one gets an error, before anything is decoded.
const (
	MaxGPUs   = 16        // of one machine
	MaxReport = 8192      // bytes of a report: nvml.h, NVML_CC_GPU_ATTESTATION_REPORT_SIZE
	MaxChain  = 5120      // bytes of a chain: nvml.h, NVML_GPU_ATTESTATION_CERT_CHAIN_SIZE
	maxIn     = 4 << 10   // bytes of a request: 16 nonces in hex and their names
	maxOut    = 512 << 10 // bytes of an answer: 16 reports and chains in base64 are 285 KB
)

// The commands.
const (
	commandState    = "state"
	commandEvidence = "evidence"
	commandReady    = "ready"
	commandNotReady = "not-ready"
)

// The environments that a driver reports (nvml.h, NVML_CC_SYSTEM_ENVIRONMENT_*).
const (
	Production  = "production"
	Simulation  = "simulation"  // NVIDIA's own, for software without hardware
	Unavailable = "unavailable" // the machine is no confidential one to the driver
)

// State is what the driver says about all GPUs of the machine.
type State struct {
	Driver       string `json:"driver"`       // its version, dotted decimal
	GPUs         int    `json:"gpus"`         // at most [MaxGPUs]
	Environment  string `json:"environment"`  // [Production], [Simulation] or [Unavailable]
	Confidential bool   `json:"confidential"` // confidential computing is on
	DevTools     bool   `json:"dev_tools"`    // on with its protection off, for debuggers and profilers
	Ready        bool   `json:"ready"`        // the GPUs accept work
}

// GPU is the evidence of one GPU.
type GPU struct {
	Report []byte `json:"report"` // as NVML returned it, at most [MaxReport] bytes
	Chain  []byte `json:"chain"`  // PEM certificates, leaf first, at most [MaxChain] bytes
}

type request struct {
	Version int     `json:"version"`
	Command string  `json:"command"`
	Nonces  []nonce `json:"nonces,omitempty"`
}

type answer struct {
	Version int    `json:"version"`
	State   *State `json:"state,omitempty"`
	GPUs    []GPU  `json:"gpus,omitempty"`
	Error   string `json:"error,omitempty"`
	// Unsupported says that the error is the machine's nature and no accident.
	Unsupported bool `json:"unsupported,omitempty"`
}

// nonce is a GPU's challenge; JSON has it in hex.
type nonce [32]byte

func (n nonce) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, n[:]), nil }

func (n *nonce) UnmarshalText(b []byte) error {
	if len(b) != hex.EncodedLen(len(n)) {
		return fmt.Errorf("nonce of %d characters, want %d hex digits", len(b), hex.EncodedLen(len(n)))
	}
	_, err := hex.Decode(n[:], b)
	return err
}

// decode reads exactly one JSON object of at most limit bytes. Fields that v does not
// have are an error.
func decode(r io.Reader, limit int64, v any) error {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return err
	}
	if int64(len(b)) > limit {
		return fmt.Errorf("more than %d bytes", limit)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("bytes after the object")
	}
	return nil
}

func (q *request) check() error {
	switch {
	case q.Version != Version:
		return fmt.Errorf("protocol version %d, want %d", q.Version, Version)
	case q.Command == commandEvidence && (len(q.Nonces) == 0 || len(q.Nonces) > MaxGPUs):
		return fmt.Errorf("%d nonces, want 1 to %d", len(q.Nonces), MaxGPUs)
	case q.Command != commandEvidence && len(q.Nonces) > 0:
		return fmt.Errorf("nonces with command %.20q", q.Command)
	}
	return nil
}

// check demands that a is a whole answer to q.
func (a *answer) check(q *request) error {
	want := len(q.Nonces)
	switch {
	case a.Version != Version:
		return fmt.Errorf("protocol version %d, want %d", a.Version, Version)
	case a.State == nil:
		return errors.New("no state")
	case a.State.GPUs < 0 || a.State.GPUs > MaxGPUs:
		return fmt.Errorf("%d GPUs, want 0 to %d", a.State.GPUs, MaxGPUs)
	case len(a.GPUs) != want:
		return fmt.Errorf("evidence of %d GPUs, want %d", len(a.GPUs), want)
	}
	for i, g := range a.GPUs {
		if len(g.Report) == 0 || len(g.Report) > MaxReport || len(g.Chain) == 0 || len(g.Chain) > MaxChain {
			return fmt.Errorf("gpu %d: report of %d bytes, limit %d, and chain of %d, limit %d", i, len(g.Report), MaxReport, len(g.Chain), MaxChain)
		}
	}
	return nil
}
