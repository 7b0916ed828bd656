package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/sim"
	"github.com/concordat/concordat/policy"
)

// makeMachine writes a machine file: of fresh vendors, or, with --from, of the
// vendors and the chip of another.
func makeMachine(args []string) error {
	fs := flag.NewFlagSet("concordat-enclave-sim machine", flag.ContinueOnError)
	c := sim.Config{Faults: map[string]string{}}
	out := fs.String("out", "", "machine file to write")
	from := fs.String("from", "", "machine file whose vendors and chip are taken; its faults are not")
	fs.StringVar(&c.Platform, "platform", sim.PlatformSNP, `"snp" or "tdx"`)
	fs.StringVar(&c.Product, "product", "", `of SNP: "Milan", "Genoa" (default) or "Turin"`)
	fs.StringVar(&c.Chip, "chip", "chip-1", "name of the chip: another name is another chip of the same vendor")
	fs.IntVar(&c.GPUs, "gpus", 0, "GPUs beside the CPU")
	fs.Func("fault", `what is wrong with the machine, as NAME or NAME=VALUE; repeat for more`, func(s string) error {
		name, value, _ := strings.Cut(s, "=")
		c.Faults[name] = value
		return nil
	})
	if err := parse(fs, args); err != nil {
		return err
	}
	if *out == "" {
		return usageError{errors.New("machine: no --out")}
	}
	if *from == "" {
		var err error
		if c.Vendor, err = sim.NewVendor(); err != nil {
			return err
		}
	} else {
		base, err := sim.ReadConfig(*from)
		if err != nil {
			return err
		}
		given := map[string]bool{}
		fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
		c.Vendor = base.Vendor
		for name, keep := range map[string]func(){
			"platform": func() { c.Platform = base.Platform }, "product": func() { c.Product = base.Product },
			"chip": func() { c.Chip = base.Chip }, "gpus": func() { c.GPUs = base.GPUs },
		} {
			if !given[name] {
				keep()
			}
		}
		c.Measurement, c.HostData = base.Measurement, base.HostData
	}
	if _, err := sim.New(c, time.Now()); err != nil { // what is wrong with it is said now
		return usageError{err}
	}
	return sim.WriteConfig(*out, c)
}

// describe prints what a policy must hold to accept a machine.
func describe(args []string, w io.Writer) error {
	fs := flag.NewFlagSet("concordat-enclave-sim describe", flag.ContinueOnError)
	file := fs.String("machine", "", "machine file")
	if err := parse(fs, args); err != nil {
		return err
	}
	if *file == "" {
		return usageError{errors.New("describe: no --machine")}
	}
	c, err := sim.ReadConfig(*file)
	if err != nil {
		return err
	}
	m, err := sim.New(c, time.Now())
	if err != nil {
		return err
	}
	d, err := m.Describe()
	if err != nil {
		return err
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(description{d.Roots, d.Platforms, append([]string{}, slices.Sorted(maps.Keys(c.Faults))...)})
}

// description is what "describe" prints. Byte strings are in base64.
type description struct {
	Roots     []attestation.Digest `json:"roots"`     // for policy.Policy.SimulatedRoots
	Platforms policy.Platforms     `json:"platforms"` // of the machine without its faults
	Faults    []string             `json:"faults"`    // what is wrong with it
}

func parse(fs *flag.FlagSet, args []string) error {
	if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
		return err
	} else if err != nil {
		return usageError{err}
	}
	if fs.NArg() > 0 {
		return usageError{fmt.Errorf("unexpected argument %q", fs.Arg(0))}
	}
	return nil
}
