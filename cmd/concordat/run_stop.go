package main

import (
	"encoding/hex"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
)

func newRunStopCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "stop RUN",
		Short: "End a run that was asked for at this node",
		Long: `Stop has the enclave end a run that a user of this node asked for; nobody else can. What was released stays
released, a step that waits for acks never leaves. RUN is the run or its request, or the first digits.`,
		Example: "  concordat run stop 3f9a12c0",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withControl(cmd, func(c concordatv1.ControlClient) error {
				p, err := findRun(cmd.Context(), c, args[0])
				if err != nil {
					return err
				}
				request, err := hex.DecodeString(p.Request)
				if err != nil || len(request) == 0 {
					return fmt.Errorf("run %s was not asked for at this node since it started", args[0])
				}
				if p.ended() {
					return fmt.Errorf("run %s has ended: %s", args[0], p.State)
				}
				if _, err := c.StopRun(cmd.Context(), &concordatv1.StopRunRequest{Request: request}); err != nil {
					return said(err)
				}
				v := struct {
					Run     string `json:"run,omitempty"`
					Request string `json:"request"`
				}{p.Run, p.Request}
				return emit(cmd, v, func(w io.Writer) {
					fmt.Fprintf(w, "stop of request %s is on its way; next: \"concordat run list\"\n", short(p.Request))
				})
			})
		},
	}
}
