package sim

import (
	"errors"
	"time"

	"github.com/concordat/concordat/attestation"
)

type gpuState struct{}

var gpuFaults []string

var errGPU = errors.New("gpu is not there yet")

func (m *Machine) issueGPU(time.Time) ([]attestation.Endorsement, error) { return nil, errGPU }
func (m *Machine) collectGPU(int, [32]byte) (attestation.Item, error) {
	return attestation.Item{}, errGPU
}
func (m *Machine) describeGPU(*Description) error { return errGPU }
