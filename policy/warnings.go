package policy

import (
	"fmt"
	"slices"
)

// Warnings returns, in words, what p allows that a member should know before it
// signs and an officer when it reads a verdict. They are legal choices; an empty
// list is no promise of more than [Policy.Check] makes.
func (p *Policy) Warnings() []string {
	var w []string
	warn := func(bad bool, format string, args ...any) {
		if bad {
			w = append(w, fmt.Sprintf(format, args...))
		}
	}
	warn(p.Simulated, "the federation is simulated: its evidence proves nothing about hardware")
	if s := p.Platforms.SNP; s != nil {
		warn(s.AnyChip, "any AMD chip is accepted: whoever extracts the key of one chip anywhere can forge an enclave")
		warn(s.AllowSMT, "AMD guests may share cores with other guests (SMT)")
		warn(s.AnyChip && slices.Contains(s.Products, "Milan"), "any AMD Milan chip is accepted: software that extracts their keys is claimed to exist (arXiv 2605.12990)")
		for _, name := range s.Providers {
			warn(true, "AMD guests vouched for by %q are accepted, on any machine to which it gave its key", name)
		}
		warn(s.AllowProvisional, "AMD hosts may go back to older firmware without a restart of the guest")
		warn(s.AllowCXL, "memory of AMD guests may lie in CXL devices")
		warn(s.AllowUncheckedAlias, "AMD hosts need not have checked their memory for aliases (BadRAM)")
		warn(!s.HostData, "AMD guests need not be bound to this federation at launch (HOST_DATA)")
	}
	if t := p.Platforms.TDX; t != nil {
		warn(t.AnyPlatform, "any Intel platform is accepted: whoever extracts the key of one platform anywhere can forge an enclave")
		warn(len(t.RTMRs) == 0, "any RTMR values are accepted on Intel TDX: what was loaded after the firmware is not pinned")
		warn(!t.MRConfigID, "Intel guests need not be bound to this federation at launch (MRCONFIGID)")
		for _, s := range t.Statuses {
			warn(s != "UpToDate", "Intel platforms with TCB status %s are accepted", s)
		}
	}
	if g := p.Platforms.GPU; g != nil {
		warn(g.AnyDevice, "any NVIDIA GPU of the architectures is accepted")
		warn(g.AllowRIMHold, "NVIDIA's reference manifests are accepted while their signer's certificates are on hold")
		warn(slices.Contains(g.AcceptedModes(), "ppcie"), "GPUs in protected-PCIe mode are accepted: what they send each other is in clear on NVLink")
	}
	warn(len(p.Apps)+len(p.SignedApps) == 0, "no app is listed: no run can start")
	for _, a := range p.SignedApps {
		warn(true, "%d of the %d signers of %s let a bundle of it run, without the members", a.Threshold, len(a.Signers), a.App)
		warn(len(a.Configs) == 0, "signed bundles of %s run with any configuration", a.App)
	}
	for _, a := range p.Apps {
		warn(a.Exposure == ExposureIndividual, "app %s (%s) sees single members' updates", a.Name, a.Digest.Short())
		warn(len(a.Configs) == 0, "app %s (%s) runs with any configuration", a.Name, a.Digest.Short())
		warn(a.Addressed, "app %s (%s) tells each node something of its own, beside one model for all, and what its model looks like only after nodes have answered", a.Name, a.Digest.Short())
	}
	warn(p.Release.Collusion == 0, "collusion is 0: the release rules assume that no two members share what they know")
	warn(p.Release.MaxWeightShare > 600, "one member may weigh up to %d.%d %% of an aggregate", p.Release.MaxWeightShare/10, p.Release.MaxWeightShare%10)
	warn(p.Release.Dropouts == DropoutsAllow, "members may drop out of a run: steps over different sets can be compared to single one out")
	warn(p.Release.Cohort == CohortSampled, "a ServerApp may ask some of the members in a step: its code chooses them, and steps over different sets can be compared to single one out")
	warn(p.Release.Downlink == DownlinkPerNode, "nodes may be sent different content each")
	for _, m := range p.Nodes.MessageTypes {
		warn(m == "query", "nodes may be sent queries: remote questions about their data")
	}
	warn(len(p.Nodes.MetricKeys) == 0, "metrics of any name may leave a node")
	return w
}
