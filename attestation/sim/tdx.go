package sim

import (
	"errors"
	"time"

	"github.com/concordat/concordat/attestation"
)

type tdxState struct{}

var tdxFaults []string

var errTDX = errors.New("tdx is not there yet")

func (m *Machine) issueTDX(time.Time) ([]attestation.Endorsement, error) { return nil, errTDX }
func (m *Machine) collectTDX([64]byte) (attestation.Item, error)         { return attestation.Item{}, errTDX }
func (m *Machine) describeTDX(*Description) error                        { return errTDX }
