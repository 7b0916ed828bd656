package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/daemon/keyfile"
	"github.com/concordat/concordat/policy"
)

func newPolicySignCommand() *cobra.Command {
	var key, chain, out string
	cmd := &cobra.Command{
		Use:   "sign FILE --key FILE [--chain FILE]",
		Short: "Approve a policy for a member",
		Long: `Sign approves one version of a policy with a member's offline policy key. The key says which member it is.
For a version after the first give the chain that it follows: the members of the version in force decide,
and sign prints what changes. Read it: a node follows by itself only what its own member signed.`,
		Example: `  concordat policy sign policy.yaml --key a/policy.key
  concordat policy sign next.yaml --key a/policy.key --chain federation.policy`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := keyfile.ReadSigner(key)
			if err != nil {
				return err
			}
			f, err := loadPolicy(args[0])
			if err != nil {
				return err
			}
			if f.chain != nil {
				return hinted(exitUsage, fmt.Errorf("%s is a chain of adopted versions", args[0]), "give the policy to approve, as YAML or in canonical form")
			}
			voters, before, err := electorate(f.policy, chain)
			if err != nil {
				return err
			}
			member, err := memberOf(voters, s.Public())
			if err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
			raw, err := policy.Approve(s, member, f.policy)
			if err != nil {
				return err
			}
			if out == "" {
				out = args[0] + "." + string(member) + ".approval"
			}
			if err := createFile(out, raw); err != nil {
				return err
			}
			v := struct {
				File   string          `json:"file"`
				Member policy.MemberID `json:"member"`
				policySummary
				Changes []changeLine `json:"changes"`
			}{out, member, summarize(f.policy), []changeLine{}}
			if before != nil {
				v.Changes = changes(before, f.policy)
			}
			return emit(cmd, v, func(w io.Writer) {
				v.print(w)
				for _, c := range v.Changes {
					fmt.Fprintf(w, "change      %s\n", c.text)
				}
				fmt.Fprintf(w, "%s approves: wrote %s\nnext: send it to whoever collects the approvals; %d are needed\n", member, out, voters.Approvals)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&key, "key", "", "the member's policy key")
	f.StringVar(&chain, "chain", "", "signed chain that the version follows; required after the first")
	f.StringVarP(&out, "out", "o", "", `file for the approval (default "FILE.MEMBER.approval")`)
	must(cmd.MarkFlagRequired("key"))
	return cmd
}

// electorate returns the version whose members decide on p, and what p is to be
// compared with: nil for a first version.
func electorate(p *policy.Policy, chainPath string) (voters, before *policy.Policy, err error) {
	if chainPath == "" {
		if p.Version != 1 {
			return nil, nil, hinted(exitUsage, fmt.Errorf("version %d follows another", p.Version), "give the chain that it follows with --chain")
		}
		return p, nil, nil
	}
	c, err := loadChain(chainPath)
	if err != nil {
		return nil, nil, err
	}
	if head := c.Head(); head.Digest() == p.Digest() { // a late approval
		if p.Version == 1 {
			return p, nil, nil
		}
		return c.At(p.Version - 1), c.At(p.Version - 1), nil
	}
	if err := c.MayFollow(p); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", chainPath, err)
	}
	return c.Head(), c.Head(), nil
}

// memberOf finds the member whose policy key k is.
func memberOf(p *policy.Policy, k cose.Key) (policy.MemberID, error) {
	for _, m := range p.Members {
		for _, pk := range m.PolicyKeys {
			if pk == k {
				return m.ID, nil
			}
		}
		if m.IssuerKey == k {
			return "", hinted(exitFail, fmt.Errorf("is the issuer key of %s", m.ID), "sign with the member's policy key")
		}
	}
	return "", hinted(exitFail, fmt.Errorf("key %s is not a policy key of any member that decides on this version", k.ID().Short()),
		"\"concordat policy show\" prints the members' keys")
}

// must stops the program for a mistake in its own source.
func must(err error) {
	if err != nil {
		panic("concordat: internal error: " + err.Error())
	}
}
