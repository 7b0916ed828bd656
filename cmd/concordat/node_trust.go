package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier"
)

func newNodeTrustCommand() *cobra.Command {
	var chain, member, out string
	cmd := &cobra.Command{
		Use:   "trust --policy CHAIN --member ID",
		Short: "Write the trust file with which an officer verifies bundles",
		Long: `Trust writes what "concordat verify" believes before it reads a bundle: the federation, the officer's own
company and its witness, and whether the federation is simulated. Make it from your own node's policy and
never take it from whoever sent the bundle; compare its fingerprint with the one that verify prints.`,
		Example: "  concordat node trust --policy federation.policy --member hospital-a --out trust.json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := loadChain(chain)
			if err != nil {
				return err
			}
			m := c.Head().Member(policy.MemberID(member))
			if m == nil {
				return fmt.Errorf("%s: %q is not a member of the federation", chain, member)
			}
			t := verifier.Trust{Federation: c.Federation(), Member: m.ID, Witness: m.WitnessKey, Simulated: c.Head().Simulated, TSA: []string{}}
			b := t.Encode()
			if _, err := verifier.ParseTrust(b); err != nil {
				return err
			}
			if err := createFile(out, b); err != nil {
				return err
			}
			v := struct {
				File        string      `json:"file"`
				Fingerprint cose.Digest `json:"fingerprint"`
				Federation  cose.Digest `json:"federation"`
				Simulated   bool        `json:"simulated"`
			}{out, t.Fingerprint(), t.Federation, t.Simulated}
			return emit(cmd, v, func(w io.Writer) {
				fmt.Fprintf(w, "federation  %s\nfingerprint %s\nwrote %s\n", v.Federation, v.Fingerprint, out)
				if v.Simulated {
					fmt.Fprintln(w, "warning: the federation is simulated: what it proves is worth nothing")
				}
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&chain, "policy", "", "the federation's signed chain")
	f.StringVar(&member, "member", "", "your own company, as the policy spells it")
	f.StringVarP(&out, "out", "o", "trust.json", "file to write")
	must(cmd.MarkFlagRequired("policy"))
	must(cmd.MarkFlagRequired("member"))
	return cmd
}
