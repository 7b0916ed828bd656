package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/policy"
)

func newPolicyAdoptCommand() *cobra.Command {
	var (
		chain     string
		approvals []string
	)
	cmd := &cobra.Command{
		Use:   "adopt FILE --chain FILE --approval FILE...",
		Short: "Put an approved policy into the chain that programs take",
		Long: `Adopt checks the approvals and writes the chain: a new one for a federation's first version, else the
chain given, which then has one version more. Every approval must be valid, and there must be as many as the
version in force demands: with fewer nothing is written, and the exit status is 3. For a policy that the
chain's head is already, adopt adds approvals that came later.`,
		Example: `  concordat policy adopt policy.yaml --chain federation.policy \
      --approval policy.yaml.hospital-a.approval --approval policy.yaml.lab-b.approval`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := loadPolicy(args[0])
			if err != nil {
				return err
			}
			if f.chain != nil {
				return hinted(exitUsage, fmt.Errorf("%s is a chain already", args[0]), "give the policy to adopt, as YAML or in canonical form")
			}
			var votes [][]byte
			for _, path := range approvals {
				b, err := readFile(path, cose.MaxMessage)
				if err != nil {
					return err
				}
				votes = append(votes, b)
			}
			c, err := adopt(chain, f.policy, votes)
			if few := (*policy.QuorumError)(nil); errors.As(err, &few) {
				return hinted(exitIncomplete, err, "collect %d more with \"concordat policy sign\" and give them all again", few.Need-uint64(len(few.Have)))
			}
			if err != nil {
				return err
			}
			if err := replaceFile(chain, c.Encode()); err != nil {
				return err
			}
			v := struct {
				File string `json:"file"`
				policySummary
				Approvers []policy.MemberID `json:"approvers"`
			}{chain, summarize(c.Head()), c.Approvers(c.Head().Version)}
			return emit(cmd, v, func(w io.Writer) {
				v.print(w)
				fmt.Fprintf(w, "approved by %s: wrote %s\n", join(v.Approvers), chain)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&chain, "chain", "", "the chain file; made for a federation's first version")
	f.StringArrayVar(&approvals, "approval", nil, "a member's approval; repeat for each")
	must(cmd.MarkFlagRequired("chain"))
	return cmd
}

// adopt returns the chain in the file with p put into it.
func adopt(path string, p *policy.Policy, votes [][]byte) (*policy.Chain, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if p.Version != 1 {
			return nil, hinted(exitFail, fmt.Errorf("%s does not exist, and version %d follows another", path, p.Version), "give the chain that it follows with --chain")
		}
		return policy.NewChain(p.Encode(), votes)
	}
	c, err := loadChain(path)
	if err != nil {
		return nil, err
	}
	if c.Head().Digest() != p.Digest() {
		return c, c.Adopt(p.Encode(), votes)
	}
	for i, raw := range votes {
		if err := c.AddApproval(raw); err != nil {
			return nil, fmt.Errorf("approval %d: %w", i+1, err)
		}
	}
	return c, nil
}
