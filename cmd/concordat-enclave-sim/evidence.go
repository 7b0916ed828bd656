package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/sim"
)

// maxClaims is above the size of all claims that there are.
const maxClaims = 64 << 10

// evidence prints the machine's evidence for the claims on r, as JSON: the envelope
// and the set of what endorses it, both encoded, in base64. The digest of the GPUs'
// evidence is put into the claims.
func evidence(args []string, r io.Reader, w io.Writer) error {
	fs := flag.NewFlagSet("concordat-enclave-sim evidence", flag.ContinueOnError)
	file := fs.String("machine", "", "machine file")
	if err := parse(fs, args); err != nil {
		return err
	}
	if *file == "" {
		return usageError{errors.New("evidence: no --machine")}
	}
	raw, err := io.ReadAll(io.LimitReader(r, maxClaims))
	if err != nil {
		return err
	}
	claims, err := attestation.ParseClaims(raw)
	if err != nil {
		return err
	}
	c, err := sim.ReadConfig(*file)
	if err != nil {
		return err
	}
	if c.HostData == nil {
		c.HostData = claims.Federation[:]
	}
	m, err := sim.New(c, time.Now())
	if err != nil {
		return err
	}
	var gpus []attestation.Item
	if n := m.GPUs(); n > 0 {
		nonces := make([][32]byte, n)
		for i := range nonces {
			nonces[i] = attestation.GPUNonce(claims, i)
		}
		if gpus, err = m.CollectGPU(context.Background(), nonces); err != nil {
			return err
		}
		claims.GPU = attestation.GPUDigest(gpus)
		raw = claims.Encode()
	}
	items, err := m.Collect(context.Background(), attestation.ReportData(raw, claims.Simulated))
	if err != nil {
		return err
	}
	items = append(items, gpus...)
	ends, err := m.Endorsements()
	if err != nil {
		return fmt.Errorf("endorsements: %w", err)
	}
	e := attestation.Evidence{Claims: raw, Items: items}
	return json.NewEncoder(w).Encode(struct {
		Evidence     []byte `json:"evidence"`
		Endorsements []byte `json:"endorsements"`
	}{e.Encode(), ends.Encode()})
}
