package node

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/concordat/concordat/internal/sandbox"
)

// TestLaunch: what a process is told, and that whoever reads argument lists learns no
// token where its loopback may be the machine's.
func TestLaunch(t *testing.T) {
	t.Parallel()
	for _, isolation := range []sandbox.Isolation{sandbox.Sandbox, sandbox.None} {
		for _, runtime := range []bool{false, true} {
			t.Run(fmt.Sprint(isolation, " ", runtime), func(t *testing.T) {
				a, err := newApps(Config{Isolation: string(isolation), Log: slog.New(slog.DiscardHandler)}, t.TempDir())
				if err != nil {
					t.Fatal(err)
				}
				x := &program{dialect: dialect{runtime: runtime}, command: []string{"/bin/sh", "-c", `echo "$@"; for last; do :; done; [ ! -f "$last" ] || cat "$last"`, "sh"}}
				at, err := a.place(runtime)
				if err != nil {
					t.Fatal(err)
				}
				defer at.remove()
				var out bytes.Buffer
				p, err := a.launch(t.Context(), x, at, "--address", "secret", &out)
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
				address := at.listener.Addr().String()
				want := "--insecure --address " + address + " --token-file " + at.home + "/token"
				if !runtime {
					want, token = "--insecure --address unix://"+address+" --token secret", "secret"
				}
				if args != want || token != "secret" {
					t.Errorf("told %q and %q, want %q", args, token, want)
				}
			})
		}
	}
}
