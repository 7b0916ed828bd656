package main

import (
	"encoding/hex"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"github.com/concordat/concordat/internal/cose"
)

func newNodeDenyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "deny FILE",
		Short: "Hand a member's denial to a running node",
		Long: `Deny hands a denial, of "concordat member deny", to a running node, your own company's or another's. It
holds there at once, also after a restart: an enclave that it names is left, a node or an app that it names
is refused. The node puts it into the log for the others. While the log does not show it for longer than the
policy's denial_lag, the node acks nothing: somebody keeps it from the others.`,
		Example: "  concordat node deny app.denial --control unix:///var/lib/concordat/control.sock",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			raw, err := readFile(args[0], cose.MaxMessage)
			if err != nil {
				return err
			}
			return withControl(cmd, func(c concordatv1.ControlClient) error {
				r, err := c.Deny(cmd.Context(), &concordatv1.DenyRequest{Denial: raw})
				if err != nil {
					return said(err)
				}
				v := struct {
					Digest string `json:"digest"`
					Member string `json:"member"`
					Kind   string `json:"kind"`
					Value  string `json:"value"`
					Logged bool   `json:"logged"`
				}{hex.EncodeToString(r.GetDigest()), r.GetMember(), r.GetKind(), hex.EncodeToString(r.GetValue()), r.GetLogged()}
				return emit(cmd, v, func(w io.Writer) {
					fmt.Fprintf(w, "%s denies %s %s\n", v.Member, v.Kind, v.Value)
					if v.Logged {
						fmt.Fprintln(w, "the log shows it already")
					} else {
						fmt.Fprintln(w, "it holds here, and is on its way into the log")
					}
				})
			})
		},
	}
	cmd.Flags().String("control", defaultControl, "unix:///path of the node's control socket")
	return cmd
}
