// Command concordat is everything that a member, an operator or an officer of a
// consortium runs. "concordat help" lists what it does; docs/reference has a page
// on every file that it reads.
//
// Each command is a file with one newXxxCommand function, put into the tree by
// root.go. A command returns an error; its exit status is decided in exit.go, and
// how it prints in output.go.
package main

import (
	"context"
	"os"

	"github.com/concordat/concordat/internal/daemon"
	"github.com/concordat/concordat/internal/sandbox"
)

func main() {
	sandbox.Init() // a node executes this program again to confine an app
	os.Exit(run())
}

// run executes the command line and returns the exit status.
func run() int {
	ctx, stop := daemon.Signals(context.Background())
	defer stop()
	root := newRootCommand()
	cmd, err := root.ExecuteContextC(ctx)
	return report(cmd, err)
}
