package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
)

// relayTarget is of the link's memory at most while it relays relayBytes, in MB.
const (
	relayTarget = 128
	relayBytes  = 10 << 30
)

func newBenchRelayCommand() *cobra.Command {
	var size, bin string
	cmd := &cobra.Command{
		Use:   "relay",
		Short: "Measure a link's memory while it relays any number of bytes",
		Long: `Relay has three nodes seal contributions that have so many bytes in all and upload them to a link, a process
of its own with its store on disk, and then reads and aggregates them once, as an enclave does. It prints how
much memory the link had at most, and what processors spent on each byte. The disk needs room for all of it, in the directory of temporary files
(TMPDIR); this process holds chunks and no contribution.`,
		Example: "  concordat bench relay --size 10GiB",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			n, err := parseSize(size)
			if err != nil {
				return usagef("--size %q: %w", size, err)
			}
			return withPassage(cmd, bin, func(p *passage, say func(string, ...any)) ([]benchValue, error) {
				m, err := p.relay(n, say)
				return []benchValue{m}, err
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&size, "size", "1GiB", "`size` of all contributions together, such as 512MiB or 10GiB")
	f.StringVar(&bin, "bin", "", "directory of concordat-enclave-sim and breast-cancer (default where this program is)")
	return cmd
}

// withDemo measures something with a demo whose members have agreed on a policy, for a link
// and nothing else, and prints it.
func withDemo(cmd *cobra.Command, bin string, measure func(d *demo, say func(string, ...any)) ([]benchValue, error)) error {
	dir, err := os.MkdirTemp("", "concordat-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	d := &demo{nodes: minDemoNodes, rounds: minDemoRounds, platform: "snp", dir: dir, out: newTranscript(nil), ctx: cmd.Context()}
	if err := d.places(bin); err != nil {
		return err
	}
	if err := d.found(); err != nil {
		return err
	}
	values, err := measure(d, func(format string, a ...any) { fmt.Fprintf(cmd.ErrOrStderr(), format+"\n", a...) })
	if err != nil {
		return err
	}
	return emit(cmd, values, func(w io.Writer) { printBenchTable(w, values) })
}

// withPassage is withDemo for what needs its link.
func withPassage(cmd *cobra.Command, bin string, measure func(p *passage, say func(string, ...any)) ([]benchValue, error)) error {
	return withDemo(cmd, bin, func(d *demo, say func(string, ...any)) ([]benchValue, error) {
		p, err := startPassage(cmd.Context(), d)
		if err != nil {
			return nil, err
		}
		values, err := measure(p, say)
		if err != nil {
			err = errors.Join(err, context.Cause(p.ctx))
		}
		return values, errors.Join(err, p.close())
	})
}

// relay takes that many bytes through the link, in and out.
func (p *passage) relay(size int64, say func(string, ...any)) (benchValue, error) {
	elements := int(max(1, size/(4*passageNodes)))
	end := tell(p.ctx, say, "relayed, in and out", 2*size, func() int64 { return p.sealed.Load() + p.meant.Load() })
	err := p.round(passageNodes, elements)
	end()
	m := p.linkMemory()
	m.Unit += p.spent.String()
	return m, err
}

// linkMemory is the line of the link's memory, after all that it has relayed so far.
func (p *passage) linkMemory() benchValue {
	const name, better = "relay-memory", "lower"
	in := p.sealed.Load()
	unit := fmt.Sprintf("MB of the link's memory at most, while it took in %d MiB and gave out as much or more", in>>20)
	_, peak, err := peakMemory(p.link.pid())
	if err != nil {
		return notMeasured(name, unit, better, relayTarget, err.Error())
	}
	m := newBenchValue(name, unit, better, relayTarget, []float64{float64(peak) / 1e6})
	if in < relayBytes-4*passageNodes { // what a division by three leaves
		m.unjudged("the target is about 10 GiB: concordat bench relay --size 10GiB")
	}
	return m
}
