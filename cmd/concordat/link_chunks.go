package main

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/concordat/concordat/internal/daemon"
	"github.com/concordat/concordat/link"
)

// keptLine is what a link keeps of one run, as it is printed.
type keptLine struct {
	Federation string     `json:"federation"`
	Run        string     `json:"run"`
	State      string     `json:"state"` // "ended", "not ended", "no run"
	Owners     int        `json:"owners"`
	Chunks     int        `json:"chunks"`
	Bytes      int64      `json:"bytes"`
	Used       time.Time  `json:"used"`
	Ended      *time.Time `json:"ended,omitempty"`
	Due        *time.Time `json:"due,omitempty"` // absent: never
}

func keptLines(all []link.Kept) []keptLine {
	out := make([]keptLine, 0, len(all))
	for _, k := range all {
		l := keptLine{Federation: k.Federation.String(), Run: k.Run.String(), State: "no run", Owners: k.Owners, Chunks: k.Chunks, Bytes: k.Bytes, Used: k.Used.UTC()}
		switch {
		case !k.Ended.IsZero():
			ended := k.Ended.UTC()
			l.State, l.Ended = "ended", &ended
		case k.Logged:
			l.State = "not ended"
		}
		if due := k.Due.UTC(); !due.IsZero() {
			l.Due = &due
		}
		out = append(out, l)
	}
	return out
}

func newLinkChunksCommand() *cobra.Command {
	var flags linkFlags
	cmd := &cobra.Command{
		Use:   "chunks --data DIR",
		Short: "List what a link keeps of every run, and when it will be released",
		Long: `Chunks lists the runs of which the link with this data directory keeps chunks, the one that was used first first.
"No run" is what was stored under a place of its own: the initial arrays of a run, or of a request that no run came
of. What is due goes while the link runs, if nobody uses it before; a federation that is not hosted keeps all that
it has. The link must not run. Give it the policies and the configuration that the link gets.`,
		Example: `  concordat link chunks --data /var/lib/concordat
  concordat link chunks --config link.yaml --output json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := flags.offline(cmd)
			if err != nil {
				return err
			}
			all, err := link.Chunks(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			v := struct {
				Bytes int64      `json:"bytes"`
				Runs  []keptLine `json:"runs"`
			}{0, keptLines(all)}
			for _, l := range v.Runs {
				v.Bytes += l.Bytes
			}
			return emit(cmd, v, func(w io.Writer) {
				printKept(w, v.Runs)
				fmt.Fprintf(w, "%s in all\n", bytesText(uint64(v.Bytes)))
			})
		},
	}
	flags.add(cmd)
	return cmd
}

func printKept(w io.Writer, lines []keptLine) {
	const form = "2006-01-02 15:04"
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "run\tfederation\tstate\towners\tchunks\tsize\tused\tdue")
	for _, l := range lines {
		due := "-"
		if l.Due != nil {
			due = l.Due.Format(form)
		}
		fmt.Fprintf(t, "%.16s\t%.8s\t%s\t%d\t%d\t%s\t%s\t%s\n", l.Run, l.Federation, l.State, l.Owners, l.Chunks, bytesText(uint64(l.Bytes)), l.Used.Format(form), due)
	}
	t.Flush()
}

func newLinkReleaseCommand() *cobra.Command {
	var (
		flags linkFlags
		force bool
	)
	cmd := &cobra.Command{
		Use:   "release --data DIR RUN...",
		Short: "Remove the chunks of runs from a link, before they are due",
		Long: `Release removes the chunks of the runs from the link with this data directory. RUN is the first eight or more
digits of a run, as "concordat link chunks" prints it. The log, its statements and the lists under their roots stay:
bundles verify as before. The link must not run.

A run that has begun and not ended is refused: the enclave, or one that takes its place after a crash, reads what
nodes stored.`,
		Example: "  concordat link release --data /var/lib/concordat 3f9a12c0 77b04e15",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := flags.offline(cmd)
			if err != nil {
				return err
			}
			freed, err := link.ReleaseChunks(cmd.Context(), cfg, args, force)
			if errors.Is(err, link.ErrRunning) {
				return hinted(exitFail, err, "--force releases them all the same: the run then fails if it goes on")
			}
			if err != nil {
				return err
			}
			v := struct {
				Released []keptLine `json:"released"`
			}{keptLines(freed)}
			return emit(cmd, v, func(w io.Writer) {
				for _, l := range v.Released {
					fmt.Fprintf(w, "released %s: %d chunks, %s\n", l.Run, l.Chunks, bytesText(uint64(l.Bytes)))
				}
			})
		},
	}
	flags.add(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "also of runs that have not ended")
	return cmd
}

// offline is config for a command that works on a link's data itself.
func (flags *linkFlags) offline(cmd *cobra.Command) (link.Config, error) {
	c, err := flags.config(cmd)
	if err == nil {
		c.Logger, err = daemon.Logger(cmd.ErrOrStderr(), c.Log)
	}
	return c, err
}
