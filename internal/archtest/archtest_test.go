// Package archtest asserts the house: which part may import which. The table
// below is the one that docs/architecture.md explains; a new package is given a
// place in it before it compiles into anything.
package archtest

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/concordat/concordat/"

// layers lists path prefixes from the ground up. The longest prefix decides. A
// package imports lower layers, its own children, and nothing else of its layer.
var layers = [][]string{
	{"internal/lanes", "internal/merkle", "internal/cose"}, // the ground, below layer 0
	{"internal/durable", "chunkstore/object", "attestation", "attestation/snp", "attestation/tdx", "attestation/tpm", "attestation/eventlog", "attestation/nvgpu", "attestation/measure"},
	{"chunkstore", "policy", "verifier/tlog", "verifier/receipt"},
	{"verifier/internal/check"},
	{"verifier/internal/events"},
	{"verifier"},
	{"api/flwr/proto"},
	{"api", "internal/flower/fab"},
	{"internal/flower"}, // the core, and what the dialects share
	{"internal/flower/clientapp", "internal/flower/control", "internal/flower/grpcapp", "internal/flower/httpapp", "internal/flower/serverapp", "internal/flower/superlink",
		"internal/session", "internal/relay", "internal/loop", "internal/sandbox", "internal/daemon", "chunkstore/transfer", "chunkstore/pack", "chunkstore/storetest",
		"verifier/crosscheck", "attestation/collect", "attestation/sim", "internal/durable/faultfs"},
	{"internal/flower/process", "node/atrest"},
	{"enclave", "node", "link"},
	{"policy/source"},
	{"ci", "cmd", "examples", "internal/archtest", "internal/webpage"},
}

// pure is what nothing up to and including the verifier may link, so that it
// builds for WebAssembly and into other people's programs.
var pure = []string{"net/http", "crypto/tls", "google.golang.org/grpc", "google.golang.org/protobuf", "os/exec", "flag",
	"github.com/google/logger", "database/sql", "github.com/goccy/go-yaml", module + "api", module + "attestation/collect", module + "attestation/sim", module + "verifier/crosscheck"}

// measured is what the enclave may not link: its size and its list of
// dependencies are part of its trust.
var measured = []string{"github.com/goccy/go-yaml", "cel.dev", "database/sql", "modernc.org", "github.com/transparency-dev/tessera",
	"github.com/prometheus", "go.opentelemetry.io/otel/sdk", "github.com/go-jose", module + "attestation/sim", module + "link", module + "node", "github.com/spf13/cobra"}

type pkg struct {
	ImportPath string
	Standard   bool
	Imports    []string
	Deps       []string
}

func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-json=ImportPath,Standard,Imports,Deps", module+"...").Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		path, ours := strings.CutPrefix(p.ImportPath, module)
		if !ours {
			continue
		}
		mine := layer(path)
		if mine < 0 {
			t.Errorf("%s has no place in the house: add it to the table", path)
			continue
		}
		for _, i := range p.Imports {
			if imp, ours := strings.CutPrefix(i, module); ours {
				if l := layer(imp); l > mine || l == mine && !related(path, imp) {
					t.Errorf("%s (layer %d) imports %s (layer %d)", path, mine, imp, l)
				}
			}
			if slices.Contains([]string{"github.com/veraison/go-cose", "github.com/fxamacker/cbor/v2"}, i) && path != "internal/cose" {
				t.Errorf("%s imports %s: only internal/cose does", path, i)
			}
			if strings.HasPrefix(i, "github.com/go-jose/") && path != "internal/flower/control/auth" && path != "internal/flower/control/auth/authtest" {
				t.Errorf("%s imports %s: only the login does", path, i)
			}
			if strings.HasPrefix(i, module+"attestation/sim") && path != "ci" && !strings.HasPrefix(path, "ci/") && path != "cmd/concordat-enclave-sim" && !strings.HasPrefix(path, "attestation/sim") {
				t.Errorf("%s imports the simulator: only ci and cmd/concordat-enclave-sim do", path)
			}
		}
		if mine <= layer("verifier") && path != "policy/source" {
			forbid(t, p, pure)
		}
		if path == "enclave" || strings.HasPrefix(path, "enclave/") || strings.HasPrefix(path, "cmd/concordat-enclave") && path != "cmd/concordat-enclave-sim" {
			forbid(t, p, measured)
		}
	}
}

func forbid(t *testing.T, p pkg, list []string) {
	t.Helper()
	for _, d := range p.Deps {
		for _, f := range list {
			if d == f || strings.HasPrefix(d, f+"/") || strings.HasPrefix(d, f+".") {
				t.Errorf("%s links %s", strings.TrimPrefix(p.ImportPath, module), d)
			}
		}
	}
}

// layer returns the index of the layer that path belongs to, or -1.
func layer(path string) int {
	found, best := -1, ""
	for i, l := range layers {
		for _, prefix := range l {
			if (path == prefix || strings.HasPrefix(path, prefix+"/")) && len(prefix) > len(best) {
				found, best = i, prefix
			}
		}
	}
	return found
}

// related reports whether one path is above the other, or both are of one
// ground package.
func related(a, b string) bool {
	return strings.HasPrefix(a, b+"/") || strings.HasPrefix(b, a+"/") || layer(a) == 0
}
