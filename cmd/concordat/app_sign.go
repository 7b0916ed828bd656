package main

import (
	"encoding/hex"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/daemon/keyfile"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/policy/source"
)

func newAppKeyCommand() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "key --out FILE",
		Short: "Make a key that signs an app's bundles",
		Long: `Key makes the key of one signer of one app, and prints its public half, which the members put into the
policy under signed_apps. A key is never overwritten. Keep it where releases are made, and nowhere else:
whoever has as many of them as the policy wants chooses what the members' nodes run.`,
		Example: "  concordat app key --out tumour.key",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := absent(out); err != nil {
				return err
			}
			k, err := newKey(out)
			if err != nil {
				return err
			}
			v := struct {
				Key  string      `json:"key"`
				ID   cose.Digest `json:"id"`
				File string      `json:"file"`
			}{source.FormatKey(k), k.ID(), out}
			return emit(cmd, v, func(w io.Writer) {
				fmt.Fprintf(w, "key  %s\nid   %s\nwrote %s\nnext: the members add the key to signers of the app, under signed_apps, and sign the policy\n", v.Key, v.ID, out)
			})
		},
	}
	cmd.Flags().StringVarP(&out, "out", "o", "", "file for the key")
	must(cmd.MarkFlagRequired("out"))
	return cmd
}

func newAppSignCommand() *cobra.Command {
	var key, chain, out string
	cmd := &cobra.Command{
		Use:   "sign FILE.fab --key FILE --policy CHAIN",
		Short: "Sign a bundle, where the policy lets an app in by its signers",
		Long: `Sign says, with a signer's key, that a bundle is a version of the app that its pyproject.toml names. Where the
policy has that app under signed_apps, a bundle runs once as many signers as it wants have signed, without a
new version of the policy: with a native strategy, never with the app's own aggregation. Owners still approve
it at each node. It needs no node; "concordat app publish" puts the signature into the federation's log.`,
		Example: `  concordat app sign concordat.quickstart.1-0-0.3f9a12c0.fab --key tumour.key --policy federation.policy
  concordat app publish concordat.quickstart.1-0-0.3f9a12c0.fab.sig`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := readBundle(args[0])
			if err != nil {
				return err
			}
			c, err := loadChain(chain)
			if err != nil {
				return err
			}
			s, err := keyfile.ReadSigner(key)
			if err != nil {
				return err
			}
			apps := c.Head().SignedApps
			i := slices.IndexFunc(apps, func(a policy.SignedApp) bool { return a.App == b.ID() })
			if i < 0 || !slices.Contains(apps[i].Signers, s.Public()) {
				return hinted(exitFail, fmt.Errorf("%s: is no key of a signer of %s in policy version %d", key, b.ID(), c.Head().Version), "the members add it to signed_apps; \"concordat policy show\" prints who is there")
			}
			raw, err := policy.SignApp(s, policy.AppSignature{Federation: c.Federation(), App: b.ID(), Version: b.Version, Digest: b.Digest})
			if err != nil {
				return err
			}
			if out == "" {
				out = args[0] + ".sig"
			}
			if err := createFile(out, raw); err != nil {
				return err
			}
			v := struct {
				File      string      `json:"file"`
				App       string      `json:"app"`
				Version   string      `json:"version"`
				Digest    string      `json:"digest"`
				Signer    cose.Digest `json:"signer"`
				Threshold uint64      `json:"threshold"`
			}{out, b.ID(), b.Version, b.Hash(), s.Public().ID(), apps[i].Threshold}
			return emit(cmd, v, func(w io.Writer) {
				fmt.Fprintf(w, "signed %s %s, digest %s\nsigner  %s\nwrote %s\nnext: concordat app publish %s; the policy wants %d of its %d signers\n",
					v.App, v.Version, v.Digest, v.Signer, out, out, v.Threshold, len(apps[i].Signers))
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&key, "key", "", "the signer's key, of \"concordat app key\"")
	f.StringVar(&chain, "policy", "", "the federation's signed chain")
	f.StringVarP(&out, "out", "o", "", `file for the signature (default "FILE.fab.sig")`)
	for _, name := range []string{"key", "policy"} {
		must(cmd.MarkFlagRequired(name))
	}
	return cmd
}

func newAppPublishCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "publish FILE.sig",
		Short: "Put a signature of a bundle into the federation's log",
		Long: `Publish hands a signature of "concordat app sign" to a running node, which puts it into the federation's log:
there every node, every enclave and every officer finds it. It cannot be taken back; a member denies the app
("concordat member deny --kind app") or the signer's key (--kind key) instead.`,
		Example: "  concordat app publish concordat.quickstart.1-0-0.3f9a12c0.fab.sig",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			raw, err := readFile(args[0], cose.MaxMessage)
			if err != nil {
				return err
			}
			return withControl(cmd, func(c concordatv1.ControlClient) error {
				r, err := c.PublishApp(cmd.Context(), &concordatv1.PublishAppRequest{Signature: raw})
				if err != nil {
					return said(err)
				}
				v := struct {
					Statement string `json:"statement"`
					App       string `json:"app"`
					Version   string `json:"version"`
					Digest    string `json:"digest"`
					Signer    string `json:"signer"`
					Signed    uint64 `json:"signed"`
					Threshold uint64 `json:"threshold"`
					Logged    bool   `json:"logged"` // the log showed it before
				}{hex.EncodeToString(r.GetStatement()), r.GetName(), r.GetVersion(), hex.EncodeToString(r.GetDigest()), hex.EncodeToString(r.GetSigner()), r.GetSigned(), r.GetThreshold(), r.GetLogged()}
				return emit(cmd, v, func(w io.Writer) {
					fmt.Fprintf(w, "%s %s, digest %s: signed by %d, the policy wants %d\n", v.App, v.Version, v.Digest, v.Signed, v.Threshold)
					if v.Logged {
						fmt.Fprintln(w, "the log shows this signature already")
					} else {
						fmt.Fprintln(w, "the link has it for the log; others see it with the next checkpoint")
					}
				})
			})
		},
	}
	controlFlag(cmd)
	return cmd
}
