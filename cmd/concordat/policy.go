package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/concordat/concordat/policy"
)

func newPolicyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Write, check, sign and adopt the consortium's policy",
		Long: `A policy starts as a YAML file that people agree on. Members sign its canonical form with their policy
keys; N of them adopt it into the chain file, which every program takes as --policy. The digest of the
first version names the federation for ever.

  concordat policy new --name "Example" --member a/member.yaml --member b/member.yaml --out policy.yaml
  concordat policy check policy.yaml
  concordat policy sign policy.yaml --key a/policy.key
  concordat policy adopt policy.yaml --chain federation.policy --approval policy.yaml.a.approval ...`,
	}
	cmd.AddCommand(newPolicyNewCommand(), newPolicyCheckCommand(), newPolicySignCommand(), newPolicyAdoptCommand(),
		newPolicyShowCommand(), newPolicyDiffCommand(), newPolicyHistoryCommand(), newPolicyMeasureCommand())
	return cmd
}

// policySummary is how commands name a version.
type policySummary struct {
	Name       string        `json:"name"`
	Version    uint64        `json:"version"`
	Digest     policy.Digest `json:"digest"`
	Federation policy.Digest `json:"federation"`
	Members    int           `json:"members"`
	Approvals  uint64        `json:"approvals_needed"`
	Simulated  bool          `json:"simulated"`
	Warnings   []string      `json:"warnings"`
}

func summarize(p *policy.Policy) policySummary {
	w := p.Warnings()
	if w == nil {
		w = []string{}
	}
	return policySummary{p.Name, p.Version, p.Digest(), p.FederationID(), len(p.Members), p.Approvals, p.Simulated, w}
}

func (s *policySummary) print(w io.Writer) {
	fmt.Fprintf(w, "name        %s\nversion     %d\ndigest      %s\nfederation  %s\napprovals   %d of %d members\n", s.Name, s.Version, s.Digest, s.Federation, s.Approvals, s.Members)
	for _, x := range s.Warnings {
		fmt.Fprintf(w, "warning     %s\n", x)
	}
}

// changeLine is a policy.Change with stable names.
type changeLine struct {
	Field  string `json:"field"`
	Old    string `json:"old,omitempty"`
	New    string `json:"new,omitempty"`
	Effect string `json:"effect,omitempty"` // "weaker" or "stricter"
	text   string
}

func changes(old, new *policy.Policy) []changeLine {
	out := []changeLine{}
	for _, c := range policy.Diff(old, new) {
		out = append(out, changeLine{c.Field, c.Old, c.New, string(c.Effect), c.String()})
	}
	return out
}

func newPolicyCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE",
		Short: "Say everything that is wrong with a policy, and what is legal and wide",
		Long: `Check reads a policy as YAML, in canonical form, or as a signed chain, whose approvals it verifies too.
It names everything that is wrong with line and column, and warns of what is legal and wide.`,
		Example: "  concordat policy check policy.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := loadPolicy(args[0])
			if err != nil {
				return err
			}
			v := struct {
				Verdict string `json:"verdict"`
				Form    string `json:"form"`
				policySummary
			}{"pass", f.form, summarize(f.policy)}
			return emit(cmd, v, func(w io.Writer) {
				v.print(w)
				if f.form == "chain" {
					fmt.Fprintln(w, "The chain is valid: every version is approved by members of the one before.")
				} else {
					fmt.Fprintln(w, "The policy is valid. It is a proposal: nobody's approval was checked.")
				}
			})
		},
	}
}
