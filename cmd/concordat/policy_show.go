package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/policy/source"
)

func newPolicyShowCommand() *cobra.Command {
	var version uint64
	cmd := &cobra.Command{
		Use:     "show FILE",
		Short:   "Print a policy, in any form, as YAML",
		Example: "  concordat policy show federation.policy --version 2",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := loadPolicy(args[0])
			if err != nil {
				return err
			}
			p := f.policy
			if cmd.Flags().Changed("version") {
				if p, err = f.at(version); err != nil {
					return fmt.Errorf("%s: %w", args[0], err)
				}
			}
			text := source.Render(p)
			object, err := yaml.YAMLToJSON(text)
			if err != nil {
				return err
			}
			v := struct {
				policySummary
				Policy json.RawMessage `json:"policy"`
			}{summarize(p), object}
			return emit(cmd, v, func(w io.Writer) {
				fmt.Fprintf(w, "# digest %s\n# federation %s\n", v.Digest, v.Federation)
				w.Write(text)
			})
		},
	}
	cmd.Flags().Uint64Var(&version, "version", 0, "version of a chain (default the one in force)")
	return cmd
}

// at returns a version of the file, which is a chain unless it is that version.
func (f *policyFile) at(version uint64) (*policy.Policy, error) {
	if f.policy.Version == version {
		return f.policy, nil
	}
	if f.chain != nil {
		if p := f.chain.At(version); p != nil {
			return p, nil
		}
	}
	return nil, fmt.Errorf("has no version %d", version)
}

func newPolicyDiffCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "diff OLD [NEW]",
		Short: "Say in words what one policy changes against another",
		Long: `Diff compares two policies in any form; of a chain it takes the version in force. With one chain alone it
compares the last two versions. A change that lets more happen is marked weaker, one that lets less happen
stricter. The exit status is 0 whether there are differences or not.`,
		Example: "  concordat policy diff federation.policy next.yaml",
		Args:    cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := loadPolicy(args[0])
			if err != nil {
				return err
			}
			old, new := f.policy, f.policy
			if len(args) == 2 {
				g, err := loadPolicy(args[1])
				if err != nil {
					return err
				}
				new = g.policy
			} else if old, err = f.at(f.policy.Version - 1); err != nil {
				return hinted(exitUsage, fmt.Errorf("%s: %w to compare with", args[0], err), "give two policies")
			}
			v := struct {
				Old     policy.Digest `json:"old"`
				New     policy.Digest `json:"new"`
				Changes []changeLine  `json:"changes"`
			}{old.Digest(), new.Digest(), changes(old, new)}
			return emit(cmd, v, func(w io.Writer) {
				for _, c := range v.Changes {
					fmt.Fprintln(w, c.text)
				}
				if len(v.Changes) == 0 {
					fmt.Fprintln(w, "no difference")
				}
			})
		},
	}
}

func newPolicyHistoryCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "history CHAIN",
		Short:   "List the versions of a chain, who approved each and what it changed",
		Example: "  concordat policy history federation.policy",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := loadChain(args[0])
			if err != nil {
				return err
			}
			type line struct {
				Version   uint64            `json:"version"`
				Digest    policy.Digest     `json:"digest"`
				Approvers []policy.MemberID `json:"approvers"`
				Changes   []changeLine      `json:"changes"`
			}
			v := struct {
				Federation policy.Digest `json:"federation"`
				Versions   []line        `json:"versions"`
			}{Federation: c.Federation()}
			for n := uint64(1); n <= c.Head().Version; n++ {
				l := line{n, c.At(n).Digest(), c.Approvers(n), []changeLine{}}
				if n > 1 {
					l.Changes = slices.DeleteFunc(changes(c.At(n-1), c.At(n)), func(x changeLine) bool {
						return x.Field == "version" || x.Field == "previous" || x.Field == "federation" // what every version changes
					})
				}
				v.Versions = append(v.Versions, l)
			}
			return emit(cmd, v, func(w io.Writer) {
				fmt.Fprintf(w, "federation %s\n", v.Federation)
				for _, l := range v.Versions {
					fmt.Fprintf(w, "version %d  %s  approved by %s\n", l.Version, l.Digest, join(l.Approvers))
					for _, x := range l.Changes {
						fmt.Fprintf(w, "    %s\n", x.text)
					}
				}
			})
		},
	}
}

func join[T ~string](list []T) string {
	var out []string
	for _, x := range list {
		out = append(out, string(x))
	}
	return strings.Join(out, ", ")
}
