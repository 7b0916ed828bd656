package sim

import (
	"errors"
	"time"

	"github.com/concordat/concordat/attestation"
)

type snpState struct{}

var snpFaults = []string{"wrong-nonce"}

func (m *Machine) issueSNP(at time.Time) ([]attestation.Endorsement, error) {
	return nil, errors.New("snp is not there yet")
}
func (m *Machine) collectSNP(reportData [64]byte) (attestation.Item, error) {
	return attestation.Item{}, errors.New("snp is not there yet")
}
func (m *Machine) describeSNP(d *Description) error { return nil }
