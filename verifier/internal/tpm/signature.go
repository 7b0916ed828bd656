package tpm

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"math/big"

	"github.com/concordat/concordat/attestation/tpm"
)

var schemes = map[uint16]string{tpm.RSASSA: "RSASSA", tpm.RSAPSS: "RSAPSS", tpm.ECDSA: "ECDSA"}

// signature checks the quote's signature by the key that the runtime data name.
func (j *judge) signature() bool {
	key, err := tpm.SigningKey(j.ev.Runtime)
	if err != nil {
		j.r.Fail("key", "one attestation key in the runtime data", err.Error(), "")
		for _, n := range []string{"signature-algorithm", "signature"} {
			j.r.NotChecked(n, "the key is not known")
		}
		return false
	}
	j.key = key
	var text string
	fits := j.sig.Hash == tpm.SHA256
	switch k := key.(type) {
	case *rsa.PublicKey:
		text = fmt.Sprintf("RSA, %d bits", k.N.BitLen())
		fits = fits && (j.sig.Scheme == tpm.RSASSA || j.sig.Scheme == tpm.RSAPSS)
	case *ecdsa.PublicKey:
		text = "ECDSA, P-256"
		fits = fits && j.sig.Scheme == tpm.ECDSA
	}
	j.r.Pass("key", text)
	if !j.r.That(fits, "signature-algorithm", "RSASSA, RSAPSS or ECDSA as the key is, with SHA-256 (000b)", fmt.Sprintf("%s with hash %04x", schemes[j.sig.Scheme], j.sig.Hash), "") {
		j.r.NotChecked("signature", "the algorithm is not accepted")
		return false
	}
	return j.r.That(j.verify(), "signature", "the quote signed by that key", schemes[j.sig.Scheme], "the quote was changed, or another TPM signed it")
}

func (j *judge) verify() bool {
	h := sha256.Sum256(j.ev.Quote)
	switch k := j.key.(type) {
	case *rsa.PublicKey:
		if j.sig.Scheme == tpm.RSAPSS {
			// A TPM salts with as many bytes as the hash has, or as fit (Part 1, B.7).
			return rsa.VerifyPSS(k, crypto.SHA256, h[:], j.sig.RSA, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthAuto}) == nil
		}
		return rsa.VerifyPKCS1v15(k, crypto.SHA256, h[:], j.sig.RSA) == nil
	case *ecdsa.PublicKey:
		return ecdsa.Verify(k, h[:], new(big.Int).SetBytes(j.sig.R), new(big.Int).SetBytes(j.sig.S))
	}
	return false
}
