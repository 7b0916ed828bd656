package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/concordat/concordat/attestation/measure"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/verifier"
)

// maxBootFile bounds a kernel or an initrd, which are only hashed.
const maxBootFile = 4 << 30

type measureFlags struct {
	platform, firmware                    string
	kernel, initrd, cmdline               string
	vcpus                                 int
	vcpuType, vmm, order, compare         string
	signature                             uint32
	features                              uint64
	hasCmdline, hasSignature, hasFeatures bool
}

// measured is what the command prints; its JSON fields are stable.
type measured struct {
	Verdict  verifier.Verdict `json:"verdict"` // fail if --compare differs
	Platform string           `json:"platform"`
	Field    string           `json:"field"` // of the policy
	Digest   measure.Digest   `json:"digest"`
	Parts    []measure.Part   `json:"parts"`
	Inputs   []measureInput   `json:"inputs"`
	Compared *compared        `json:"compared,omitempty"`
}

// measureInput is a file that went in, for comparing with the other side's.
type measureInput struct {
	Name   string      `json:"name"`
	Path   string      `json:"path"`
	SHA256 cose.Digest `json:"sha256"`
}

type compared struct {
	Given       measure.Digest       `json:"given"`
	Equal       bool                 `json:"equal"`
	Explained   bool                 `json:"explained"`
	Differences []measure.Difference `json:"differences"`
}

func newPolicyMeasureCommand() *cobra.Command {
	var f measureFlags
	cmd := &cobra.Command{
		Use:   "measure",
		Short: "Calculate the launch measurement that an enclave will have",
		Long: `Measure calculates, from the files that a confidential VM is launched from, the value that its hardware will
report: MEASUREMENT of AMD SEV-SNP, MRTD of Intel TDX. It prints each part that goes in, in order, with the
value after it. Put the value into platforms.snp.measurements or platforms.tdx.mrtd of the policy.

It follows QEMU with KVM. For SNP, the number and type of vCPUs enter the value: a policy lists one value for
each shape. With --kernel, kernel, initrd and command line are in it too (kernel-hashes=on), which needs a
firmware that has a page for them, such as OvmfPkg/AmdSev. For TDX only the firmware is in MRTD; kernel and
command line are in RTMR1 and RTMR2, which this command does not calculate. The order of operations depends on
the host's kernel: "page" is Linux 6.16 and later, "section" the patch sets from before.

With --compare, a value that a machine reported, it says what differs, where that is one of: number or type of
vCPUs, SEV features, VMM, kernel hashes missing, no initrd, white space of the command line, the TDX order.
Else a file differs: compare the SHA-256 of each.

Exit status: 0 calculated (and equal, with --compare), 1 differs, 2 usage.`,
		Example: `  concordat policy measure --platform snp --firmware OVMF.fd --kernel vmlinuz --initrd initrd.img \
      --cmdline "console=ttyS0 roothash=…" --vcpus 8 --vcpu-type EPYC-v4
  concordat policy measure --platform tdx --firmware OVMF.inteltdx.fd --compare 5b1f…`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.hasCmdline = cmd.Flags().Changed("cmdline")
			f.hasSignature = cmd.Flags().Changed("vcpu-signature")
			f.hasFeatures = cmd.Flags().Changed("features")
			v, err := f.measure()
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
	fs.StringVar(&f.platform, "platform", "", "snp or tdx (required)")
	fs.StringVar(&f.firmware, "firmware", "", "firmware image as the VMM maps it (required)")
	fs.StringVar(&f.kernel, "kernel", "", "kernel that QEMU boots directly, with kernel-hashes=on (snp)")
	fs.StringVar(&f.initrd, "initrd", "", "initrd of that kernel (snp)")
	fs.StringVar(&f.cmdline, "cmdline", "", "command line of that kernel, exactly (snp)")
	fs.IntVar(&f.vcpus, "vcpus", 0, "number of vCPUs (snp)")
	fs.StringVar(&f.vcpuType, "vcpu-type", "", "CPU model as QEMU names it, such as EPYC-v4 (snp)")
	fs.Uint32Var(&f.signature, "vcpu-signature", 0, "CPUID signature instead of --vcpu-type, such as 0x00a00f11 (snp)")
	fs.Uint64Var(&f.features, "features", measure.FeaturesSNP, "SEV_FEATURES that the host sets (snp)")
	fs.StringVar(&f.vmm, "vmm", "", `virtual machine monitor: qemu, ec2 or gce (snp; default "qemu")`)
	fs.StringVar(&f.order, "order", "", `order of the host's KVM: page or section (tdx; default "page")`)
	fs.StringVar(&f.compare, "compare", "", "a measurement in hex to explain")
	for _, name := range []string{"platform", "firmware"} {
		cobra.CheckErr(cmd.MarkFlagRequired(name))
	}
	return cmd
}

func (f *measureFlags) measure() (*measured, error) {
	v := &measured{Verdict: verifier.Pass, Platform: f.platform}
	fw, err := readFile(f.firmware, measure.MaxFirmware)
	if err != nil {
		return nil, usage(err)
	}
	v.Inputs = append(v.Inputs, measureInput{"firmware", f.firmware, cose.Sum(fw)})
	var target interface {
		Measure() (*measure.Measurement, error)
		Explain(measure.Digest) ([]measure.Difference, bool, error)
	}
	switch f.platform {
	case "snp":
		v.Field = "platforms.snp.measurements"
		target, err = f.snp(fw, v)
	case "tdx":
		v.Field = "platforms.tdx.mrtd"
		target, err = f.tdx(fw)
	default:
		err = usagef("--platform is %q, want snp or tdx", f.platform)
	}
	if err != nil {
		return nil, err
	}
	m, err := target.Measure()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.firmware, err)
	}
	v.Digest, v.Parts = m.Digest, m.Parts
	if f.compare == "" {
		return v, nil
	}
	c := &compared{Differences: []measure.Difference{}}
	if c.Given, err = measure.ParseDigest(strings.TrimSpace(f.compare)); err != nil {
		return nil, usagef("--compare: %w", err)
	}
	d, ok, err := target.Explain(c.Given)
	if err != nil {
		return nil, err
	}
	c.Equal, c.Explained = c.Given == m.Digest, ok
	c.Differences = append(c.Differences, d...)
	if !c.Equal {
		v.Verdict = verifier.Fail
	}
	v.Compared = c
	return v, nil
}

