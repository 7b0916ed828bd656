package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"github.com/concordat/concordat/enclave/aggregate"
	"github.com/concordat/concordat/internal/daemon"
	"github.com/concordat/concordat/internal/daemon/config"
	"github.com/concordat/concordat/internal/daemon/dial"
	"github.com/concordat/concordat/internal/daemon/keyfile"
	"github.com/concordat/concordat/internal/daemon/metrics"
	"github.com/concordat/concordat/node"
	"github.com/concordat/concordat/policy"
)

// nodeSettings are a node's configuration file. Flags count more than the file.
type nodeSettings struct {
	Link       string           `yaml:"link"`
	Proxy      string           `yaml:"proxy"` // "http://[user:password@]host:port" that is asked to CONNECT
	Key        string           `yaml:"key"`
	Policy     string           `yaml:"policy"`
	Data       string           `yaml:"data"`
	Member     policy.MemberID  `yaml:"member"`      // empty: the credential says it
	Credential string           `yaml:"credential"`  // empty: node.credential beside the key
	WitnessKey string           `yaml:"witness_key"` // empty: witness.key beside the key, if it is there
	Control    string           `yaml:"control"`     // unix:///path; empty: control.sock in the data directory
	Apps       []node.App       `yaml:"apps"`
	Flower     *node.Flower     `yaml:"flower,omitempty"`         // how Flower app bundles are run; absent: none is
	FlowerCtl  string           `yaml:"flower_control,omitempty"` // address for the flwr command, such as 127.0.0.1:9093; empty: none
	Login      *flowerLogin     `yaml:"flower_login,omitempty"`   // whom flower_control lets in; absent: whoever uses this machine, and the address is its own
	Approve    string           `yaml:"approve"`                  // "each_run" (empty) or "policy"
	Isolation  string           `yaml:"isolation"`                // "sandbox" (empty) or "none"
	Metrics    string           `yaml:"metrics"`                  // TCP address for GET /metrics; empty: none
	Log        daemon.LogConfig `yaml:"log"`
}

func newNodeCommand() *cobra.Command {
	var (
		flags       nodeSettings
		member      string
		file        string
		printConfig bool
	)
	cmd := &cobra.Command{
		Use:   "node --link ADDR --key FILE --policy FILE --data DIR",
		Short: "Run a data owner's node, or set one up",
		Long: `Node runs the daemon at a data owner. It only dials out, to the link: it challenges the federation's
enclave, joins none that the policy does not accept, runs the approved app on its own data, and contributes
sealed updates. Its member's users reach it over a Unix socket ("concordat run").

A node belongs to one member. It makes its own keys, which never leave it ("concordat node enroll"); its
member certifies the public half ("concordat member certify"), and nobody else can.`,
		Example: `  concordat node --link link.example:7443 --key /etc/concordat/node.key --policy federation.policy --data /var/lib/concordat
  concordat node --config node.yaml --flower-control 127.0.0.1:9093
  concordat node --config node.yaml --print-config`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			flags.Member = policy.MemberID(member)
			s, err := nodeSettingsOf(cmd, file, flags)
			if err != nil {
				return err
			}
			if printConfig {
				return config.Print(cmd.OutOrStdout(), s)
			}
			return runNode(cmd.Context(), cmd, s)
		},
	}
	f := cmd.Flags()
	f.StringVar(&flags.Link, "link", "", `address of the link: "host:port" or "host:port#sha256:<hex>"`)
	f.StringVar(&flags.Key, "key", "", "the node's key")
	f.StringVar(&flags.Policy, "policy", "", "the federation's signed chain")
	f.StringVar(&flags.Data, "data", "", "directory of everything that the node keeps; one process at a time")
	f.StringVar(&file, "config", "", "YAML file; flags count more")
	f.StringVar(&flags.Credential, "credential", "", "the member's credential for the node (default node.credential beside the key)")
	f.StringVar(&flags.WitnessKey, "witness-key", "", "key with which the node cosigns the log (default witness.key beside the key, if it is there)")
	f.StringVar(&member, "member", "", "the node's member (default as the credential says)")
	f.StringVar(&flags.Control, "control", "", "unix:///path of the socket for the member's users (default control.sock in the data directory)")
	f.StringVar(&flags.FlowerCtl, "flower-control", "", "address where the flwr command (1.26 to 1.29, 1.35 and later) connects, such as 127.0.0.1:9093; one that others reach needs flower_login in the config (default none)")
	f.BoolVar(&printConfig, "print-config", false, "print the configuration in force, as YAML, and end")
	cmd.AddCommand(newNodeEnrollCommand(), newNodeTrustCommand(), newNodeDenyCommand())
	return cmd
}

