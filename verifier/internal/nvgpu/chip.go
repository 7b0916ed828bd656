package nvgpu

import (
	"crypto/x509"
	"fmt"
	"regexp"

	"github.com/concordat/concordat/attestation/nvgpu"
)

// chip is what a device is, by the names in its chain.
type chip struct {
	name string // as NVIDIA's manifests spell it: GH100, GB100, LS10
	arch string // as a policy spells it: hopper, blackwell; empty where this verifier knows none
	link bool   // an NVLink switch
}

// String names the chip for people.
func (c chip) String() string {
	if c.link {
		return "switch (" + c.name + ")"
	}
	return c.arch + " (" + c.name + ")"
}

// Names that NVIDIA gives: "NVIDIA GH100 Identity" and "NVIDIA GH100 Provisioner
// ICA 1" to the CAs of one chip, "GH100 A01 GSP BROM" and "GH100 A01 GSP FMC LF"
// to the device and to its firmware. A switch is an LS_10, with "FSP" for "GSP",
// and stands under the identity CA of the GPUs that it came with.
var (
	identityName    = regexp.MustCompile(`^NVIDIA (G[A-Z][0-9]{3}|LS_10) Identity$`)
	provisionerName = regexp.MustCompile(`^NVIDIA (G[A-Z][0-9]{3}|LS_10) Provisioner ICA [0-9]{1,8}$`)
	chipName        = regexp.MustCompile(`^(G[A-Z][0-9]{3}|LS_10) [A-Z][0-9]{2} [GF]SP (BROM|FMC LF)$`)
)

const switchName = "LS_10"

// readChip returns what chain is the chain of.
func readChip(chain []*x509.Certificate) (chip, error) {
	ca := identityName.FindStringSubmatch(chain[identity].Subject.CommonName)
	if ca == nil {
		return chip{}, fmt.Errorf("the CA %.80q names no chip", chain[identity].Subject.CommonName)
	}
	made := provisionerName.FindStringSubmatch(chain[provisioner].Subject.CommonName)
	if made == nil || made[1] != ca[1] && made[1] != switchName {
		return chip{}, fmt.Errorf("the CA %.80q is not a provisioner of %s", chain[provisioner].Subject.CommonName, ca[1])
	}
	for i, kind := range []string{leaf: "FMC LF", own: "BROM"} {
		name := chain[i].Subject.CommonName
		if n := chipName.FindStringSubmatch(name); n == nil || n[1] != made[1] || n[2] != kind {
			return chip{}, fmt.Errorf("the certificate %.80q is not the %s of a %s", name, kind, made[1])
		}
	}
	switch c := (chip{name: made[1]}); {
	case c.name == switchName:
		return chip{name: nvgpu.ChipSwitch, link: true}, nil
	case c.name[:2] == "GH":
		return chip{name: c.name, arch: "hopper"}, nil
	case c.name[:2] == "GB":
		return chip{name: c.name, arch: "blackwell"}, nil
	default:
		return c, nil
	}
}