func (f *measureFlags) tdx(fw []byte) (*measure.TDX, error) {
	if f.kernel != "" || f.initrd != "" || f.hasCmdline || f.vcpus != 0 || f.vcpuType != "" || f.hasSignature || f.hasFeatures || f.vmm != "" {
		return nil, usagef("MRTD is of the firmware alone: only --firmware, --order and --compare go with --platform tdx")
	}
	order := measure.ByPage
	if f.order != "" {
		order = measure.Order(f.order)
	}
	if order != measure.ByPage && order != measure.BySection {
		return nil, usagef("--order is %q, want %q or %q", f.order, measure.ByPage, measure.BySection)
	}
	return &measure.TDX{Firmware: fw, Order: order}, nil
}

func (f *measureFlags) snp(fw []byte, v *measured) (*measure.SNP, error) {
	s := &measure.SNP{Firmware: fw, VCPUs: f.vcpus, Features: f.features, VMM: measure.QEMU, Signature: f.signature}
	if f.vmm != "" {
		s.VMM = measure.VMM(f.vmm)
	}
	switch {
	case f.order != "":
		return nil, usagef("--order goes with --platform tdx")
	case s.VMM != measure.QEMU && s.VMM != measure.EC2 && s.VMM != measure.GCE:
		return nil, usagef("--vmm is %q, want qemu, ec2 or gce", f.vmm)
	case f.vcpus < 1 || f.vcpus > measure.MaxVCPUs:
		return nil, usagef("--vcpus is %d, want 1 to %d: every vCPU is measured", f.vcpus, measure.MaxVCPUs)
	case f.vcpuType != "" && f.hasSignature:
		return nil, usagef("give --vcpu-type or --vcpu-signature, not both")
	case s.VMM != measure.QEMU && (f.vcpuType != "" || f.hasSignature):
		return nil, usagef("%s does not measure the vCPU type: leave --vcpu-type and --vcpu-signature out", s.VMM)
	case s.VMM == measure.QEMU && f.vcpuType == "" && f.signature == 0:
		return nil, usagef("--vcpu-type or --vcpu-signature is missing: QEMU measures it")
	case f.kernel == "" && (f.initrd != "" || f.hasCmdline):
		return nil, usagef("--initrd and --cmdline go with --kernel")
	}
	var err error
	if f.vcpuType != "" {
		if s.Signature, err = measure.VCPUType(f.vcpuType); err != nil {
			return nil, usagef("--vcpu-type: %w", err)
		}
	}
	if f.kernel == "" {
		return s, nil
	}
	s.Boot = &measure.Boot{Initrd: measure.NoInitrd, CommandLine: f.cmdline}
	if s.Boot.Kernel, err = v.hash("kernel", f.kernel); err != nil {
		return nil, err
	}
	if f.initrd != "" {
		if s.Boot.Initrd, err = v.hash("initrd", f.initrd); err != nil {
			return nil, err
		}
	}
	v.Inputs = append(v.Inputs, measureInput{"command-line", fmt.Sprintf("%q", f.cmdline), cose.Sum([]byte(f.cmdline + "\x00"))})
	return s, nil
}

