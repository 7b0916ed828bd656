package main

import (
	"encoding/hex"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
)

func newRunApproveCommand() *cobra.Command {
	var decline bool
	cmd := &cobra.Command{
		Use:   "approve RUN",
		Short: "Say yes or no to a run that another company asked for",
		Long: `Approve says yes to a run that waits for this node's owner. A node that is configured to approve each run,
which is the default, takes part in nothing that another company asked for without it. The policy has been
checked before, and is checked again: this is the owner's own word, and cannot allow what the policy does
not. RUN is the run, or its first digits, as "concordat run list" shows it.`,
		Example: "  concordat run approve 3f9a12c0\n  concordat run approve 3f9a12c0 --decline",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withControl(cmd, func(c concordatv1.ControlClient) error {
				p, err := findRun(cmd.Context(), c, args[0])
				if err != nil {
					return err
				}
				run, err := hex.DecodeString(p.Run)
				if err != nil || len(run) == 0 {
					return fmt.Errorf("no enclave has started the run of request %s", p.Request)
				}
				if _, err := c.ApproveRun(cmd.Context(), &concordatv1.ApproveRunRequest{Run: run, Decline: decline}); err != nil {
					return said(err)
				}
				v := struct {
					Run      string `json:"run"`
					Approved bool   `json:"approved"`
				}{p.Run, !decline}
				return emit(cmd, v, func(w io.Writer) {
					if decline {
						fmt.Fprintf(w, "declined run %s\n", p.Run)
					} else {
						fmt.Fprintf(w, "approved run %s; next: \"concordat run watch\"\n", p.Run)
					}
				})
			})
		},
	}
	cmd.Flags().BoolVar(&decline, "decline", false, "say no; the run ends, since its cohort is fixed")
	return cmd
}
