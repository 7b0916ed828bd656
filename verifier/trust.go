package verifier

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/tlog"
)

// MaxTrust bounds a trust file in bytes.
const MaxTrust = 64 << 10

// Trust is what an officer believes before reading a bundle. It is made by one's
// own node, agreed with nobody, and never taken from whoever sent the bundle
// (protocol F16). The vendors' roots are not in it: they are compiled in.
type Trust struct {
	// Federation is the digest of the genesis policy.
	Federation cose.Digest `json:"federation"`
	// Member is one's own company, as the policy spells it.
	Member policy.MemberID `json:"member"`
	// Witness is the C2SP verifier key of one's own company's witness. Its
	// cosignatures are the clock by which everything is judged.
	Witness string `json:"witness"`
	// Simulated says that a simulated federation is expected. Without it, none is
	// ever verified.
	Simulated bool `json:"simulated"`
	// TSA are PEM roots of RFC 3161 time stamp authorities. They are kept for a
	// later version: bundles hold no time stamps yet.
	TSA []string `json:"tsa"`
}

// ParseTrust decodes a trust file: JSON with these fields, all of them but tsa
// required, and no others.
func ParseTrust(b []byte) (*Trust, error) {
	if len(b) > MaxTrust {
		return nil, fmt.Errorf("trust: %d bytes, limit %d", len(b), MaxTrust)
	}
	var t struct {
		Trust
		Simulated *bool `json:"simulated"` // missing is not false
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&t); err != nil {
		return nil, fmt.Errorf("trust: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("trust: bytes after the object")
	}
	if t.Simulated == nil {
		return nil, errors.New(`trust: "simulated" is missing: say true or false`)
	}
	t.Trust.Simulated = *t.Simulated
	return &t.Trust, t.check()
}

func (t *Trust) check() error {
	if t.Federation.IsZero() || t.Member == "" {
		return errors.New(`trust: "federation" and "member" are required`)
	}
	_, err := t.witness()
	return err
}

func (t *Trust) witness() (tlog.VerifierKey, error) {
	k, err := tlog.ParseVerifierKey(t.Witness)
	if err != nil {
		return k, fmt.Errorf("trust: witness: %w", err)
	}
	if !k.IsWitness() {
		return k, fmt.Errorf("trust: witness: %q is the key of a log", t.Witness)
	}
	return k, nil
}

// Encode returns the file's JSON, indented, in one form.
func (t *Trust) Encode() []byte {
	c := *t
	if c.TSA == nil {
		c.TSA = []string{}
	}
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		panic("verifier: internal error: " + err.Error()) // strings, a bool and a digest
	}
	return append(b, '\n')
}

// Fingerprint returns the SHA-256 of [Trust.Encode], for people to compare.
func (t *Trust) Fingerprint() cose.Digest { return cose.Sum(t.Encode()) }
