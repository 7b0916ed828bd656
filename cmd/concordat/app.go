package main

import (
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"github.com/concordat/concordat/internal/flower/fab"
	"github.com/concordat/concordat/policy"
)

func newAppCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "app",
		Short: "Look into Flower app bundles, sign them, and approve them on your own node",
		Long: `App is about Flower app bundles (FABs): what "flwr build" makes of an app's folder and "flwr run" sends.
A node starts nothing of a bundle before two have said yes to its hash: the federation's members, whose
policy lists it under apps, or under signed_apps those who sign it, and this node's own owner, with
"concordat app approve".`,
	}
	cmd.AddCommand(newAppShowCommand(), newAppApproveCommand(), newAppRevokeCommand(), newAppListCommand(),
		newAppKeyCommand(), newAppSignCommand(), newAppPublishCommand())
	return cmd
}

// controlFlag gives a command the address of a node's socket.
func controlFlag(cmd *cobra.Command) {
	cmd.Flags().String("control", defaultControl, "unix:///path of the node's control socket")
}

func readBundle(path string) (*fab.Bundle, error) {
	raw, err := readFile(path, fab.MaxSize)
	if err != nil {
		return nil, err
	}
	b, err := fab.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return b, nil
}

func newAppShowCommand() *cobra.Command {
	var overrides []string
	cmd := &cobra.Command{
		Use:   "show FILE.fab",
		Short: "Check a bundle and print what is in it",
		Long: `Show checks a bundle as a node does, and prints its hash, which is what a policy lists, its components and
run config, and every file with its own hash: what an owner reads before approving. It needs no node.

Where a bundle's own ServerApp is to aggregate, with exposure individual, a policy lists the digest of the run
config as well: the one that show prints, with the overrides that "flwr run" will be given.`,
		Example: `  flwr build --app quickstart
  concordat app show concordat.quickstart.1-0-0.3f9a12c0.fab
  concordat app show concordat.quickstart.1-0-0.3f9a12c0.fab --run-config num-server-rounds=5 --run-config 'mode="fast"'`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := readBundle(args[0])
			if err != nil {
				return err
			}
			given, err := fab.ParseOverrides(overrides)
			if err != nil {
				return usagef("--run-config: %v", err)
			}
			config, err := b.Fuse(given)
			if err != nil {
				return usagef("--run-config: %v", err)
			}
			config = policy.AppConfig(config)
			type file struct {
				Path   string `json:"path"`
				Size   int64  `json:"size"`
				Digest string `json:"digest"`
			}
			v := struct {
				Digest    string         `json:"digest"`
				App       string         `json:"app"`
				Version   string         `json:"version"`
				Strategy  string         `json:"strategy,omitempty"`
				ServerApp string         `json:"serverapp"`
				ClientApp string         `json:"clientapp"`
				Config    map[string]any `json:"config"`
				ConfigID  string         `json:"config_digest"`
				Files     []file         `json:"files"`
			}{b.Hash(), b.ID(), b.Version, b.Strategy, b.ServerApp, b.ClientApp, config, policy.ConfigDigest(config).String(), nil}
			for _, f := range b.Files {
				v.Files = append(v.Files, file{f.Path, f.Size, hex.EncodeToString(f.Digest[:])})
			}
			return emit(cmd, v, func(w io.Writer) {
				fmt.Fprintf(w, "%s %s\ndigest     %s\nserverapp  %s\nclientapp  %s\n", v.App, v.Version, v.Digest, v.ServerApp, v.ClientApp)
				if v.Strategy == "" {
					fmt.Fprintln(w, "strategy   none: the run config names one, or the app's own code aggregates")
				} else {
					fmt.Fprintf(w, "strategy   %s\n", v.Strategy)
				}
				for _, k := range slices.Sorted(maps.Keys(v.Config)) {
					fmt.Fprintf(w, "config     %s = %v\n", k, v.Config[k])
				}
				fmt.Fprintf(w, "config     digest %s\n", v.ConfigID)
				for _, f := range v.Files {
					fmt.Fprintf(w, "file       %s  %8d  %s\n", f.Digest[:16], f.Size, f.Path)
				}
			})
		},
	}
	cmd.Flags().StringArrayVarP(&overrides, "run-config", "c", nil, `a key of the run config with another value, as TOML: 'lr=0.1', 'mode="fast"'; may be repeated`)
	return cmd
}

func newAppApproveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "approve FILE.fab",
		Short: "Allow a bundle on your own node",
		Long: `Approve installs a bundle on the node and allows it there: the owner's own word, without which the node
starts nothing of it. Every member's node needs it. The policy must list the bundle's digest as well, or
let it in by its signers, before a run of it starts; in which order these happen does not matter.`,
		Example: "  concordat app approve concordat.quickstart.1-0-0.3f9a12c0.fab",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := readBundle(args[0])
			if err != nil {
				return err
			}
			return withControl(cmd, func(c concordatv1.ControlClient) error {
				r, err := c.ApproveApp(cmd.Context(), &concordatv1.ApproveAppRequest{Fab: b.Content})
				if err != nil {
					return said(err)
				}
				v := appOf(r.GetApp())
				return emit(cmd, v, func(w io.Writer) {
					fmt.Fprintf(w, "approved %s %s, digest %s\n", v.Name, v.Version, v.Digest)
					if !v.InPolicy {
						fmt.Fprintln(w, "next: the policy does not list it yet; its members add it to apps and sign (\"concordat policy\"), or its signers sign it (\"concordat app sign\")")
					}
				})
			})
		},
	}
	controlFlag(cmd)
	return cmd
}

func newAppRevokeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "revoke DIGEST",
		Short: "Take back what was allowed",
		Long: `Revoke takes back the approval of a bundle. A run of it that the node takes part in fails at its next step.
DIGEST is the bundle's digest, or its first digits.`,
		Example: "  concordat app revoke 3f9a12c0",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withControl(cmd, func(c concordatv1.ControlClient) error {
				r, err := c.ListApps(cmd.Context(), &concordatv1.ListAppsRequest{})
				if err != nil {
					return said(err)
				}
				var found []app
				for _, a := range r.GetApps() {
					if v := appOf(a); v.Kind == "fab" && args[0] != "" && strings.HasPrefix(v.Digest, strings.ToLower(args[0])) {
						found = append(found, v)
					}
				}
				if len(found) != 1 {
					return hinted(exitFail, fmt.Errorf("%q is the start of the digests of %d approved bundles", args[0], len(found)), "\"concordat app list\" shows which there are")
				}
				digest, err := hex.DecodeString(found[0].Digest)
				if err != nil {
					return err
				}
				if _, err := c.RevokeApp(cmd.Context(), &concordatv1.RevokeAppRequest{Digest: digest}); err != nil {
					return said(err)
				}
				return emit(cmd, found[0], func(w io.Writer) { fmt.Fprintf(w, "revoked %s %s\n", found[0].Name, found[0].Version) })
			})
		},
	}
	controlFlag(cmd)
	return cmd
}

func newAppListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List what the node would run",
		Example: "  concordat app list --output json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withControl(cmd, func(c concordatv1.ControlClient) error {
				r, err := c.ListApps(cmd.Context(), &concordatv1.ListAppsRequest{})
				if err != nil {
					return said(err)
				}
				v := struct {
					Apps []app `json:"apps"`
				}{[]app{}}
				for _, a := range r.GetApps() {
					v.Apps = append(v.Apps, appOf(a))
				}
				return emit(cmd, v, func(w io.Writer) {
					t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
					fmt.Fprintln(t, "DIGEST\tKIND\tAPP\tVERSION\tSTRATEGY\tIN POLICY")
					for _, a := range v.Apps {
						in := "no"
						if a.InPolicy {
							in = "yes"
						}
						fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", short(a.Digest), a.Kind, a.Name, a.Version, a.Strategy, in)
					}
					t.Flush()
				})
			})
		},
	}
	controlFlag(cmd)
	return cmd
}

// app is what commands print of one.
type app struct {
	Digest   string `json:"digest"`
	Kind     string `json:"kind"`
	Name     string `json:"name"`
	Version  string `json:"version,omitempty"`
	Strategy string `json:"strategy,omitempty"`
	InPolicy bool   `json:"in_policy"`
}

func appOf(a *concordatv1.App) app {
	return app{hex.EncodeToString(a.GetDigest()), a.GetKind(), a.GetName(), a.GetVersion(), a.GetStrategy(), a.GetInPolicy()}
}
