package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "concordat",
		Short: "Federated learning between companies that trust neither each other nor the operator",
		Long: `Concordat trains one model on the data of companies that trust neither each other nor the operator:
the aggregation runs in an attested confidential VM, and every round can be proven afterwards.

Exit status: 0 pass, 1 fail, 2 usage, 3 incomplete (something needed is missing), 4 unsupported.`,
		SilenceErrors: true, // report prints them
		SilenceUsage:  true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			return checkOutput(cmd)
		},
	}
	root.PersistentFlags().String("output", outputHuman, `how to print: "human" or "json"`)
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(
		newAppCommand(),
		newAppraiseCommand(),
		newBenchCommand(),
		newDemoCommand(),
		newEndorsementsCommand(),
		newLinkCommand(),
		newMemberCommand(),
		newNodeCommand(),
		newPolicyCommand(),
		newRunCommand(),
		newReceiptCommand(),
		newVerifyCommand(),
		newVersionCommand(),
	)
	settle(root)
	return root
}

// settle makes every command of the tree exit as exit.go says: what cobra finds
// wrong is usage, what a command returns is its own.
func settle(cmd *cobra.Command) {
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage(err) })
	if args := cmd.Args; args != nil {
		cmd.Args = func(cmd *cobra.Command, given []string) error { return usage(args(cmd, given)) }
	}
	if cmd.HasSubCommands() && !cmd.Runnable() {
		cmd.Args = cobra.ArbitraryArgs
		cmd.RunE = func(cmd *cobra.Command, given []string) error {
			if len(given) > 0 {
				return usagef("unknown command %q", given[0])
			}
			var names []string
			for _, c := range cmd.Commands() {
				if c.IsAvailableCommand() {
					names = append(names, c.Name())
				}
			}
			return usagef("say which command: %s", strings.Join(names, ", "))
		}
	}
	for _, c := range cmd.Commands() {
		settle(c)
	}
}

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version of this program",
		Example: "  concordat version --output json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := struct {
				Version  string `json:"version"`
				Revision string `json:"revision,omitempty"`
				Go       string `json:"go"`
				Platform string `json:"platform"`
			}{"unknown", "", runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
			if info, ok := debug.ReadBuildInfo(); ok {
				v.Version = info.Main.Version
				for _, s := range info.Settings {
					if s.Key == "vcs.revision" {
						v.Revision = s.Value
					}
				}
			}
			return emit(cmd, v, func(w io.Writer) {
				fmt.Fprintf(w, "concordat %s %s (%s %s)\n", v.Version, v.Revision, v.Go, v.Platform)
			})
		},
	}
}
