package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/daemon/keyfile"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/policy/source"
)

func newNodeEnrollCommand() *cobra.Command {
	var (
		member, out string
		witness     bool
	)
	cmd := &cobra.Command{
		Use:   "enroll --member ID --out DIR",
		Short: "Make a node's keys and ask its member for a credential",
		Long: `Enroll makes node.key, the key under which the enclave knows the node, and witness.key, with which the
node cosigns the federation's log for its member; and enroll.json with their public halves, which
"concordat member certify" answers. Keys are never overwritten. A member has one witness: make its second
node with --witness=false.`,
		Example: "  concordat node enroll --member hospital-a --out /var/lib/concordat",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r := enrollment{Format: enrollmentFormat, Member: policy.MemberID(member)}
			if err := r.Member.Check(); err != nil {
				return usagef("--member %w", err)
			}
			node, wit, req := filepath.Join(out, "node.key"), filepath.Join(out, "witness.key"), filepath.Join(out, "enroll.json")
			files := []string{node, req}
			if witness {
				files = []string{node, wit, req}
			}
			if err := absent(files...); err != nil {
				return err
			}
			if err := os.MkdirAll(out, 0o700); err != nil {
				return err
			}
			k, err := newKey(node)
			if err != nil {
				return err
			}
			r.NodeKey = source.FormatKey(k)
			if witness {
				wk, err := keyfile.CreateWitness(wit, member+"/witness")
				if err != nil {
					return err
				}
				r.Witness = wk.String()
			}
			if err := createFile(req, r.encode()); err != nil {
				return err
			}
			v := struct {
				Member  policy.MemberID `json:"member"`
				NodeID  cose.Digest     `json:"node_id"`
				NodeKey string          `json:"node_key"`
				Witness string          `json:"witness,omitempty"`
				Files   []string        `json:"files"`
			}{r.Member, k.ID(), r.NodeKey, r.Witness, files}
			return emit(cmd, v, func(w io.Writer) {
				fmt.Fprintf(w, "node id     %s\n", v.NodeID)
				if witness {
					fmt.Fprintf(w, "witness     %s\n", v.Witness)
				}
				fmt.Fprintf(w, "wrote %s\nnext: have %s answered with \"concordat member certify\"", join(files), req)
				if witness {
					fmt.Fprintf(w, ", and the witness key put into the policy (\"concordat member key --witness\")")
				}
				fmt.Fprintln(w)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&member, "member", "", "the node's member, as the policy spells it")
	f.StringVarP(&out, "out", "o", "", "directory for the keys")
	f.BoolVar(&witness, "witness", true, "also make the key of the member's witness")
	must(cmd.MarkFlagRequired("member"))
	must(cmd.MarkFlagRequired("out"))
	return cmd
}
