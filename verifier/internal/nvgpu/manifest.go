package nvgpu

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/nvgpu"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/internal/check"
	"github.com/concordat/concordat/verifier/internal/nvgpu/rim"
)

// manifestRoots are the accepted roots of manifests: the SHA-256 of the
// SubjectPublicKeyInfo of "NVIDIA CoRIM signing Root CA", the P-384 root that
// NVIDIA's verifier ships as nv-local-gpu-verifier/verifier/certs/
// verifier_RIM_root.pem (SHA-256 of the certificate:
// 12977b5115acb0381179279fffeb5a8c4d264971ebb32298023a465fa41df5d1).
var manifestRoots = []attestation.Digest{{
	0xde, 0xc1, 0xdc, 0x31, 0x64, 0x77, 0xaa, 0x85, 0x1e, 0xeb, 0xdf, 0x51, 0x32, 0x7a, 0xe9, 0xf8,
	0x64, 0xbc, 0x8d, 0x89, 0x25, 0x46, 0x57, 0xed, 0x1e, 0x7e, 0xb9, 0x16, 0x8a, 0xf1, 0xe1, 0xa3,
}}

// signerChain is the number of certificates of a manifest: "… RIM L4 Signer",
// "NVIDIA Reference Value L3 …", "NVIDIA Reference Value … CA", and the root.
const signerChain = 4

// maxManifests bounds the documents about one version whose signatures are
// checked.
const maxManifests = 8

// manifests is what is known under one id.
type manifests struct {
	good     []*rim.Manifest // by an accepted signer, of this version and chip
	problem  error           // what is wrong with the first other document of this version
	standing standing        // of the signers of good
}

// checkMeasurements compares the report's measurements with the sets that the
// policy pins and, if none is equal and the policy says so, with NVIDIA's
// manifests. Without a policy they are compared if manifests were given.
func (s *Set) checkMeasurements(d *device, g *policy.GPU) {
	const name = "measurements"
	got := nvgpu.MeasurementsDigest(d.report)
	if g != nil {
		for _, m := range g.Measurements {
			if m.Digest == got {
				d.r.Pass(name, fmt.Sprintf("%s (%s)", m.Name, got))
				return
			}
		}
	}
	switch {
	case g == nil && len(s.ends.ByType(attestation.TypeNVIDIARIM, d.refs)) == 0:
		d.r.NotChecked(name, "any firmware will do without a policy and without manifests: this set is "+got.String())
	case g == nil || g.RIM:
		s.matchManifests(name, got, d, g)
	case len(g.Measurements) == 0:
		d.r.Unsupported(name, got.String(), "the policy pins no set of measurements and accepts no manifests: pin one, or set rim")
	default:
		d.r.Fail(name, fmt.Sprintf("one of the policy's %d sets", len(g.Measurements)), got.String(),
			"the GPU runs firmware that the policy does not know: pin this set if you trust it")
	}
}

// matchManifests finds the manifests of the report's driver and VBIOS, records a
// line for each, one for the standing of their signers, and compares.
func (s *Set) matchManifests(name string, got attestation.Digest, d *device, g *policy.GPU) {
	pin := "or pin this set of measurements in the policy: " + got.String()
	var parts [][]*rim.Manifest
	var signers standing
	for _, one := range []struct {
		name    string
		id      func(string) (string, error)
		version func() (string, error)
	}{{"rim-driver", d.report.DriverRIM, d.report.Driver}, {"rim-vbios", d.report.VBIOSRIM, d.report.VBIOS}} {
		id, err := one.id(d.chip.name)
		if err == nil && id == "" {
			continue // a switch's driver
		}
		version := ""
		if err == nil {
			version, err = one.version()
		}
		if err != nil {
			d.r.Fail(one.name, "a report that says which manifest it needs", err.Error(), pin)
			return
		}
		m := s.findManifests(id, version, d, g)
		switch {
		case len(m.good) > 0:
			d.r.Pass(one.name, fmt.Sprintf("%s, signed by %q", id, m.good[0].Chain[0].Subject.CommonName))
		case m.problem != nil:
			d.r.Fail(one.name, "a manifest "+id+" by NVIDIA", m.problem.Error(), "fetch manifest and OCSP responses anew from NVIDIA, "+pin)
		case g == nil && d.want.AllowMissingCollateral:
			d.r.NotChecked(one.name, fmt.Sprintf("no RIM %s was given", id))
		default:
			d.r.Missing(one.name, "the manifest "+id, fmt.Sprintf("no RIM %s was given: add it from rim.attestation.nvidia.com, %s", id, pin))
		}
		parts = append(parts, m.good)
		signers.join(m.standing)
	}
	if slices.ContainsFunc(parts, func(p []*rim.Manifest) bool { return len(p) == 0 }) {
		d.r.NotChecked(name, "a manifest is missing or not good: this set is "+got.String())
		return
	}
	s.recordRevocation("rim-revocation", signers, "", d) // nobody is revoked: findManifests has seen to it
	n, err := matchAny(d.report, parts)
	if err != nil {
		d.r.Fail(name, "what NVIDIA's manifests say", err.Error(), "the firmware is not NVIDIA's for this driver and VBIOS, or was changed")
		return
	}
	d.r.Pass(name, fmt.Sprintf("%d as NVIDIA's manifests say (%s)", n, got))
}

