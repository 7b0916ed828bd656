package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/link/endorse"
	"github.com/concordat/concordat/verifier"
)

func newEndorsementsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "endorsements",
		Short: "Fetch, show and pack the vendors' documents for checking evidence",
		Long: `Evidence is checked with documents of the hardware's vendors: certificates, revocation lists, collateral,
reference manifests. No verifier fetches them. At a site without a network they come in a set file: fetch it
where there is one, carry it over, look at it with show, and merge several with pack. Whoever fetched or carried
them is not trusted: every document is checked against its vendor's root when it is used.`,
	}
	cmd.AddCommand(newEndorsementsFetchCommand(), newEndorsementsShowCommand(), newEndorsementsPackCommand())
	return cmd
}

type fetchFlags struct {
	platform, out, cache  string
	certs, have           []string
	offline, noCache      bool
	amd, intel, intelRoot string
	nvidiaOCSP, nvidiaRIM string
	fresh                 time.Duration
}

// fetched is what the command prints; its JSON fields are stable.
type fetched struct {
	Verdict verifier.Verdict `json:"verdict"` // incomplete if something is missing
	Out     string           `json:"out"`
	Count   int              `json:"count"` // of documents
	Parts   []documentLine   `json:"parts"` // a document has one or more
	Missing []string         `json:"missing"`
}

func newEndorsementsFetchCommand() *cobra.Command {
	var f fetchFlags
	cmd := &cobra.Command{
		Use:   "fetch EVIDENCE",
		Short: "Ask AMD, Intel and NVIDIA for the documents that a piece of evidence needs",
		Long: `Fetch reads a report, a quote or an evidence envelope, asks the vendors' services for what is needed to check
it, and writes a set file. EVIDENCE is an envelope unless --platform says what else it is. The chain of an
NVIDIA GPU comes from the machine that has it: give it with --cert, or in a set with --have.

What never changes (certificates of chips, chains) is kept in the cache and asked for once; AMD's service is
asked no more than once in ten seconds. Services that answer 429 or 503 are asked again when they say. Proxies
are those of HTTPS_PROXY and NO_PROXY. The VLEK of a cloud provider is not to be had: the guest has it.

Exit status: 0 all is there, 1 nothing could be had, 2 usage, 3 something is missing; the set is written all the same.`,
		Example: `  concordat endorsements fetch report.bin --platform snp --out set.cbor
  concordat endorsements fetch quote.bin --platform tdx --intel https://pccs.example:8081 --out set.cbor
  concordat endorsements fetch gpu.txt --platform nvidia --cert chain.pem --out set.cbor`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			v, err := f.fetch(cmd, args[0])
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
	fs.StringVar(&f.platform, "platform", "", "what EVIDENCE is, if no envelope: snp, tdx or nvidia")
	fs.StringVar(&f.out, "out", "", "`file` to write, which must not exist (required)")
	fs.StringArrayVar(&f.certs, "cert", nil, "`file` with the chain of an NVIDIA GPU (repeatable)")
	fs.StringArrayVar(&f.have, "have", nil, "set `file` to start from, which --out then holds too (repeatable)")
	fs.StringVar(&f.cache, "cache", "", "`directory` of the cache (default concordat/endorsements in the user's cache directory)")
	fs.BoolVar(&f.noCache, "no-cache", false, "keep nothing, and use nothing that was kept")
	fs.BoolVar(&f.offline, "offline", false, "ask nobody: take what the cache has")
	fs.DurationVar(&f.fresh, "fresh", time.Hour, "how old a kept revocation list, collateral or status may be")
	fs.StringVar(&f.amd, "amd", "", "`URL` of a mirror of AMD's key distribution service")
	fs.StringVar(&f.intel, "intel", "", "`URL` of a PCCS instead of Intel's service")
	fs.StringVar(&f.intelRoot, "intel-root-crl", "", "`URL` of the list of Intel's root")
	fs.StringVar(&f.nvidiaOCSP, "nvidia-ocsp", "", "`URL` of another OCSP responder for NVIDIA's certificates")
	fs.StringVar(&f.nvidiaRIM, "nvidia-rim", "", "`URL` of a mirror of NVIDIA's service of manifests")
	cobra.CheckErr(cmd.MarkFlagRequired("out"))
	return cmd
}

func (f *fetchFlags) fetch(cmd *cobra.Command, path string) (*fetched, error) {
	items, have, err := f.read(path)
	if err != nil {
		return nil, err
	}
	cfg := endorse.Config{Fresh: f.fresh, Offline: f.offline}
	if cfg.Cache, err = f.openCache(); err != nil {
		return nil, err
	}
	if _, err := os.Lstat(f.out); err == nil {
		return nil, hinted(exitFail, fmt.Errorf("%s exists", f.out), "move it away, or write to another file with --out")
	}
	v := endorse.NewVendors(cfg, endorse.Addresses{AMD: slashless(f.amd), Intel: slashless(f.intel), IntelRoot: f.intelRoot, NVIDIAOCSP: slashless(f.nvidiaOCSP), NVIDIARIM: slashless(f.nvidiaRIM)})
	set, missing := v.Fetch(cmd.Context(), items, have)
	if missing != nil && (set == nil || set.Len() == have.Len()) {
		return nil, fmt.Errorf("nothing was fetched: %w", missing)
	}
	if err := createFile(f.out, set.Encode()); err != nil {
		return nil, err
	}
	out := &fetched{Verdict: verifier.Pass, Out: f.out, Count: set.Len(), Parts: describeAll(set), Missing: []string{}}
	if missing != nil {
		out.Verdict = verifier.Incomplete
		out.Missing = strings.Split(missing.Error(), "\n")
	}
	return out, nil
}

func slashless(s string) string { return strings.TrimSuffix(s, "/") }

func (f *fetchFlags) openCache() (*endorse.Cache, error) {
	switch {
	case f.noCache && (f.offline || f.cache != ""):
		return nil, usagef("--no-cache goes with neither --offline nor --cache")
	case f.noCache:
		return nil, nil
	}
	dir := f.cache
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return nil, usagef("no directory for the cache: %w; give --cache or --no-cache", err)
		}
		dir = filepath.Join(base, "concordat", "endorsements")
	}
	return endorse.OpenCache(dir)
}

