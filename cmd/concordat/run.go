package main

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"github.com/concordat/concordat/internal/cose"
)

// defaultControl is where a node with --data /var/lib/concordat listens.
const defaultControl = unixPrefix + "/var/lib/concordat/control.sock"

func newRunCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Start and follow runs at your own company's node",
		Long: `Run speaks to your own node over its Unix socket: nobody else can start a run in your name, and results
come back to your node alone. The node signs the request, the enclave checks it against the policy, and
every node checks the same before its app starts.`,
	}
	cmd.PersistentFlags().String("control", defaultControl, "unix:///path of the node's control socket")
	cmd.AddCommand(newRunStartCommand(), newRunListCommand(), newRunWatchCommand(), newRunApproveCommand(), newRunStopCommand(), newRunBundleCommand(), newRunModelCommand())
	return cmd
}

// withControl gives f a client of the node that --control names.
func withControl(cmd *cobra.Command, f func(concordatv1.ControlClient) error) error {
	address, _ := cmd.Flags().GetString("control")
	c, conn, err := dialControl(address)
	if err != nil {
		return err
	}
	defer conn.Close()
	return f(c)
}

func newRunStartCommand() *cobra.Command {
	var (
		app, chain, strategy, initial string
		rounds                        uint64
		settings, members, zeros      []string
		wait                          bool
	)
	cmd := &cobra.Command{
		Use:   "start --app DIGEST --rounds N (--initial FILE.npz | --zeros NAME=TYPE[SHAPE]...)",
		Short: "Ask for a run",
		Long: `Start asks for a run of an app that the policy lists. It ends when the node has signed the request; with
--wait it follows the run to its end, a line a round, and fails if the run does. Without --member every
member of the federation must take part.`,
		Example: `  concordat run start --app breast-cancer --policy federation.policy --rounds 10 --zeros weights=float64[30] --zeros bias=float64[] --wait
  concordat run start --app 1e01...01 --rounds 3 --initial model.npz -c epochs=5`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			digest, err := appDigest(app, chain)
			if err != nil {
				return err
			}
			q := &concordatv1.StartRunRequest{App: digest[:], Strategy: strategy, Rounds: rounds, Cohort: members, Config: map[string]string{}}
			for _, s := range settings {
				k, v, ok := strings.Cut(s, "=")
				if !ok || k == "" {
					return usagef("--config %q, want key=value", s)
				}
				q.Config[k] = v
			}
			model, err := newInitialModel(initial, zeros)
			if err != nil {
				return err
			}
			slices.Sort(q.Cohort)
			return withControl(cmd, func(c concordatv1.ControlClient) error {
				r, err := startRun(cmd, c, q, model)
				if err != nil {
					return err
				}
				if wait {
					return watchRun(cmd, c, r.GetRequest(), true)
				}
				v := struct {
					Request string `json:"request"`
				}{hex.EncodeToString(r.GetRequest())}
				return emit(cmd, v, func(w io.Writer) {
					fmt.Fprintf(w, "requested %s\nnext: follow it with \"concordat run watch %s\"\n", v.Request, v.Request[:8])
				})
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&app, "app", "", "the app: its digest, or with --policy its name in the policy")
	f.StringVar(&chain, "policy", "", "the federation's signed chain, to find an app by name")
	f.StringVar(&strategy, "strategy", "fedavg", "how the enclave aggregates: fedavg, fedadam, ... (docs/strategies.md); arguments are -c concordat.NAME=VALUE")
	f.Uint64Var(&rounds, "rounds", 1, "rounds of training, each with an evaluation where the policy has it")
	f.StringArrayVarP(&settings, "config", "c", nil, "setting of the run that the app reads, key=value with a JSON value; repeat for more")
	f.StringArrayVar(&members, "member", nil, "member that must take part; repeat for each (default all)")
	f.StringVar(&initial, "initial", "", "initial model as NumPy's .npz")
	f.StringArrayVar(&zeros, "zeros", nil, "initial array of zeros, such as weights=float64[30] or bias=float64[]; repeat for each")
	f.BoolVar(&wait, "wait", false, "follow the run to its end")
	must(cmd.MarkFlagRequired("app"))
	return cmd
}

// startRun sends a request and its initial model, object by object.
func startRun(cmd *cobra.Command, c concordatv1.ControlClient, q *concordatv1.StartRunRequest, model *initialModel) (*concordatv1.StartRunResponse, error) {
	stream, err := c.StartRun(cmd.Context())
	if err != nil {
		return nil, said(err)
	}
	if err := stream.Send(q); err != nil && err != io.EOF {
		return nil, said(err)
	}
	sent, told := 0, time.Now()
	err = model.objects(func(raw []byte) error {
		if sent += len(raw); time.Since(told) > 2*time.Second {
			told = time.Now()
			fmt.Fprintf(cmd.ErrOrStderr(), "initial model: %d MiB stored\n", sent>>20)
		}
		return stream.Send(&concordatv1.StartRunRequest{Initial: [][]byte{bytes.Clone(raw)}}) // gRPC may look at it later
	})
	if err != nil && err != io.EOF { // io.EOF: the node has answered, and says why
		return nil, err
	}
	r, err := stream.CloseAndRecv()
	if err != nil {
		return nil, said(err)
	}
	return r, nil
}

// appDigest reads the digest of an app, or finds it by name in a policy.
func appDigest(app, chain string) (cose.Digest, error) {
	if d, err := cose.ParseDigest(app); err == nil {
		return d, nil
	}
	if chain == "" {
		return cose.Digest{}, usagef("--app %q is no digest; to name it as the policy does, give --policy", app)
	}
	c, err := loadChain(chain)
	if err != nil {
		return cose.Digest{}, err
	}
	var found []cose.Digest
	for _, a := range c.Head().Apps {
		if a.Name == app {
			found = append(found, a.Digest)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return cose.Digest{}, fmt.Errorf("%s: lists no app %q", filepath.Base(chain), app)
	}
	return cose.Digest{}, fmt.Errorf("%s: lists %d apps %q: say which by its digest", filepath.Base(chain), len(found), app)
}