// matchAny compares report with every combination of one manifest a part. The
// error is that of the first.
func matchAny(report *nvgpu.Report, parts [][]*rim.Manifest) (int, error) {
	if len(parts) == 1 {
		parts = append(parts, []*rim.Manifest{{}}) // a switch: nothing but its VBIOS
	}
	var first error
	for _, a := range parts[0] {
		for _, b := range parts[1] {
			n, err := rim.Match(report, a, b)
			if err == nil {
				return n, nil
			}
			if first == nil {
				first = err
			}
		}
	}
	return 0, first
}

// findManifests returns what the endorsements hold under id, once a set.
func (s *Set) findManifests(id, version string, d *device, g *policy.GPU) manifests {
	if m, ok := s.manifests[id]; ok {
		return m
	}
	var m manifests
	tried := 0
	for _, doc := range s.ends.ByType(attestation.TypeNVIDIARIM, d.refs) {
		if tried == maxManifests || !bytes.Contains(bytes.ToUpper(doc), []byte(version)) { // cheap, before any signature
			continue
		}
		tried++
		one, err := rim.Parse(doc)
		if err == nil && !isFor(one, version, d) {
			continue // of another chip, or the version stands elsewhere in it
		}
		var st standing
		if err == nil {
			err = s.verifySigner(one.Chain, &d.want)
		}
		if err == nil {
			if st = s.revocation(one.Chain, g != nil && g.AllowRIMHold, d); st.err != nil {
				err = fmt.Errorf("the manifest's signer: %w", st.err)
			}
		}
		switch {
		case err == nil:
			m.good = append(m.good, one)
			m.standing.join(st)
		case m.problem == nil:
			m.problem = err
		}
	}
	s.manifests[id] = m
	return m
}

// isFor reports whether m is about this version on this device's chip. Project
// and board are in a manifest's id alone, which is not signed: manifests of two
// boards with one VBIOS version are told apart by their measurements.
func isFor(m *rim.Manifest, version string, d *device) bool {
	edition := "GPU"
	if d.chip.link {
		edition = "SWITCH"
	}
	info, _ := d.report.Field(nvgpu.FieldChipInfo)
	return strings.EqualFold(m.Version, version) && m.Edition == edition &&
		(m.Product == d.chip.name || m.Product == string(bytes.TrimRight(info, "\x00")))
}

// verifySigner checks who signed a manifest: four certificates up to an accepted
// root, all valid at the judged time. Signers are valid for two years: a run is
// judged by the manifests of its time.
func (s *Set) verifySigner(chain []*x509.Certificate, want *check.Expect) error {
	if len(chain) != signerChain {
		return fmt.Errorf("the manifest brings %d certificates, want %d", len(chain), signerChain)
	}
	if chain[0].IsCA || chain[0].KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return errors.New("the manifest's first certificate is not for signing documents")
	}
	if err := s.verifyChain(chain, manifestRoots, want); err != nil {
		return fmt.Errorf("the manifest's signer: %w", err)
	}
	return nil
}

// join adds what other says, of chains of which none is revoked.
func (s *standing) join(other standing) {
	if s.oldest == "" || other.oldest != "" && other.oldest < s.oldest {
		s.oldest = other.oldest
	}
	for _, x := range other.missing {
		if !slices.Contains(s.missing, x) {
			s.missing = append(s.missing, x)
		}
	}
	for _, x := range other.held {
		if !slices.Contains(s.held, x) {
			s.held = append(s.held, x)
		}
	}
}
