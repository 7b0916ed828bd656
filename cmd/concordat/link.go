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
		flags       link.Config
		file        string
		printConfig bool
	)
	cmd := &cobra.Command{
		Use:   "link --data DIR",
		Short: "Run the untrusted relay between nodes and enclaves",
		Long: `Link relays ciphertext between the nodes and enclaves of the federations that it hosts, stores their
encrypted chunks and writes their transparency logs. Nobody needs to trust it with more than availability.

A federation is hosted because its signed policy lies in DIR/federations or is named with --policy. Nodes
and enclaves dial the address that it logs and writes to DIR/address; with a self-signed certificate, the
default, that ends in the pin of its key.`,
		Example: `  concordat link --data /var/lib/concordat --listen :7443 --policy federation.policy
  concordat link key --data /var/lib/concordat --origin log.example/federation`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := linkConfig(cmd, file, flags)
			if err != nil {
				return err
			}
			if printConfig {
				return config.Print(cmd.OutOrStdout(), cfg)
			}
			return runLink(cmd.Context(), cmd, cfg)
		},
	}
	f := cmd.Flags()
	f.StringVar(&flags.Data, "data", "", "directory of everything that the link keeps; one process at a time")
	f.StringVar(&flags.Listen, "listen", "", "TCP address to listen on (default 127.0.0.1:7443)")
	f.StringVar(&flags.Address, "address", "", `"host:port" by which others reach it, if that is not --listen`)
	f.StringArrayVar(&flags.Policies, "policy", nil, "a federation's signed chain, to host it; may be repeated")
	f.StringVar(&flags.Metrics, "metrics", "", "TCP address for GET /metrics (default none)")
	f.StringVar(&file, "config", "", "YAML file; flags count more")
	f.BoolVar(&printConfig, "print-config", false, "print the configuration in force, as YAML, and end")
	cmd.AddCommand(newLinkKeyCommand())
	return cmd
}

// linkConfig reads the file and puts the flags over it.
func linkConfig(cmd *cobra.Command, file string, flags link.Config) (link.Config, error) {
	var c link.Config
	if file != "" {
		if err := config.Load(file, &c); err != nil {
			return c, err
		}
	}
	for name, set := range map[string]func(){
		"data": func() { c.Data = flags.Data }, "listen": func() { c.Listen = flags.Listen }, "address": func() { c.Address = flags.Address },
		"policy": func() { c.Policies = flags.Policies }, "metrics": func() { c.Metrics = flags.Metrics },
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
