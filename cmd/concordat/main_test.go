package main

import (
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"github.com/concordat/concordat/internal/sandbox"
)

func TestMain(m *testing.M) {
	sandbox.Init() // this binary starts apps, as concordat does
	testscript.Main(m, map[string]func(){"concordat": main})
}

// TestScripts runs testdata/*.txt. Beside testscript's own commands they have:
//
//	exits STATUS CONCORDAT-ARGUMENTS...   run concordat and demand the exit status
//	capture NAME REGEXP                   set a variable from the last output's first group
//	edit FILE OLD NEW [OLD NEW]...        replace text that must be there, once
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":   exits,
			"capture": capture,
			"edit":    edit,
		},
	})
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: exits STATUS ARGUMENTS...")
	}
	got := 0
	if err := ts.Exec("concordat", args[1:]...); err != nil {
		var e *exec.ExitError
		if !errors.As(err, &e) {
			ts.Fatalf("%v", err)
		}
		got = e.ExitCode()
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("exit status %d, want %s", got, args[0])
	}
}

func capture(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: capture NAME REGEXP")
	}
	m := regexp.MustCompile("(?m)" + args[1]).FindStringSubmatch(ts.ReadFile("stdout"))
	if len(m) != 2 {
		ts.Fatalf("no match for %q", args[1])
	}
	ts.Setenv(args[0], m[1])
}

func edit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 || len(args)%2 != 1 {
		ts.Fatalf("usage: edit FILE OLD NEW...")
	}
	path := ts.MkAbs(args[0])
	b := ts.ReadFile(path)
	for i := 1; i < len(args); i += 2 {
		if strings.Count(b, args[i]) != 1 {
			ts.Fatalf("%q stands in %s %d times, want once", args[i], args[0], strings.Count(b, args[i]))
		}
		b = strings.Replace(b, args[i], args[i+1], 1)
	}
	ts.Check(os.WriteFile(path, []byte(b), 0o644))
}

// TestCommandsAreDocumented: every command says what it does, shows an example,
// and explains every flag.
func TestCommandsAreDocumented(t *testing.T) {
	t.Parallel()
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			visit(sub)
		}
		if c.Hidden || c.HasSubCommands() {
			return
		}
		if c.Short == "" || c.Example == "" || c.Args == nil {
			t.Errorf("%s: wants a summary, an example and a rule for its arguments", c.CommandPath())
		}
		if !strings.Contains(c.Example, c.CommandPath()) {
			t.Errorf("%s: the example shows another command", c.CommandPath())
		}
	}
	visit(newRootCommand())
}
