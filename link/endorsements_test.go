package link

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/internal/cose"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestFetchEndorsementsRefusals: the link asks no vendor about what is no item, and says
// in words what a vendor does not have.
func TestFetchEndorsementsRefusals(t *testing.T) {
	t.Parallel()
	asked := 0
	nothing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked++
		http.NotFound(w, nil)
	}))
	defer nothing.Close()
	data := t.TempDir()
	c := newConsortium(t, data, "one", 1)
	c.host(t, data)
	addr, _ := startLink(t, data, func(cfg *Config) {
		cfg.Endorsements = Endorsements{Fetch: true, AMD: nothing.URL, Intel: nothing.URL}
	})
	e := c.enclave(t, addr, 1).ready(t)
	list, err := e.PutBlob(t.Context(), attestation.Endorsement{Type: attestation.TypeAMDCRL, Data: []byte("list")}.Encode())
	if err != nil {
		t.Fatal(err)
	}
	text, err := e.PutBlob(t.Context(), []byte("text"))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		kind string
		raw  []byte
		have []cose.Digest
	}{
		"no kind":            {"sgx", []byte{1}, nil},
		"no bytes":           {"amd-sev-snp", nil, nil},
		"too long":           {"amd-sev-snp", make([]byte, attestation.MaxCPUItem+1), nil},
		"no endorsement":     {"amd-sev-snp", []byte{1}, []cose.Digest{text}},
		"none of that name":  {"amd-sev-snp", []byte{1}, []cose.Digest{{1}}},
		"too many documents": {"amd-sev-snp", []byte{1}, make([]cose.Digest, maxHave+1)},
	} {
		if _, _, err := e.FetchEndorsements(t.Context(), c.kind, c.raw, c.have); status.Code(errors.Unwrap(err)) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What is an item by its size and no report is for the vendor's part to refuse.
	got, missing, err := e.FetchEndorsements(t.Context(), "amd-sev-snp", []byte("no report"), []cose.Digest{list})
	if err != nil || len(got) != 0 || !strings.Contains(missing, "snp: ") {
		t.Errorf("no report: %v, %q, %v", got, missing, err)
	}
	if asked != 0 {
		t.Errorf("a vendor was asked %d times about nothing", asked)
	}
	if _, err := os.Stat(filepath.Join(data, endorsementsDir)); err != nil {
		t.Errorf("no cache: %v", err)
	}
}
