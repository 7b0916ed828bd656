package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/sim"
)

// TestEndorsementsScripts runs testdata/endorsements/*.txt with a simulated AMD
// machine's report in snp.bin and an envelope around it in envelope.cbor. $KDS is
// AMD's service for that machine, $EMPTY one that knows nothing.
func TestEndorsementsScripts(t *testing.T) {
	t.Parallel()
	vendor, err := smallVendor()
	if err != nil {
		t.Fatal(err)
	}
	m, err := sim.New(sim.Config{Vendor: vendor, Platform: sim.PlatformSNP}, time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	items, err := m.Collect(context.Background(), [64]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	set, err := m.Endorsements()
	if err != nil {
		t.Fatal(err)
	}
	kds := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		typ := attestation.TypeAMDVCEK
		switch {
		case strings.HasSuffix(r.URL.Path, "/cert_chain"):
			typ = attestation.TypeAMDChain
		case strings.HasSuffix(r.URL.Path, "/crl"):
			typ = attestation.TypeAMDCRL
		}
		w.Write(set.ByType(typ, nil)[0])
	}))
	t.Cleanup(kds.Close)
	empty := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(empty.Close)
	envelope := attestation.Evidence{Claims: []byte{1}, Items: items}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/endorsements",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
		Setup: func(env *testscript.Env) error {
			env.Setenv("KDS", kds.URL)
			env.Setenv("EMPTY", empty.URL)
			for name, b := range map[string][]byte{"snp.bin": items[0].Raw, "envelope.cbor": envelope.Encode()} {
				if err := os.WriteFile(filepath.Join(env.WorkDir, name), b, 0o644); err != nil {
					return err
				}
			}
			return nil
		},
	})
}
