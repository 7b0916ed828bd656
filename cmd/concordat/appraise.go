package main

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier"
	"github.com/concordat/concordat/verifier/crosscheck"
)

// appraised is what the command prints; its JSON fields are stable.
type appraised struct {
	Verdict   verifier.Verdict `json:"verdict"`
	Authentic bool             `json:"authentic"` // of signatures and chains alone
	Platform  string           `json:"platform"`
	Checks    []verifier.Check `json:"checks"`

	at     time.Time
	policy bool
}

type appraiseFlags struct {
	platform, collateral, policy, nonce, at string
	certs, crls, ocsp, logs, sets           []string
}

// appraisable says what the command needs to know of a platform.
type appraisable struct {
	kind  attestation.Kind
	limit int64 // bytes of the evidence file
	nonce int   // bytes that the evidence holds for it
}

// appraisables are what --platform takes. A GPU report is text: twice as long, and lines.
var appraisables = map[string]appraisable{
	"snp":    {attestation.KindSNP, attestation.MaxCPUItem, 64},
	"tdx":    {attestation.KindTDX, attestation.MaxCPUItem, 64},
	"tpm":    {attestation.KindTPM, 256 << 10, 64},
	"nvidia": {attestation.KindGPU, 3 * attestation.MaxGPUItem, 32},
}

