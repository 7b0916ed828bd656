package main

import (
	"crypto"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/verifier"
	"github.com/concordat/concordat/verifier/receipt"
)

func newReceiptCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "receipt",
		Short: "Check COSE receipts, anybody's",
	}
	cmd.AddCommand(newReceiptVerifyCommand())
	return cmd
}

// receiptResult is what "receipt verify" prints; its JSON is stable.
type receiptResult struct {
	Verdict verifier.Verdict `json:"verdict"`
	Proof   string           `json:"proof"` // "inclusion" or "consistency"
	Issuer  string           `json:"issuer,omitempty"`
	Subject string           `json:"subject,omitempty"`
	Origin  string           `json:"origin,omitempty"` // signed by Concordat's receipts alone
	Size    uint64           `json:"size,omitempty"`   // the same
	Reason  string           `json:"reason,omitempty"`
}

const maxEntryFile = 64 << 20 // bytes of a log entry: other logs have larger ones than ours

func newReceiptVerifyCommand() *cobra.Command {
	var key, entry, oldRoot string
	cmd := &cobra.Command{
		Use:   "verify RECEIPT --key FILE (--entry FILE | --old-root HEX)",
		Short: "Check one COSE receipt (RFC 9942, RFC9162_SHA256)",
		Long: `Verify checks that a receipt proves an entry to be in a tree, or one tree to extend another, and that the
holder of the key signed that tree's root. The key is PEM (public key or certificate) or a COSE_Key. The entry
is the log entry's bytes as they are. RFC 9942 signs the root alone: who owns the key, and which tree of which
size it is, are not proven by a receipt; one of Concordat's says them under the signature, and they are printed.`,
		Example: "  concordat receipt verify receipt.cbor --key log.pem --entry statement.cbor",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			k, err := readFile(key, 64<<10)
			if err != nil {
				return err
			}
			pub, alg, err := cose.ParsePublicKey(k)
			if err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
			raw, err := readFile(args[0], receipt.MaxReceipt)
			if err != nil {
				return err
			}
			res := receiptResult{Proof: "inclusion"}
			if oldRoot == "" {
				var e []byte
				if e, err = readFile(entry, maxEntryFile); err != nil {
					return err
				}
				err = receipt.VerifyReceipt(e, raw, crypto.PublicKey(pub), receipt.RFC9942().ForAlg(alg))
			} else {
				res.Proof = "consistency"
				root, perr := cose.ParseDigest(oldRoot)
				if perr != nil {
					return usagef("--old-root: %w", perr)
				}
				err = receipt.VerifyConsistencyReceipt(root, raw, crypto.PublicKey(pub), receipt.RFC9942().ForAlg(alg))
			}
			switch {
			case err == nil:
				res.Verdict = verifier.Pass
				h, herr := receipt.ParseReceiptHeader(raw)
				if herr != nil {
					return herr
				}
				res.Issuer, res.Subject, res.Origin, res.Size = h.Issuer, h.Subject, h.Origin, h.Size
			case errors.Is(err, cose.ErrUnsupported):
				res.Verdict, res.Reason = verifier.Unsupported, err.Error()
			default:
				res.Verdict, res.Reason = verifier.Fail, err.Error()
			}
			if err := emit(cmd, res, func(w io.Writer) { writeReceipt(w, &res) }); err != nil {
				return err
			}
			return verdictStatus(cmd, res.Verdict)
		},
	}
	f := cmd.Flags()
	f.StringVar(&key, "key", "", "`file` with the public key of the log: PEM or COSE_Key")
	f.StringVar(&entry, "entry", "", "`file` with the log entry that the receipt is of")
	f.StringVar(&oldRoot, "old-root", "", "root in `hex` that the receipt's tree must extend")
	must(cmd.MarkFlagRequired("key"))
	cmd.MarkFlagsOneRequired("entry", "old-root")
	cmd.MarkFlagsMutuallyExclusive("entry", "old-root")
	return cmd
}

func writeReceipt(w io.Writer, r *receiptResult) {
	switch r.Verdict {
	case verifier.Pass:
		fmt.Fprintf(w, "VERIFIED: %s\n", map[string]string{
			"inclusion": "the entry is in a tree whose root the key signed", "consistency": "a tree whose root the key signed extends the old one",
		}[r.Proof])
	case verifier.Unsupported:
		fmt.Fprintf(w, "UNSUPPORTED: %s\n", r.Reason)
	default:
		fmt.Fprintf(w, "FAILED: %s\n", r.Reason)
	}
	for _, f := range []struct{ name, value string }{{"issuer", r.Issuer}, {"subject", r.Subject}, {"tree", r.Origin}} {
		if f.value != "" {
			fmt.Fprintf(w, "%-8s %q\n", f.name, f.value)
		}
	}
	if r.Size > 0 {
		fmt.Fprintf(w, "%-8s %d\n", "size", r.Size)
	}
}
