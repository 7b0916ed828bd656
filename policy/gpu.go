package policy

import "slices"

// Accepts reports whether the mode of a report is accepted: "spt", "mpt",
// "ppcie", or "unstated".
func (g *GPU) Accepts(mode string) bool { return slices.Contains(g.acceptedModes(), mode) }

func (g *GPU) acceptedModes() []string {
	if len(g.Modes) == 0 {
		return []string{"mpt", "spt", "unstated"}
	}
	return g.Modes
}

// OCSPAge returns the largest age of an OCSP response that p accepts.
func (p *Policy) OCSPAge() Seconds {
	if g := p.Platforms.GPU; g != nil && g.MaxOCSPAge > 0 {
		return g.MaxOCSPAge
	}
	return p.Evidence.MaxCollateralAge
}