func newAppraiseCommand() *cobra.Command {
	var f appraiseFlags
	cmd := &cobra.Command{
		Use:   "appraise EVIDENCE",
		Short: "Judge one attestation report or quote, offline",
		Long: `Appraise judges one piece of evidence from the hardware: an AMD SEV-SNP report or an Intel TDX quote as the
hardware gave it, an NVIDIA report in hex or base64, or what a machine on Azure sends: the quote of its vTPM
with the CPU's report in one JSON, as Confidential Containers' guest components write it. It uses no network: certificates, revocation lists and
collateral are what you give it; the vendors' roots are compiled in.

Without --policy it demands genuine hardware, no debug, VMPL 0, and nothing expired or revoked as far as you
gave lists; any measurement passes. With --policy, the signed chain of a federation, it demands what the
members agreed on. Without --nonce nothing is said about freshness: the evidence may be a recording.

For AMD evidence, --cert is the chip's certificate (VCEK or VLEK) and, where AMD's compiled-in chain does not
do, ASK and ARK; --crl is AMD's list. A TDX quote carries its certificates and wants --collateral, in the JSON
form of Intel's verification tools. For NVIDIA, --cert is the GPU's chain and --ocsp are responses to it.
--endorsements takes all of these, for any evidence, as "concordat endorsements fetch" writes them.

An event log is what a TDX guest or a vTPM says was measured, as in /sys/kernel/security/tpm0/binary_bios_measurements
or /sys/firmware/acpi/tables/data/CCEL. It must replay to the quoted registers.

Exit status: 0 pass, 1 fail, 2 usage, 3 incomplete (something needed is missing), 4 unsupported.`,
		Example: `  concordat appraise --platform snp report.bin --cert vcek.der --nonce 5af0…
  concordat appraise --platform tdx quote.bin --collateral collateral.json --policy federation.policy
  concordat appraise --platform snp report.bin --endorsements set.cbor --policy federation.policy
  concordat appraise --platform tpm evidence.json --nonce 6368616c6c656e6765
  concordat appraise --platform nvidia report.txt --cert chain.pem --output json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			v, err := f.appraise(cmd, args[0])
			if err != nil {
				return err
			}
			if err := emit(cmd, v, v.print); err != nil {
				return err
			}
			return verdictStatus(cmd, v.Verdict)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&f.platform, "platform", "", "what made the evidence: snp, tdx, tpm or nvidia (required)")
	fs.StringArrayVar(&f.certs, "cert", nil, "`file` with one or more certificates, PEM or DER (repeatable)")
	fs.StringArrayVar(&f.crls, "crl", nil, "`file` with a revocation list of AMD, PEM or DER (repeatable)")
	fs.StringArrayVar(&f.ocsp, "ocsp", nil, "`file` with an OCSP response of NVIDIA, DER (repeatable)")
	fs.StringArrayVar(&f.logs, "event-log", nil, "`file` with a TCG event log of a vTPM or TDX guest (repeatable)")
	fs.StringVar(&f.collateral, "collateral", "", "`file` with TCB info, QE identity and their chains, JSON")
	fs.StringArrayVar(&f.sets, "endorsements", nil, "`file` with a set of the vendors' documents, of \"concordat endorsements\" (repeatable)")
	fs.StringVar(&f.policy, "policy", "", "`file` with a federation's signed policy chain")
	fs.StringVar(&f.nonce, "nonce", "", "what the evidence must hold, in `hex`: for a CPU up to 64 bytes and then zeros, for a GPU 32 bytes, for a vTPM the challenge itself")
	fs.StringVar(&f.at, "at", "", "judge as of this `time`, as 2026-11-23 or 2026-11-23T12:00:00Z (default now)")
	if err := cmd.MarkFlagRequired("platform"); err != nil {
		panic("internal error: " + err.Error())
	}
	return cmd
}

// appraise judges a file. Its error is about the command line, or about a policy;
// what is wrong with evidence and endorsements is in the verdict.
func (f *appraiseFlags) appraise(cmd *cobra.Command, file string) (*appraised, error) {
	on, ok := appraisables[f.platform]
	switch {
	case !ok:
		return nil, usagef("--platform is %q, want snp, tdx, tpm or nvidia", f.platform)
	case len(f.logs) > 0 && f.platform != "tpm" && f.platform != "tdx":
		return nil, usagef("--event-log is for vTPMs and TDX quotes")
	case len(f.crls) > 0 && f.platform != "snp" && f.platform != "tpm":
		return nil, usagef("--crl is for AMD's revocation lists; Intel's are in --collateral")
	case len(f.ocsp) > 0 && f.platform != "nvidia":
		return nil, usagef("--ocsp is for NVIDIA evidence")
	case f.collateral != "" && f.platform != "tdx":
		return nil, usagef("--collateral is for TDX quotes")
	}
	at, err := parseAt(f.at)
	if err != nil {
		return nil, err
	}
	nonce, err := parseNonce(f.nonce, cmd.Flags().Changed("nonce"), on)
	if err != nil {
		return nil, err
	}
	var p *policy.Policy
	if f.policy != "" {
		c, err := loadChain(f.policy)
		if err != nil {
			return nil, err
		}
		p = c.Head()
	}
	raw, err := readFile(file, on.limit)
	if err != nil {
		return nil, usage(err)
	}
	if f.platform == "nvidia" {
		raw = decodeText(raw)
	}
	if f.platform == "tpm" {
		return f.appraiseVTPM(raw, p, nonce, at)
	}
	given := new(endorsementFiles)
	if err := given.read(f); err != nil {
		return nil, err
	}
	r, err := verifier.AppraiseItem(on.kind, raw, given.set, p, nonce, at)
	if err != nil {
		return nil, err
	}
	v := &appraised{Verdict: r.Verdict(), Authentic: r.Authentic(), Platform: f.platform, Checks: append(given.checks, r.Checks()...), at: at, policy: p != nil}
	if given.bad {
		v.Verdict = verifier.Fail
	}
	v.crosscheck(on.kind, raw, given.set, p, nonce, r)
	return v, nil
}

// crosscheck asks the vendor-independent second library, where there is one: a
// pass needs both.
func (v *appraised) crosscheck(kind attestation.Kind, raw []byte, ends *attestation.Endorsements, p *policy.Policy, nonce []byte, ours *verifier.Result) {
	ask := crosscheck.SNP
	switch kind {
	case attestation.KindSNP:
	case attestation.KindTDX:
		ask = crosscheck.TDX
	default:
		return
	}
	v.second(func() crosscheck.Outcome { return ask(raw, ends, nil, p, nonce, v.at) }, ours)
}

// second asks another library about evidence that passed so far.
func (v *appraised) second(ask func() crosscheck.Outcome, ours *verifier.Result) {
	if v.Verdict != verifier.Pass && v.Verdict != verifier.PassSimulated {
		v.Checks = append(v.Checks, verifier.Check{Name: "crosscheck", Verdict: verifier.NotChecked, Advice: "a second library is asked only about evidence that passes"})
		return
	}
	o := ask()
	v.Checks = append(v.Checks, o.Check())
	if o.Agrees(ours) != nil {
		v.Verdict = verifier.Fail
	}
}

// print writes the verdict for people, then one check a line.
func (v *appraised) print(w io.Writer) {
	words := map[verifier.Verdict]string{verifier.Pass: "VERIFIED", verifier.PassSimulated: "VERIFIED-SIMULATED", verifier.Incomplete: "INCOMPLETE", verifier.Unsupported: "UNSUPPORTED"}
	word, ok := words[v.Verdict]
	if !ok {
		word = "FAILED"
	}
	authentic := "not shown to be genuine"
	if v.Authentic {
		authentic = "signatures and chain are good"
	}
	fmt.Fprintf(w, "%s  %s evidence, judged as of %s; %s\n\n", word, v.Platform, v.at.UTC().Format(time.RFC3339), authentic)
	width := 0
	for _, c := range v.Checks {
		width = max(width, len(c.Name))
	}
	line := func(verdict, name, detail string) {
		fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("%-12s %-*s  %s", verdict, width, name, detail), " "))
	}
	for _, c := range v.Checks {
		detail, advice := c.Got, c.Advice
		if c.Expected != "" {
			detail = "want " + c.Expected + ", got " + c.Got
		}
		if detail == "" {
			detail, advice = advice, ""
		}
		line(c.Verdict.String(), c.Name, detail)
		if advice != "" {
			line("", "", "→ "+advice)
		}
	}
	if !v.policy && v.Verdict == verifier.Pass {
		fmt.Fprint(w, "\nWithout --policy, any measurement passes.\n")
	}
}

// verdictStatus ends a command whose verdict is printed: the exit status follows
// it, and nothing more is printed.
func verdictStatus(cmd *cobra.Command, v verifier.Verdict) error {
	code := exitFail
	switch v {
	case verifier.Pass, verifier.PassSimulated:
		return nil
	case verifier.Incomplete:
		code = exitIncomplete
	case verifier.Unsupported:
		code = exitUnsupported
	}
	cmd.SetOut(io.Discard)
	cmd.SetErr(io.Discard)
	return &exitError{code: code, err: errors.New("verdict: " + v.String())}
}

func parseAt(s string) (time.Time, error) {
	if s == "" {
		return time.Now(), nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil && !t.IsZero() {
			return t, nil
		}
	}
	return time.Time{}, usagef("--at is %q, want a time as 2026-11-23 or 2026-11-23T12:00:00Z", s)
}

// parseNonce returns what the evidence must hold, in full length, or nil if
// nothing was asked. Attesters that take a shorter nonce fill up with zeros.
func parseNonce(s string, given bool, on appraisable) ([]byte, error) {
	if !given {
		return nil, nil
	}
	b, err := hex.DecodeString(s)
	if err != nil || len(b) == 0 {
		return nil, usagef("--nonce is %.140q, want hex digits", s)
	}
	if len(b) > on.nonce || on.kind == attestation.KindGPU && len(b) != on.nonce {
		return nil, usagef("--nonce is of %d bytes, this evidence holds %d", len(b), on.nonce)
	}
	if on.kind == attestation.KindTPM {
		return b, nil
	}
	return append(b, make([]byte, on.nonce-len(b))...), nil
}

// decodeText returns the bytes of a report in hex or base64. What is neither is
// judged as it is.
func decodeText(b []byte) []byte {
	s := strings.Join(strings.Fields(string(b)), "")
	if raw, err := hex.DecodeString(s); err == nil {
		return raw
	}
	if raw, err := base64.StdEncoding.DecodeString(s); err == nil {
		return raw
	}
	return b
}
