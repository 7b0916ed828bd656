package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/concordat/concordat/verifier"
)

func newVerifyCommand() *cobra.Command {
	var trust, at string
	var results []string
	cmd := &cobra.Command{
		Use:   "verify BUNDLE --trust FILE",
		Short: "Check a bundle offline: which code ran, on whose inputs, with what result",
		Long: `Verify checks everything in a bundle without any network: the policy and who approved it, the log and who
witnessed it, the enclave's evidence as of the time at which your own company's witness saw it, every step of
every run with all contributions and acks, and whether anything is missing or altered. It says what it does
not prove, too.

The trust file comes from your own node ("concordat node trust"), never from whoever sent the bundle: compare
its fingerprint. --at judges as of an earlier moment that the witness's times admit; it never widens them.
A simulated federation verifies only if the trust file says that one is expected.

--result takes what a node found out about an enclave of these runs (results/*.ear of its data directory):
the evidence is appraised again, at the node's time and with its challenge, and must give the same bytes.`,
		Example: `  concordat verify bundle.cbor --trust trust.json
  concordat verify bundle.cbor --trust trust.json --result 1-8f0c….ear`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if trust == "" {
				return hinted(exitIncomplete, errors.New("no trust file: nothing says which federation and whose witness to believe"),
					"make one at your own node with \"concordat node trust\", and give it with --trust")
			}
			var moment time.Time
			if at != "" {
				var err error
				if moment, err = parseAt(at); err != nil {
					return err
				}
			}
			b, err := readFile(trust, verifier.MaxTrust)
			if err != nil {
				return err
			}
			t, err := verifier.ParseTrust(b)
			if err != nil {
				return fmt.Errorf("%s: %w", trust, err)
			}
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			var kept [][]byte
			for _, file := range results {
				b, err := readFile(file, verifier.MaxEAR)
				if err != nil {
					return err
				}
				kept = append(kept, b)
			}
			r, err := verifier.VerifyBundle(cmd.Context(), f, t, moment, nil, kept...)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			if err := emit(cmd, r, func(w io.Writer) { io.WriteString(w, r.Text()) }); err != nil {
				return err
			}
			return verdictStatus(cmd, r.Verdict)
		},
	}
	f := cmd.Flags()
	f.StringVar(&trust, "trust", "", "trust `file`, made by your own node")
	f.StringArrayVar(&results, "result", nil, "attestation result that a node kept, to be appraised again: `file`; repeat for more")
	f.StringVar(&at, "at", "", "judge as of this `time`, as 2026-11-23T12:00:00Z, if the witness's times admit it")
	return cmd
}
