package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/concordat/concordat/internal/sandbox"
)

// TestMain lets the sandbox start this binary as its own.
func TestMain(m *testing.M) {
	sandbox.Init()
	os.Exit(m.Run())
}

// TestStart: what a process is told, and that whoever reads argument lists learns no
// token where its loopback may be the machine's.
func TestStart(t *testing.T) {
	t.Parallel()
	for _, isolation := range []sandbox.Isolation{sandbox.Sandbox, sandbox.None} {
		for _, runtime := range []bool{false, true} {
			t.Run(fmt.Sprint(isolation, " ", runtime), func(t *testing.T) {
				x := Program{Dialect: Dialect{Runtime: runtime}, Part: ClientApp, Command: []string{"/bin/sh", "-c", `echo "$@"; for last; do :; done; [ ! -f "$last" ] || cat "$last"`, "sh"}}
				dir := t.TempDir()
				var out bytes.Buffer
				p, err := Start(t.Context(), Config{Program: x, Dir: dir, Token: "secret", Isolation: isolation, Output: &out})
				var refused *sandbox.Refused
				if errors.As(err, &refused) && isolation == sandbox.Sandbox {
					t.Skipf("this machine cannot run the test: %v", err)
				}
				if err != nil {
					t.Fatal(err)
				}
				if e := p.Wait(); !e.OK() {
					t.Fatalf("%v: %s", e, out.String())
				}
				args, token, _ := strings.Cut(out.String(), "\n")
				address := p.Listener.Addr().String()
				want := "--insecure --clientappio-api-address " + address + " --token-file " + p.home + "/token"
				if !runtime {
					want, token = "--insecure --clientappio-api-address unix://"+address+" --token secret", "secret"
				}
				if args != want || token != "secret" {
					t.Errorf("told %q and %q, want %q", args, token, want)
				}
				p.Remove()
				if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
					t.Errorf("left: %v, %v", left, err)
				}
			})
		}
	}
}