// nodeSettingsOf reads the file, puts the flags over it and fills in the defaults.
func nodeSettingsOf(cmd *cobra.Command, file string, flags nodeSettings) (nodeSettings, error) {
	var s nodeSettings
	if file != "" {
		if err := config.Load(file, &s); err != nil {
			return s, err
		}
	}
	for name, set := range map[string]func(){
		"link": func() { s.Link = flags.Link }, "key": func() { s.Key = flags.Key },
		"policy": func() { s.Policy = flags.Policy }, "data": func() { s.Data = flags.Data },
		"credential": func() { s.Credential = flags.Credential }, "witness-key": func() { s.WitnessKey = flags.WitnessKey },
		"member": func() { s.Member = flags.Member }, "control": func() { s.Control = flags.Control },
		"flower-control": func() { s.FlowerCtl = flags.FlowerCtl },
	} {
		if cmd.Flags().Changed(name) {
			set()
		}
	}
	for name, v := range map[string]string{"link": s.Link, "key": s.Key, "policy": s.Policy, "data": s.Data} {
		if v == "" {
			return s, usagef("no --%s, and no %s in the config", name, name)
		}
	}
	beside := func(name string) string { return filepath.Join(filepath.Dir(s.Key), name) }
	if s.Credential == "" {
		s.Credential = beside("node.credential")
	}
	if s.WitnessKey == "" {
		if _, err := os.Stat(beside("witness.key")); err == nil {
			s.WitnessKey = beside("witness.key")
		}
	}
	if s.Control == "" {
		path, err := filepath.Abs(filepath.Join(s.Data, "control.sock"))
		if err != nil {
			return s, err
		}
		s.Control = unixPrefix + path
	}
	if s.FlowerCtl != "" && s.Flower == nil {
		return s, usagef("--flower-control serves runs of Flower app bundles, and the config has no flower section that says how to run them")
	}
	if s.Login != nil && s.FlowerCtl == "" {
		return s, usagef("flower_login says who may use flower_control, and there is none")
	}
	for i, a := range s.Apps {
		if len(a.Command) == 0 || !filepath.IsAbs(a.Command[0]) {
			return s, fmt.Errorf("%s: apps[%d].command: the first word is the executable's absolute path", file, i)
		}
	}
	return s, nil
}

// collectAt is at how many percent more than what is in use a node's memory is collected,
// unless GOGC says otherwise. Nearly all that a node with a large model has in use is the
// model's objects, a few large blocks without pointers: collecting often costs next to
// nothing, and memory that was never used before costs the system a page fault for each page.
const collectAt = 25

// runNode runs the daemon until its context ends.
func runNode(ctx context.Context, cmd *cobra.Command, s nodeSettings) error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(collectAt)
	}
	log, err := daemon.Logger(cmd.ErrOrStderr(), s.Log)
	if err != nil {
		return usage(err)
	}
	cfg, err := s.config()
	if err != nil {
		return err
	}
	conn, err := dial.Dial(s.Link, dial.Options{Proxy: s.Proxy})
	if err != nil {
		return usage(err)
	}
	defer conn.Close()
	cfg.Conn, cfg.Log, cfg.Now = conn, log, time.Now
	var parts []daemon.Part
	if s.Metrics != "" {
		l, err := net.Listen("tcp", s.Metrics)
		if err != nil {
			return fmt.Errorf("metrics: %w", err)
		}
		registry := metrics.Registry()
		cfg.Observer = newNodeMetrics(registry).observe
		parts = append(parts, daemon.Part{Name: "metrics", Run: func(ctx context.Context) error { return metrics.Serve(ctx, l, registry) }})
	}
	if err := os.MkdirAll(s.Data, 0o700); err != nil {
		return err
	}
	var release func()
	if cfg.Control, release, err = listenControl(s.Control); err != nil {
		return err
	}
	defer release()
	if s.FlowerCtl != "" {
		if cfg.FlowerControl, err = s.listenFlower(log); err != nil {
			return usage(fmt.Errorf("flower control: %w", err))
		}
		log.Info("the flwr command may connect", "address", cfg.FlowerControl.Addr().String())
	}
	n, err := node.New(cfg)
	if err != nil {
		if cfg.FlowerControl != nil {
			err = errors.Join(err, cfg.FlowerControl.Close())
		}
		return errors.Join(err, cfg.Control.Close())
	}
	return daemon.Run(ctx, append(parts, daemon.Part{Name: "node", Run: n.Run})...)
}

// config reads the files that s names.
func (s nodeSettings) config() (node.Config, error) {
	c := node.Config{Dir: s.Data, Apps: s.Apps, Flower: s.Flower, Approve: s.Approve, Isolation: s.Isolation, Member: s.Member, CheckStrategy: checkStrategy, CheckArray: checkArray}
	chain, err := loadChain(s.Policy)
	if err != nil {
		return c, err
	}
	c.Policy = chain.Encode()
	if c.Signer, err = keyfile.ReadSigner(s.Key); err != nil {
		return c, err
	}
	if c.Credential, err = readFile(s.Credential, keyfile.MaxSize); errors.Is(err, fs.ErrNotExist) {
		return c, hinted(exitIncomplete, err, "have the node certified: \"concordat node enroll\", then \"concordat member certify\"")
	} else if err != nil {
		return c, err
	}
	if s.WitnessKey != "" {
		priv, key, err := keyfile.ReadWitness(s.WitnessKey)
		if err != nil {
			return c, err
		}
		c.WitnessName, c.WitnessKey = key.Name(), priv
	}
	if c.Member == "" {
		if _, c.Member, err = chain.Head().VerifyCredential(c.Credential, time.Now()); err != nil {
			return c, fmt.Errorf("%s: %w", s.Credential, err)
		}
	}
	return c, nil
}

// checkStrategy says what an enclave of this version would.
func checkStrategy(name string, arguments map[string]any) error {
	_, err := aggregate.New(name, arguments)
	return err
}

// checkArray does so too.
func checkArray(name, descr string) error {
	_, err := aggregate.Tensor{Name: name, Type: descr}.StateType()
	return err
}