// hash notes a file and returns its SHA-256.
func (v *measured) hash(name, path string) (d cose.Digest, err error) {
	file, err := os.Open(path)
	if err != nil {
		return d, usage(err)
	}
	defer file.Close()
	h := sha256.New()
	switch n, err := io.Copy(h, io.LimitReader(file, maxBootFile+1)); {
	case err != nil:
		return d, fmt.Errorf("%s: %w", path, err)
	case n > maxBootFile:
		return d, usagef("%s: more than %d bytes", path, int64(maxBootFile))
	case n == 0:
		return d, usage(errors.New(path + ": empty"))
	}
	h.Sum(d[:0])
	v.Inputs = append(v.Inputs, measureInput{name, path, d})
	return d, nil
}

func (v *measured) print(w io.Writer) {
	for _, in := range v.Inputs {
		fmt.Fprintf(w, "%-13s %s  %s\n", in.Name, in.SHA256, in.Path)
	}
	fmt.Fprintf(w, "\n%-14s %-14s %6s  %-20s %s\n", "part", "address", "pages", "content (sha256)", "measurement after it")
	for _, p := range v.Parts {
		content := p.Content
		if len(content) == 64 {
			content = content[:16] + "…"
		}
		fmt.Fprintf(w, "%-14s 0x%-12x %6d  %-20s %.16s…\n", p.Name, p.Address, p.Pages, content, p.After)
	}
	fmt.Fprintf(w, "\nmeasurement   %s\npolicy field  %s\n", v.Digest, v.Field)
	c := v.Compared
	switch {
	case c == nil:
	case c.Equal:
		fmt.Fprintln(w, "compared      equal")
	case c.Explained:
		fmt.Fprintf(w, "compared      differs: %s\n", c.Given)
		for _, d := range c.Differences {
			fmt.Fprintf(w, "  %s: given here %s; the other value comes from %s\n", d.Part, d.Given, d.Found)
		}
	default:
		fmt.Fprintf(w, "compared      differs: %s\n", c.Given)
		fmt.Fprintln(w, "  no other shape of the VM explains it: a file or the command line differs. Compare the SHA-256 of each")
		fmt.Fprintln(w, "  with those of the machine that reported it.")
	}
}