// read returns the items of the evidence and the documents that came with it.
func (f *fetchFlags) read(path string) ([]attestation.Item, *attestation.Endorsements, error) {
	have := new(attestation.Endorsements)
	for _, name := range f.have {
		if err := addSet(have, name); err != nil {
			return nil, nil, err
		}
	}
	if len(f.certs) > 0 {
		chain := new(endorsementFiles)
		if err := chain.read(&appraiseFlags{platform: "nvidia", certs: f.certs}); err != nil {
			return nil, nil, err
		}
		if chain.bad {
			return nil, nil, usagef("--cert: %s", chain.checks[0].Got)
		}
		for _, e := range chain.set.All() {
			if _, err := have.Add(e); err != nil {
				return nil, nil, err
			}
		}
	}
	switch f.platform {
	case "":
		b, err := readFile(path, attestation.MaxEvidence)
		if err != nil {
			return nil, nil, usage(err)
		}
		e, err := attestation.ParseEvidence(b)
		if err != nil {
			return nil, nil, hinted(exitUsage, fmt.Errorf("%s: %w", path, err), "say with --platform what it is, if no envelope")
		}
		return e.Items, have, nil
	case "snp", "tdx", "nvidia":
		on := appraisables[f.platform]
		b, err := readFile(path, on.limit)
		if err != nil {
			return nil, nil, usage(err)
		}
		if f.platform == "nvidia" {
			b = decodeText(b)
		}
		return []attestation.Item{{Kind: on.kind, Raw: b}}, have, nil
	}
	return nil, nil, usagef("--platform is %q, want snp, tdx or nvidia", f.platform)
}

func (v *fetched) print(w io.Writer) {
	printDocuments(w, v.Parts)
	for _, m := range v.Missing {
		fmt.Fprintf(w, "missing: %s\n", m)
	}
	fmt.Fprintf(w, "%d documents in %s\n", v.Count, v.Out)
}

// addSet adds the documents of a set file.
func addSet(set *attestation.Endorsements, path string) error {
	b, err := readFile(path, attestation.MaxEndorsementBytes+64*attestation.MaxEndorsements)
	if err != nil {
		return usage(err)
	}
	more, err := attestation.ParseEndorsements(b)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for _, e := range more.All() {
		if _, err := set.Add(e); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

func newEndorsementsPackCommand() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:     "pack SET...",
		Short:   "Merge sets into one, each document once",
		Example: "  concordat endorsements pack snp.cbor gpu.cbor --out all.cbor",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			set := new(attestation.Endorsements)
			for _, name := range args {
				if err := addSet(set, name); err != nil {
					return err
				}
			}
			if err := createFile(out, set.Encode()); err != nil {
				return err
			}
			v := &fetched{Verdict: verifier.Pass, Out: out, Count: set.Len(), Parts: describeAll(set), Missing: []string{}}
			return emit(cmd, v, v.print)
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "`file` to write, which must not exist (required)")
	cobra.CheckErr(cmd.MarkFlagRequired("out"))
	return cmd
}
