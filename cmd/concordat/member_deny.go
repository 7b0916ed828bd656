package main

import (
	"encoding/hex"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/daemon/keyfile"
	"github.com/concordat/concordat/policy"
)

func newMemberDenyCommand() *cobra.Command {
	var (
		key, chain, kind, value, out string
		since                        string
	)
	cmd := &cobra.Command{
		Use:   "deny --key FILE --policy CHAIN --kind KIND --value HEX",
		Short: "Sign that something must not be relied on any more",
		Long: `Deny signs one member's denial, with the member's policy key. One member is enough, and only as many as
approve a policy could take it back. Hand the file to your own node ("concordat node deny"), and to other
companies by any way: it holds wherever it is seen.

  measurement  a launch measurement (48 bytes): an enclave image
  chip         AMD's chip id (64 or 8 bytes), Intel's platform instance id (16)
  gpu          a GPU's ueid (1 to 20 bytes)
  key          the id of a node, or of an enclave's signing key (32 bytes)
  credential   SHA-256 of a node's credential (32 bytes)
  app          the digest of an app (32 bytes)`,
		Example: `  concordat member deny --key hospital-a/policy.key --policy federation.policy --kind app --value 9f2c... --out app.denial
  concordat member deny --key hospital-a/policy.key --policy federation.policy --kind key --value 3b71... --since 2026-11-01T00:00:00Z`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := loadChain(chain)
			if err != nil {
				return err
			}
			s, err := keyfile.ReadSigner(key)
			if err != nil {
				return err
			}
			member, err := memberOf(c.Head(), s.Public())
			if err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
			d := policy.Denial{Federation: c.Federation(), Kind: policy.DenialKind(kind)}
			if d.Value, err = hex.DecodeString(value); err != nil {
				return usagef("--value is not hexadecimal")
			}
			if since != "" {
				at, err := time.Parse(time.RFC3339, since)
				if err != nil || at.Unix() < 0 {
					return usagef("--since is %q, want a time such as 2026-11-01T00:00:00Z", since)
				}
				d.Since = uint64(at.Unix())
			}
			raw, err := policy.SignDenial(s, member, d)
			if err != nil {
				return usagef("%w", err)
			}
			if err := createFile(out, raw); err != nil {
				return err
			}
			v := struct {
				File   string            `json:"file"`
				Digest cose.Digest       `json:"digest"`
				Member policy.MemberID   `json:"member"`
				Kind   policy.DenialKind `json:"kind"`
				Value  string            `json:"value"`
			}{out, cose.Sum(raw), member, d.Kind, value}
			return emit(cmd, v, func(w io.Writer) {
				fmt.Fprintf(w, "%s denies %s %s\ndenial      %s\nwrote %s\nnext: hand it to your node with \"concordat node deny %s\"\n", member, d.Kind, value, v.Digest, out, out)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&key, "key", "", "the member's policy key")
	f.StringVar(&chain, "policy", "", "the federation's signed chain")
	f.StringVar(&kind, "kind", "", "measurement, chip, gpu, key, credential or app")
	f.StringVar(&value, "value", "", "what is denied, in hexadecimal")
	f.StringVar(&since, "since", "", "time from which the member distrusts it, for reports; it is denied whatever this says")
	f.StringVarP(&out, "out", "o", "member.denial", "file for the denial")
	for _, name := range []string{"key", "policy", "kind", "value"} {
		must(cmd.MarkFlagRequired(name))
	}
	return cmd
}
