package ci_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/ci"
	"github.com/concordat/concordat/enclave"
	"github.com/concordat/concordat/link"
	"github.com/concordat/concordat/node"
)

// bareMachine hands over evidence and nothing that endorses it, as most machines do.
type bareMachine struct{ enclave.Machine }

func (m bareMachine) Collect(ctx context.Context, reportData [64]byte) ([]attestation.Item, error) {
	items, err := m.Machine.Collect(ctx, reportData)
	for i := range items {
		items[i].Endorsements = nil
	}
	return items, err
}

func (bareMachine) Endorsements() (*attestation.Endorsements, error) {
	return new(attestation.Endorsements), nil
}

// TestLinkFetchesEndorsements: what the enclave's machine does not hand over, the link
// asks the vendor for, if it is configured to. Nobody believes what it brings: without it,
// or with something else, no node joins.
func TestLinkFetchesEndorsements(t *testing.T) {
	t.Parallel()
	federation := func(t *testing.T, fetch bool, answer func(typ string, genuine []byte) []byte) *ci.Federation {
		t.Helper()
		var documents *attestation.Endorsements
		ready := make(chan struct{})
		kds := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			typ := attestation.TypeAMDVCEK
			switch {
			case strings.HasSuffix(r.URL.Path, "/cert_chain"):
				typ = attestation.TypeAMDChain
			case strings.HasSuffix(r.URL.Path, "/crl"):
				typ = attestation.TypeAMDCRL
			}
			<-ready
			w.Write(answer(typ, documents.ByType(typ, nil)[0]))
		}))
		t.Cleanup(kds.Close)
		f := ci.StartFederation(t, ci.Policy(trainOnly),
			ci.WrapMachine(func(m enclave.Machine) enclave.Machine { return bareMachine{m} }),
			ci.LinkConfig(func(c *link.Config) { c.Endorsements = link.Endorsements{Fetch: fetch, AMD: kds.URL} }))
		var err error
		if documents, err = f.Machine.Endorsements(); err != nil {
			t.Fatal(err)
		}
		close(ready)
		return f
	}
	refused := func(t *testing.T, f *ci.Federation, reason string) {
		t.Helper()
		for _, n := range f.Nodes {
			n.Await(t, "refusal: "+reason, func(e node.Event) bool { return e.Kind == "refused" && strings.Contains(e.Reason, reason) })
			for _, e := range n.Events() {
				if e.Kind == "joined" {
					t.Errorf("%s joined", n.Name)
				}
			}
		}
	}
	genuine := func(_ string, b []byte) []byte { return b }
	t.Run("fetched", func(t *testing.T) {
		t.Parallel()
		f := federation(t, true, genuine)
		joined(t, f.Nodes...)
		req := start(t, f, f.Nodes[0], 1, nil)
		for _, n := range f.Nodes {
			completed(t, f, n, req)
			verifies(t, f, n, ended(t, n, req).Run)
		}
	})
	t.Run("not configured", func(t *testing.T) {
		t.Parallel()
		refused(t, federation(t, false, genuine), "snp.certificate")
	})
	t.Run("another list", func(t *testing.T) {
		t.Parallel()
		refused(t, federation(t, true, func(typ string, b []byte) []byte {
			if typ == attestation.TypeAMDCRL {
				b[len(b)-1] ^= 1 // its signature
			}
			return b
		}), "snp.revocation")
	})
	t.Run("an error page", func(t *testing.T) {
		t.Parallel()
		refused(t, federation(t, true, func(string, []byte) []byte { return []byte("<html>no") }), "snp.certificate")
	})
}
