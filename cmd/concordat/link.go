package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/concordat/concordat/internal/daemon"
	"github.com/concordat/concordat/internal/daemon/config"
	"github.com/concordat/concordat/link"
)

func newLinkCommand() *cobra.Command {
	var (
		flags       linkFlags
		printConfig bool
	)
	cmd := &cobra.Command{
		Use:   "link --data DIR",
		Short: "Run the untrusted relay between nodes and enclaves",
		Long: `Link relays ciphertext between the nodes and enclaves of the federations that it hosts, stores their
encrypted chunks and writes their transparency logs. Nobody needs to trust it with more than availability.

A federation is hosted because its signed policy lies in DIR/federations or is named with --policy. Nodes
and enclaves dial the address that it logs and writes to DIR/address; with a self-signed certificate, the
default, that ends in the pin of its key.

Chunks of a run are released --retain after its end is in the log and nobody uses them any more, and those of
what never ends --abandoned after somebody last did: "12h", "30d" or "forever".`,
		Example: `  concordat link --data /var/lib/concordat --listen :7443 --policy federation.policy
  concordat link --data /var/lib/concordat --policy federation.policy --retain 14d --abandoned 365d
  concordat link chunks --data /var/lib/concordat
  concordat link key --data /var/lib/concordat --origin log.example/federation`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := flags.config(cmd)
			if err != nil {
				return err
			}
			if printConfig {
				return config.Print(cmd.OutOrStdout(), cfg)
			}
			return runLink(cmd.Context(), cmd, cfg)
		},
	}
	flags.add(cmd)
	f := cmd.Flags()
	f.StringVar(&flags.Listen, "listen", "", "TCP address to listen on (default 127.0.0.1:7443)")
	f.StringVar(&flags.Address, "address", "", `"host:port" by which others reach it, if that is not --listen`)
	f.StringVar(&flags.Metrics, "metrics", "", "TCP address for GET /metrics (default none)")
	f.BoolVar(&printConfig, "print-config", false, "print the configuration in force, as YAML, and end")
	cmd.AddCommand(newLinkKeyCommand(), newLinkChunksCommand(), newLinkReleaseCommand())
	return cmd
}

// linkFlags are a link's configuration file, and what flags put over it.
type linkFlags struct {
	link.Config
	file string
}

// add adds the flags that say what is kept, where and how long.
func (flags *linkFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&flags.Data, "data", "", "directory of everything that the link keeps; one process at a time")
	f.StringArrayVar(&flags.Policies, "policy", nil, "a federation's signed chain, to host it; may be repeated")
	f.Var(period{&flags.Retain}, "retain", "how long chunks stay after a run's end (default 30d)")
	f.Var(period{&flags.Abandoned}, "abandoned", "how long chunks stay that nobody uses, of what never ends (default 90d)")
	f.StringVar(&flags.file, "config", "", "YAML file; flags count more")
}

// period is a flag.
type period struct{ *link.Period }

func (p period) Set(s string) error { return p.UnmarshalText([]byte(s)) }

func (p period) Type() string { return "time" }

func (p period) String() string {
	if p.Period == nil || *p.Period == 0 {
		return ""
	}
	return p.Period.String()
}

// config reads the file and puts the flags over it.
func (flags *linkFlags) config(cmd *cobra.Command) (link.Config, error) {
	var c link.Config
	if flags.file != "" {
		if err := config.Load(flags.file, &c); err != nil {
			return c, err
		}
	}
	for name, set := range map[string]func(){
		"data": func() { c.Data = flags.Data }, "listen": func() { c.Listen = flags.Listen }, "address": func() { c.Address = flags.Address },
		"policy": func() { c.Policies = flags.Policies }, "metrics": func() { c.Metrics = flags.Metrics },
		"retain": func() { c.Retain = flags.Retain }, "abandoned": func() { c.Abandoned = flags.Abandoned },
	} {
		if cmd.Flags().Changed(name) {
			set()
		}
	}
	if c.Data == "" {
		return c, usage(errors.New("no --data, and no data in the config"))
	}
	return c, usage(c.Complete())
}

// runLink runs the daemon until its context ends.
func runLink(ctx context.Context, cmd *cobra.Command, c link.Config) error {
	log, err := daemon.Logger(cmd.ErrOrStderr(), c.Log)
	if err != nil {
		return usage(err)
	}
	slog.SetDefault(log) // where the log's library sends its lines
	c.Logger = log
	l, err := link.New(c)
	if err != nil {
		return err
	}
	return l.Run(ctx)
}

func newLinkKeyCommand() *cobra.Command {
	var data, origin string
	cmd := &cobra.Command{
		Use:   "key --data DIR --origin ORIGIN",
		Short: "Print the key under which the link signs a federation's log: the policy's log.key",
		Long: `Key prints the C2SP verifier key of the log that the link with this data directory keeps for a federation.
It goes into the federation's policy, as log.key beside log.origin, before there is a federation. The
private key is made if there is none, and stays in the directory.`,
		Example: "  concordat link key --data /var/lib/concordat --origin log.example/federation",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			k, err := link.LogKey(data, origin)
			if err != nil {
				return err
			}
			v := struct {
				Origin string `json:"origin"`
				Key    string `json:"key"`
			}{origin, k}
			return emit(cmd, v, func(w io.Writer) { fmt.Fprintln(w, k) })
		},
	}
	cmd.Flags().StringVar(&data, "data", "", "the link's data directory")
	cmd.Flags().StringVar(&origin, "origin", "", "origin of the log, as it will stand in the policy")
	cmd.MarkFlagRequired("data")
	cmd.MarkFlagRequired("origin")
	return cmd
}
