package tdx

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
)

// MaxCollateral bounds a collateral file, in bytes, and each document in it.
const MaxCollateral = 256 << 10

// Collateral is what Intel publishes for checking the quotes of one platform
// family. A part that was not given is nil.
type Collateral struct {
	TCBInfo    *Signed
	QEIdentity *Signed

	RootCRL     []byte // DER, of the root CA
	PCKCRL      []byte // DER, of the Platform CA
	PCKCRLChain []byte // PEM: Platform CA, root
}

// Signed is a JSON document with its detached signature.
type Signed struct {
	Doc       []byte   // the exact bytes that were signed; never re-encode them
	Signature [64]byte // r‖s, big-endian, ECDSA P-256 over SHA-256(Doc)
	Chain     []byte   // PEM: TCB signing certificate, root
}

// collateralFile is the JSON form that Intel's quote verification libraries
// share (sgx_ql_qve_collateral_t). A document is either the inner object with its
// signature beside it, or the whole answer of the PCS: {"tcbInfo": …,
// "signature": …}. Revocation lists are hex of DER, or PEM.
type collateralFile struct {
	PCKCRLChain  string `json:"pck_crl_issuer_chain,omitempty"`
	RootCRL      string `json:"root_ca_crl,omitempty"`
	PCKCRL       string `json:"pck_crl,omitempty"`
	TCBChain     string `json:"tcb_info_issuer_chain,omitempty"`
	TCBInfo      string `json:"tcb_info,omitempty"`
	TCBSignature string `json:"tcb_info_signature,omitempty"`
	QEChain      string `json:"qe_identity_issuer_chain,omitempty"`
	QEIdentity   string `json:"qe_identity,omitempty"`
	QESignature  string `json:"qe_identity_signature,omitempty"`
}

// ParseCollateral reads a collateral file. Fields that it does not know are
// skipped; all are unauthenticated until their signatures are checked. The error
// wraps [ErrMalformed].
func ParseCollateral(b []byte) (*Collateral, error) {
	var f collateralFile
	if err := decodeJSON("collateral", b, &f); err != nil {
		return nil, err
	}
	c := &Collateral{PCKCRLChain: []byte(f.PCKCRLChain)}
	var err error
	if c.TCBInfo, err = signed("tcbInfo", f.TCBInfo, f.TCBSignature, f.TCBChain); err != nil {
		return nil, fmt.Errorf("%w: tcb_info: %w", ErrMalformed, err)
	}
	if c.QEIdentity, err = signed("enclaveIdentity", f.QEIdentity, f.QESignature, f.QEChain); err != nil {
		return nil, fmt.Errorf("%w: qe_identity: %w", ErrMalformed, err)
	}
	if c.RootCRL, err = list(f.RootCRL); err != nil {
		return nil, fmt.Errorf("%w: root_ca_crl: %w", ErrMalformed, err)
	}
	if c.PCKCRL, err = list(f.PCKCRL); err != nil {
		return nil, fmt.Errorf("%w: pck_crl: %w", ErrMalformed, err)
	}
	return c, nil
}

// Marshal writes c as a collateral file, inner objects with signatures beside
// them.
func (c *Collateral) Marshal() []byte {
	f := collateralFile{
		PCKCRLChain: string(c.PCKCRLChain),
		RootCRL:     hex.EncodeToString(c.RootCRL),
		PCKCRL:      hex.EncodeToString(c.PCKCRL),
	}
	if s := c.TCBInfo; s != nil {
		f.TCBInfo, f.TCBSignature, f.TCBChain = string(s.Doc), hex.EncodeToString(s.Signature[:]), string(s.Chain)
	}
	if s := c.QEIdentity; s != nil {
		f.QEIdentity, f.QESignature, f.QEChain = string(s.Doc), hex.EncodeToString(s.Signature[:]), string(s.Chain)
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(f); err != nil {
		panic("tdx: internal error: " + err.Error())
	}
	return b.Bytes()
}

// signed reads one document; inner is the name of the signed object in the PCS's
// answer.
func signed(inner, doc, signature, chain string) (*Signed, error) {
	if doc == "" {
		return nil, nil
	}
	s := &Signed{Doc: []byte(doc), Chain: []byte(chain)}
	if signature == "" {
		// RawMessage keeps the object's bytes as they are.
		var whole map[string]json.RawMessage
		if err := json.Unmarshal(s.Doc, &whole); err != nil {
			return nil, err
		}
		if whole[inner] == nil {
			return nil, fmt.Errorf("no signature beside it, and no %q in it", inner)
		}
		s.Doc = whole[inner]
		if err := json.Unmarshal(whole["signature"], &signature); err != nil {
			return nil, fmt.Errorf("signature: %w", err)
		}
	}
	raw, err := hex.DecodeString(signature)
	if err != nil || len(raw) != len(s.Signature) {
		return nil, fmt.Errorf("signature of %d characters, want %d hex digits", len(signature), 2*len(s.Signature))
	}
	copy(s.Signature[:], raw)
	return s, nil
}

func list(s string) ([]byte, error) {
	switch {
	case s == "":
		return nil, nil
	case strings.HasPrefix(s, "-----BEGIN"):
		p, rest := pem.Decode([]byte(s))
		if p == nil || p.Type != "X509 CRL" || len(strings.TrimSpace(string(rest))) != 0 {
			return nil, fmt.Errorf("not one PEM block of type X509 CRL")
		}
		return p.Bytes, nil
	}
	b, err := hex.DecodeString(s)
	if err != nil {
		return nil, fmt.Errorf("neither PEM nor hex of DER: %w", err)
	}
	return b, nil
}
