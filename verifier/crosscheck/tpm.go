package crosscheck

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"

	"github.com/google/go-tpm/tpm2"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/tpm"
)

const libTPM = "go-tpm v0.9.8"

// TPM asks go-tpm about the item of a vTPM: its own reading of the quote and the
// signature must agree with what the item shows. challenge is what the quote's
// extraData must be; empty leaves it out.
//
// go-tpm decodes and does no more. What it cannot say, because the format is not
// TCG's, is left to package verifier alone: whether the CPU vouches for the key,
// and how the key is read from the runtime data.
func TPM(raw []byte, challenge []byte) Outcome {
	if err := checkTPM(raw, challenge); err != nil {
		return refused(libTPM, err)
	}
	return passed(libTPM)
}

// quoted asks about the vTPM's item of an envelope whose claims have the report
// data rd, and returns the report data of the CPU item.
func quoted(e *attestation.Evidence, rd [64]byte) ([64]byte, Outcome) {
	for _, it := range e.Items {
		if it.Kind != attestation.KindTPM {
			continue
		}
		t, err := tpm.Parse(it.Raw)
		if err != nil {
			return rd, refused(libTPM, err)
		}
		challenge := tpm.ExtraData(rd)
		return tpm.Binding(t.Runtime), TPM(it.Raw, challenge[:])
	}
	return rd, refused(libTPM, errors.New("the envelope holds no TPM item"))
}

func checkTPM(raw, challenge []byte) error {
	e, err := tpm.Parse(raw)
	if err != nil {
		return err
	}
	att, err := tpm2.Unmarshal[tpm2.TPMSAttest](e.Quote)
	if err != nil {
		return fmt.Errorf("quote: %w", err)
	}
	if again := tpm2.Marshal(att); !bytes.Equal(again, e.Quote) {
		return errors.New("quote: another encoding of the same structure")
	}
	if err := att.Magic.Check(); err != nil {
		return err
	}
	if att.Type != tpm2.TPMSTAttestQuote {
		return fmt.Errorf("type %04x, want a quote", uint16(att.Type))
	}
	if len(challenge) > 0 && !bytes.Equal(challenge, att.ExtraData.Buffer) {
		return fmt.Errorf("extra data %x, want %x", att.ExtraData.Buffer, challenge)
	}
	quote, err := att.Attested.Quote()
	if err != nil {
		return err
	}
	if err := checkPCRs(quote, e.PCRs); err != nil {
		return err
	}
	sig, err := tpm2.Unmarshal[tpm2.TPMTSignature](e.Signature)
	if err != nil {
		return fmt.Errorf("signature: %w", err)
	}
	key, err := tpm.SigningKey(e.Runtime)
	if err != nil {
		return err
	}
	return checkQuoteSignature(key, sig, sha256.Sum256(e.Quote))
}

// checkPCRs checks selection and digest.
func checkPCRs(q *tpm2.TPMSQuoteInfo, shown []tpm.PCR) error {
	l := q.PCRSelect.PCRSelections
	if len(l) != 1 || l[0].Hash != tpm2.TPMAlgSHA256 {
		return errors.New("not one selection of the SHA-256 bank")
	}
	var numbers []uint
	h := sha256.New()
	for _, p := range shown {
		numbers = append(numbers, uint(p.Index))
		h.Write(p.Value)
	}
	want := tpm2.PCClientCompatible.PCRs(numbers...)
	have := l[0].PCRSelect
	for len(want) < len(have) {
		want = append(want, 0)
	}
	if !bytes.Equal(want[:len(have)], have) {
		return fmt.Errorf("selection %x, the item shows %x", have, want)
	}
	if sum := h.Sum(nil); !bytes.Equal(sum, q.PCRDigest.Buffer) {
		return fmt.Errorf("PCR digest %x, the values give %x", q.PCRDigest.Buffer, sum)
	}
	return nil
}

func checkQuoteSignature(key crypto.PublicKey, sig *tpm2.TPMTSignature, digest [32]byte) error {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if s, err := sig.Signature.RSASSA(); err == nil && sig.SigAlg == tpm2.TPMAlgRSASSA && s.Hash == tpm2.TPMAlgSHA256 {
			return rsa.VerifyPKCS1v15(k, crypto.SHA256, digest[:], s.Sig.Buffer)
		}
		if s, err := sig.Signature.RSAPSS(); err == nil && sig.SigAlg == tpm2.TPMAlgRSAPSS && s.Hash == tpm2.TPMAlgSHA256 {
			return rsa.VerifyPSS(k, crypto.SHA256, digest[:], s.Sig.Buffer, nil)
		}
	case *ecdsa.PublicKey:
		s, err := sig.Signature.ECDSA()
		if err == nil && sig.SigAlg == tpm2.TPMAlgECDSA && s.Hash == tpm2.TPMAlgSHA256 &&
			ecdsa.Verify(k, digest[:], new(big.Int).SetBytes(s.SignatureR.Buffer), new(big.Int).SetBytes(s.SignatureS.Buffer)) {
			return nil
		}
	}
	return errors.New("signature: does not fit the key and the quote")
}
