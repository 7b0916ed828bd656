package node

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/concordat/concordat/internal/durable"
	"github.com/concordat/concordat/verifier"
	"github.com/concordat/concordat/verifier/receipt"
)

// resultFile is where the node keeps what it found out about an enclave: the
// newest attestation result of each, signed by the node's own key. An officer
// appraises the same evidence again and compares.
func (n *Node) resultFile(epoch uint64, instance fmt.Stringer) string {
	return filepath.Join(n.dir, "results", fmt.Sprintf("%d-%s.ear", epoch, instance))
}

// keepResult signs and keeps the result of the appraisal that a join, or a fresh
// piece of evidence, rests on.
func (n *Node) keepResult(r *verifier.Result) error {
	claims := r.Claims()
	raw, err := r.SignEAR(n.cfg.Signer, receipt.NodeIssuer(n.id))
	if err != nil {
		return err
	}
	file := n.resultFile(claims.Epoch, claims.Instance)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	return durable.WriteFile(durable.OS{}, file, raw, 0o600)
}
