package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/policy/source"
)

func newPolicyNewCommand() *cobra.Command {
	var (
		from, name, out, origin, logKey string
		members, platforms, roots       []string
	)
	cmd := &cobra.Command{
		Use:   "new",
		Short: "Write a draft of a policy as YAML: a federation's first, or the next version",
		Long: `New writes a commented draft. For a new federation it fills in the members' public keys from their
member.yaml files and suggests values where there are usual ones; what only you can know is left empty, and
"concordat policy check" names it. With --from it writes the version that follows a chain's head, to be
edited.`,
		Example: `  concordat policy new --name "Example" --member a/member.yaml --member b/member.yaml --out policy.yaml
  concordat policy new --from federation.policy --out next.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var p *policy.Policy
			if from != "" {
				c, err := loadChain(from)
				if err != nil {
					return err
				}
				head := *c.Head()
				head.Version, head.Federation, head.Previous = head.Version+1, c.Federation(), c.Head().Digest()
				p = &head
			} else {
				p = &policy.Policy{Name: name, Log: policy.Log{Origin: origin, Key: logKey}}
				if err := draft(p, members, platforms, roots); err != nil {
					return err
				}
			}
			text := source.Render(p)
			if out == "" {
				v := struct {
					YAML string `json:"yaml"`
				}{string(text)}
				return emit(cmd, v, func(w io.Writer) { w.Write(text) })
			}
			if err := createFile(out, text); err != nil {
				return err
			}
			v := struct {
				File string `json:"file"`
			}{out}
			return emit(cmd, v, func(w io.Writer) {
				fmt.Fprintf(w, "wrote %s\nnext: edit it until \"concordat policy check %s\" passes\n", out, out)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&from, "from", "", "signed chain whose head the draft follows")
	f.StringVar(&name, "name", "", "name of the consortium, for people")
	f.StringArrayVar(&members, "member", nil, "member.yaml of a member; repeat for each")
	f.StringArrayVar(&platforms, "platform", []string{"snp"}, "platform to draft: snp, tdx or gpu; repeat for each")
	f.StringArrayVar(&roots, "simulated-root", nil, "hex SHA-256 of a simulated vendor's public key; makes the federation simulated; repeat for each")
	f.StringVar(&origin, "log-origin", "", "origin of the transparency log")
	f.StringVar(&logKey, "log-key", "", "C2SP verifier key of the transparency log")
	f.StringVarP(&out, "out", "o", "", "file to write instead of standard output")
	cmd.MarkFlagsMutuallyExclusive("from", "name")
	cmd.MarkFlagsMutuallyExclusive("from", "member")
	return cmd
}

// commonXFAM allows what guests of today use: x87, SSE, AVX, AVX-512, PKRU, CET
// and AMX (Intel SDM, XCR0 and IA32_XSS).
const commonXFAM = 0x61ae7

// draft fills p in for a new federation: what is known, what is usual, and empty
// places for the rest.
func draft(p *policy.Policy, members, platforms, roots []string) error {
	p.Schema, p.Version = policy.Schema, 1
	for _, path := range members {
		b, err := readFile(path, source.MaxSize)
		if err != nil {
			return err
		}
		m, err := source.ParseMember(b)
		if err != nil {
			return located(path, err)
		}
		p.Members = append(p.Members, m)
	}
	for _, r := range roots {
		d, err := cose.ParseDigest(r)
		if err != nil {
			return usagef("--simulated-root: %w", err)
		}
		p.Simulated, p.SimulatedRoots = true, append(p.SimulatedRoots, d)
	}
	for _, name := range platforms {
		switch name {
		case "snp":
			p.Platforms.SNP = &policy.SNP{Products: []string{"Genoa"}, MinTCB: []policy.ProdTCB{{Product: "Genoa"}}, MinVersion: 3, HostData: true}
		case "tdx":
			p.Platforms.TDX = &policy.TDX{Statuses: []string{"UpToDate"}, RTMRs: make([]policy.RTMRs, 1), XFAMMask: commonXFAM, MRConfigID: true, MRSignerSEAM: make(policy.Hex, 48)}
		case "gpu":
			p.Platforms.GPU = &policy.GPU{Architectures: []string{"hopper"}, MinCount: 1, Measurements: make([]policy.GPUMeasured, 1)}
		default:
			return usagef("--platform is %q, want snp, tdx or gpu", name)
		}
	}
	n := uint64(max(2, len(p.Members)))
	few := min(n, 3)
	p.Approvals = n/2 + 1
	p.Evidence = policy.Evidence{MaxAge: 600, MaxCollateralAge: 30 * 86400, MaxEpochAge: 7 * 86400, MaxRoundsPerEpoch: 1000}
	p.Log.Witnesses, p.Log.MaxUnpublishedSteps, p.Log.DenialLag = p.Approvals, 1, 3600
	p.Apps = []policy.App{{Exposure: policy.ExposureAggregate, Strategies: []string{"fedavg"}, MaxRounds: 100}}
	p.Release = policy.Release{MinContributors: few, Collusion: few - 2, MaxWeightShare: 600, Cohort: policy.CohortFixed, Dropouts: policy.DropoutsRefuse,
		Downlink: policy.DownlinkShared, MaxMetricBytes: 4096, StepDeadline: 3600, AckDeadline: 60}
	p.Nodes = policy.NodeRules{MessageTypes: []string{"evaluate", "train"}, CredentialAge: 90 * 86400}
	return nil
}
