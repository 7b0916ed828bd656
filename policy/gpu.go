package policy

// AcceptedModes returns the modes of a GPU that g accepts, sorted: "mpt",
// "ppcie", "spt", and "unstated" for a report that states none. The caller must
// not change them.
func (g *GPU) AcceptedModes() []string {
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
