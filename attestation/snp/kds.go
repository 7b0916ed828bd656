package snp

import (
	"fmt"
	"strings"
)

// kds is AMD's key distribution service (AMD 57230, chapter 4).
const kds = "https://kdsintf.amd.com/"

func kdsPath(k SigningKey, p Product) string {
	return kds + strings.ToLower(k.String()) + "/v1/" + string(p) + "/"
}

// ChainURL returns where AMD serves the two certificates above the keys of kind
// k: [VCEK] or [VLEK].
func (p Product) ChainURL(k SigningKey) string { return kdsPath(k, p) + "cert_chain" }

// CRLURL returns where AMD serves the revocation list for keys of kind k: [VCEK]
// or [VLEK]. The two lists are signed by the same root.
func (p Product) CRLURL(k SigningKey) string { return kdsPath(k, p) + "crl" }

// VCEKURL returns where AMD serves the certificate of a chip at a TCB. chip is
// as long as [Product.ChipIDSize] says. AMD answers a client about once in ten
// seconds; a certificate never changes.
func (p Product) VCEKURL(chip []byte, t TCB) string {
	fmc := ""
	if p == Turin {
		fmc = fmt.Sprintf("fmcSPL=%d&", t.FMC)
	}
	return fmt.Sprintf("%s%x?%sblSPL=%d&teeSPL=%d&snpSPL=%d&ucodeSPL=%d", kdsPath(VCEK, p), chip, fmc, t.BootLoader, t.TEE, t.SNP, t.Microcode)
}
