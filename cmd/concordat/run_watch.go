package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"github.com/concordat/concordat/verifier/receipt"
)

// eventLine is an event as --output json prints it, one a line.
type eventLine struct {
	Event    string             `json:"event"`
	Run      string             `json:"run,omitempty"`
	Request  string             `json:"request,omitempty"`
	Seq      uint64             `json:"seq,omitempty"`
	Round    uint64             `json:"round,omitempty"`
	Opens    string             `json:"opens,omitempty"`
	Inputs   uint64             `json:"inputs,omitempty"`
	Excluded uint64             `json:"excluded,omitempty"`
	Metrics  map[string]float64 `json:"metrics,omitempty"`
	Moved    uint64             `json:"bytes_moved,omitempty"`
	Saved    uint64             `json:"bytes_saved,omitempty"`
	Reason   string             `json:"reason,omitempty"`
	Outcome  string             `json:"outcome,omitempty"`
}

func lineOf(e *concordatv1.WatchRunsResponse) eventLine {
	return eventLine{e.GetEvent(), hex.EncodeToString(e.GetRun()), hex.EncodeToString(e.GetRequest()), e.GetSeq(), e.GetRound(), e.GetOpens(),
		e.GetInputs(), e.GetExcluded(), e.GetMetrics(), e.GetBytesMoved(), e.GetBytesSaved(), e.GetReason(), e.GetOutcome()}
}

// events hands every event to f until the stream ends or f is done with it.
func events(ctx context.Context, c concordatv1.ControlClient, q *concordatv1.WatchRunsRequest, f func(*concordatv1.WatchRunsResponse) (done bool)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.WatchRuns(ctx, q)
	if err != nil {
		return said(err)
	}
	for {
		e, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return said(err)
		}
		if f(e) {
			return nil
		}
	}
}

// watchRun follows the run of a request to its end, or only as far as it came. It
// fails if the run did.
func watchRun(cmd *cobra.Command, c concordatv1.ControlClient, request []byte, follow bool) error {
	asJSON := false
	if out, _ := cmd.Flags().GetString("output"); out == outputJSON {
		asJSON = true
	}
	w, p := cmd.OutOrStdout(), progress{State: "requested"}
	var failed error
	err := events(cmd.Context(), c, &concordatv1.WatchRunsRequest{Request: request, Follow: follow}, func(e *concordatv1.WatchRunsResponse) bool {
		line := p.follow(e)
		switch {
		case asJSON:
			failed = json.NewEncoder(w).Encode(lineOf(e))
		case line != nil:
			_, failed = fmt.Fprintln(w, line)
		case e.GetEvent() == "started":
			_, failed = fmt.Fprintf(w, "run %s started\n", p.Run)
		}
		return failed != nil || p.ended()
	})
	if err = errors.Join(err, failed); err != nil || !p.ended() {
		return err
	}
	if p.State != receipt.Completed {
		return fmt.Errorf("run %s: %s", p.State, p.Reason)
	}
	if !asJSON {
		fmt.Fprintf(w, "completed: %d rounds\nnext: \"concordat run bundle %s -o bundle.cbor\", \"concordat run model %s -o model.npz\"\n", p.Round, p.Run[:8], p.Run[:8])
	}
	return nil
}

func newRunWatchCommand() *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use:   "watch RUN",
		Short: "Follow a run, a line a round",
		Long: `Watch prints the rounds of a run and follows it to its end; it fails if the run does. RUN is the run or its
request, or the first digits of either. With --output json every event is a line.`,
		Example: "  concordat run watch 3f9a12c0 --output json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withControl(cmd, func(c concordatv1.ControlClient) error {
				p, err := findRun(cmd.Context(), c, args[0])
				if err != nil {
					return err
				}
				request, err := hex.DecodeString(p.Request)
				if err != nil || len(request) == 0 {
					return fmt.Errorf("run %s was requested before the node started, or at another node: it is in \"concordat run list\" only", args[0])
				}
				return watchRun(cmd, c, request, follow)
			})
		},
	}
	cmd.Flags().BoolVar(&follow, "follow", true, "go on to the run's end")
	return cmd
}

// listRuns returns what the node knows of runs, in the order of their requests.
func listRuns(ctx context.Context, c concordatv1.ControlClient) ([]*progress, error) {
	var all []*progress
	err := events(ctx, c, &concordatv1.WatchRunsRequest{}, func(e *concordatv1.WatchRunsResponse) bool {
		run, request := hex.EncodeToString(e.GetRun()), hex.EncodeToString(e.GetRequest())
		if run == "" && request == "" {
			return false // about no run
		}
		i := slices.IndexFunc(all, func(p *progress) bool {
			return run != "" && p.Run == run || request != "" && p.Request == request
		})
		if i < 0 {
			i = len(all)
			all = append(all, &progress{State: "requested"})
		}
		all[i].follow(e)
		return false
	})
	return all, err
}

// findRun finds a run by the first digits of it or of its request.
func findRun(ctx context.Context, c concordatv1.ControlClient, prefix string) (*progress, error) {
	all, err := listRuns(ctx, c)
	if err != nil {
		return nil, err
	}
	prefix = strings.ToLower(prefix)
	all = slices.DeleteFunc(all, func(p *progress) bool {
		return prefix == "" || !strings.HasPrefix(p.Run, prefix) && !strings.HasPrefix(p.Request, prefix)
	})
	switch len(all) {
	case 1:
		return all[0], nil
	case 0:
		return nil, hinted(exitFail, fmt.Errorf("the node knows no run %s", prefix), "\"concordat run list\" shows which it knows")
	}
	return nil, usagef("%s is the start of %d runs: give more digits", prefix, len(all))
}

func newRunListCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the runs that the node has seen since it started",
		Example: "  concordat run list --output json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withControl(cmd, func(c concordatv1.ControlClient) error {
				all, err := listRuns(cmd.Context(), c)
				if err != nil {
					return err
				}
				type run struct {
					Run     string `json:"run,omitempty"`
					Request string `json:"request,omitempty"`
					State   string `json:"state"`
					Rounds  uint64 `json:"rounds"`
					Steps   uint64 `json:"steps"`
					Moved   uint64 `json:"bytes_moved"`
					Saved   uint64 `json:"bytes_saved"`
					Reason  string `json:"reason,omitempty"`
				}
				v := struct {
					Runs []run `json:"runs"`
				}{[]run{}}
				for _, p := range all {
					v.Runs = append(v.Runs, run{p.Run, p.Request, p.State, p.Round, p.Steps, p.Moved, p.Saved, p.Reason})
				}
				return emit(cmd, v, func(w io.Writer) {
					t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
					fmt.Fprintln(t, "RUN\tREQUEST\tSTATE\tROUNDS\tMOVED\tSAVED\tREASON")
					for _, r := range v.Runs {
						fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\t%s\t%s\n", short(r.Run), short(r.Request), r.State, r.Rounds, bytesText(r.Moved), bytesText(r.Saved), r.Reason)
					}
					t.Flush()
				})
			})
		},
	}
}

// short is what tables show of a digest in hex.
func short(hex string) string {
	if hex == "" {
		return "-"
	}
	return hex[:min(8, len(hex))]
}
