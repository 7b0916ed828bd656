package verifier

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/verifier/internal/check"
)

// ProfileEAR is the eat_profile of an attestation result
// (draft-ietf-rats-ear-04, section 3).
const ProfileEAR = "tag:ietf.org,2026:rats/ear#04"

// typeEAR is the media type of a signed result (RFC 9782).
const typeEAR = "application/eat+cwt"

// earBuild is the build of the verifier that a result names. It stands for the
// rules that turn checks into a result, not for a program: whoever appraises the
// same again, with whatever program, must get the same bytes.
const (
	earDeveloper = "https://github.com/concordat/concordat"
	earBuild     = "concordat/ear/1"
)

// Tier is how far an attester can be relied on (AR4SI, section 3.2). Its zero
// value says nothing.
type Tier int8

// The tiers.
const (
	TierNone            Tier = 0
	TierAffirming       Tier = 2
	TierWarning         Tier = 32
	TierContraindicated Tier = 96
)

// String names the tier as AR4SI does.
func (t Tier) String() string {
	switch {
	case t == -1 || t == 0 || t == 1:
		return "none"
	case t > 1 && t < TierWarning:
		return "affirming"
	case t >= TierWarning && t < TierContraindicated:
		return "warning"
	}
	return "contraindicated"
}

// Vector is AR4SI's trustworthiness vector (its section 3.1): a claim for every
// aspect that was looked at. nil: nothing is said about it. This verifier says
// nothing about file-system, storage-opaque and sourced-data, which evidence of
// these platforms does not show.
type Vector struct {
	InstanceIdentity *Tier `cbor:"0,keyasint,omitempty"`
	Configuration    *Tier `cbor:"1,keyasint,omitempty"`
	Executables      *Tier `cbor:"2,keyasint,omitempty"`
	FileSystem       *Tier `cbor:"3,keyasint,omitempty"`
	Hardware         *Tier `cbor:"4,keyasint,omitempty"`
	RuntimeOpaque    *Tier `cbor:"5,keyasint,omitempty"`
	StorageOpaque    *Tier `cbor:"6,keyasint,omitempty"`
	SourcedData      *Tier `cbor:"7,keyasint,omitempty"`
}

// Claims of the vector that are not the start of a tier (AR4SI, section 2.3).
const (
	approvedBoot       Tier = 3  // executables: approved ones were loaded at boot; later is not seen
	unrecognized       Tier = 97 // hardware that is not known to be genuine, such as a simulator
	cryptographyFailed Tier = 99 // no authentic evidence
)

// Attester is the appraisal of one submodule.
type Attester struct {
	Status   Tier     `cbor:"1000,keyasint"`
	Vector   *Vector  `cbor:"1001,keyasint,omitempty"`
	Policies []string `cbor:"1003,keyasint,omitempty"`
}

// EAR is an attestation result: what this appraisal says, in the terms of
// RFC 9711 and draft-ietf-rats-ear-04. Labels of Attesters are "enclave" (what
// the enclave claims about itself), "snp", "tdx", "tpm", "gpu[0]" and so on, and
// "gpu" for the set of GPUs.
type EAR struct {
	Profile   string              `cbor:"265,keyasint"`
	Status    Tier                `cbor:"1000,keyasint"`
	IssuedAt  int64               `cbor:"6,keyasint"` // Unix seconds: the time that was judged
	Verifier  EARVerifier         `cbor:"1004,keyasint"`
	Attesters map[string]Attester `cbor:"266,keyasint"`
	Nonce     []byte              `cbor:"10,keyasint,omitempty"` // of the challenge, if there was one
	Concordat EARExtension        `cbor:"-70000,keyasint"`
}

// EARVerifier is ear_verifier_id.
type EARVerifier struct {
	Developer string `cbor:"0,keyasint"`
	Build     string `cbor:"1,keyasint"`
}

// EARExtension is what Concordat adds (private label -70000): what is needed to
// appraise again, and the checks by name.
type EARExtension struct {
	Verdict   string             `cbor:"1,keyasint"`
	Simulated bool               `cbor:"2,keyasint"`
	Evidence  attestation.Digest `cbor:"3,keyasint"` // [attestation.Evidence.Digest]; of the bytes where an item was judged alone
	Policy    attestation.Digest `cbor:"4,keyasint"` // none: the built-in one
	Challenge *EARChallenge      `cbor:"5,keyasint,omitempty"`
	Checks    []EARCheck         `cbor:"6,keyasint"` // the first 1000
	Full      attestation.Digest `cbor:"7,keyasint"` // SHA-256 of the checks with all their words
}

// EARChallenge is [attestation.NonceProof].
type EARChallenge struct {
	_     struct{} `cbor:",toarray"`
	Node  attestation.Digest
	Nonce [32]byte
	Index uint64
	Count uint64
	Path  []attestation.Digest
}

// Proof returns the proof for appraising again, nil for nil.
func (c *EARChallenge) Proof() *attestation.NonceProof {
	if c == nil {
		return nil
	}
	return &attestation.NonceProof{Node: c.Node, Nonce: c.Nonce, Index: c.Index, Count: c.Count, Path: c.Path}
}

// EARCheck is a check without its words.
type EARCheck struct {
	_       struct{} `cbor:",toarray"`
	Name    string
	Verdict string
}

// MaxEAR bounds an encoded result.
const MaxEAR = cose.MaxMessage

// maxListed bounds the checks that a result lists, so that it always fits: more
// than the largest machine has, 31 GPUs with 25 checks each.
const maxListed = 1000

// EAR returns the result as deterministic CBOR, for [Result.SignEAR]. An auditor
// who has the evidence, the vendors' documents and the policy takes time and
// challenge from a result, appraises with them and gets the same bytes. For that
// the time of the appraisal must be of whole seconds.
func (r *Result) EAR() []byte {
	e := EAR{
		Profile:   ProfileEAR,
		IssuedAt:  r.at.Unix(),
		Verifier:  EARVerifier{earDeveloper, earBuild},
		Attesters: map[string]Attester{},
		Concordat: EARExtension{
			Verdict: r.Verdict().String(), Simulated: r.simulated, Evidence: r.evidence, Policy: r.policy,
			Checks: []EARCheck{}, Full: fullChecks(r.checks),
		},
	}
	if c := r.challenge; c != nil {
		e.Nonce, e.Concordat.Challenge = c.Nonce[:], c
	}
	groups := map[string][]Check{}
	for _, c := range r.checks {
		if len(e.Concordat.Checks) < maxListed {
			e.Concordat.Checks = append(e.Concordat.Checks, EARCheck{Name: c.Name, Verdict: c.Verdict.String()})
		}
		label, _ := submodule(c.Name)
		groups[label] = append(groups[label], c)
	}
	e.Status = r.status()
	for label, checks := range groups {
		e.Attesters[label] = r.attester(checks)
		e.Status = worse(e.Status, e.Attesters[label].Status)
	}
	if len(e.Attesters) == 0 { // nothing was checked: the map must not be empty
		e.Attesters["enclave"] = Attester{Status: TierContraindicated}
	}
	return cose.Marshal(e)
}

// status is the tier of the whole.
func (r *Result) status() Tier {
	switch r.Verdict() {
	case Pass:
		return TierAffirming
	case Incomplete, Unsupported:
		return TierNone
	}
	return TierContraindicated // so is what a simulator vouches for
}

// attester is the appraisal of one submodule's checks. A pass under a
// simulator's roots is no genuine hardware to anyone who reads the vector.
func (r *Result) attester(checks []Check) Attester {
	var v Vector
	platform := false
	for _, c := range checks {
		label, base := submodule(c.Name)
		platform = platform || label != "enclave" && label != "gpu"
		aspect := v.aspect(base)
		switch c.Verdict {
		case Pass, PassSimulated:
			claim := TierAffirming
			if aspect == &v.Executables {
				claim = approvedBoot
			}
			lower(aspect, claim)
		case Incomplete, Unsupported:
			lower(aspect, TierNone)
		case NotChecked:
		default:
			lower(aspect, TierContraindicated)
		}
	}
	switch {
	case platform && !r.authentic:
		lower(&v.Hardware, cryptographyFailed)
	case platform && r.simulated:
		lower(&v.Hardware, unrecognized)
	}
	a := Attester{Status: TierAffirming, Vector: &v}
	empty := true
	for _, t := range []*Tier{v.InstanceIdentity, v.Configuration, v.Executables, v.Hardware, v.RuntimeOpaque} {
		if t != nil {
			empty = false
			a.Status = worse(a.Status, tierOf(*t))
		}
	}
	if empty {
		a = Attester{Status: TierNone}
	}
	if !r.policy.IsZero() {
		a.Policies = []string{"urn:concordat:policy:" + r.policy.String()}
	}
	return a
}

func tierOf(t Tier) Tier {
	switch t.String() {
	case "none":
		return TierNone
	case "affirming":
		return TierAffirming
	case "warning":
		return TierWarning
	}
	return TierContraindicated
}

// worse returns the claim that trusts less. What is not known is trusted less
// than a warning, and more than what speaks against the attester.
func worse(a, b Tier) Tier {
	rank := func(t Tier) int {
		switch tierOf(t) {
		case TierAffirming:
			return 0
		case TierWarning:
			return 1
		case TierNone:
			return 2
		}
		return 3
	}
	switch ra, rb := rank(a), rank(b); {
	case ra > rb || ra == rb && a >= b:
		return a
	}
	return b
}

func lower(aspect **Tier, claim Tier) {
	if *aspect != nil {
		claim = worse(**aspect, claim)
	}
	*aspect = &claim
}

// submodule returns the label of the attester that a check is about, and the
// check's name without it.
func submodule(name string) (label, base string) {
	label, base, _ = strings.Cut(name, ".")
	if label == "envelope" || label == "claims" {
		label = "enclave"
	}
	return label, base
}

// aspect returns the claim of the vector that a check bears on. Checks of
// signatures, certificates, firmware versions and whatever is not listed are
// about the hardware.
func (v *Vector) aspect(base string) **Tier {
	switch base {
	case "schema", "items", "endorsements", "federation", "policy", "policy-version", "simulated", "role", "epoch", "gpu", "nonce", "tpm", // of the enclave
		"report-data", "host-data", "chip", "certificate-chip", "platform-instance", "mrconfigid", "mrowner", "ak-binding",
		"device", "distinct", "count", "topology":
		return &v.InstanceIdentity
	case "vmpl", "smt", "cxl", "single-socket", "page-swap", "alias-check", "attributes", "perfmon", "sept-ve-disable", "xfam", "mode":
		return &v.Configuration
	case "measurement", "measurements", "guest-svn", "id-key", "author-key", "mrtd", "rtmr", "rtmr3", "mrservicetd", "pcrs", "pcr-selection", "events":
		return &v.Executables
	case "debug", "migration", "migratable":
		return &v.RuntimeOpaque // memory that the host could read
	}
	return &v.Hardware
}

// fullChecks is the digest over everything that checks say.
func fullChecks(checks []Check) attestation.Digest {
	list := make([][5]string, len(checks))
	for i, c := range checks {
		list[i] = [5]string{c.Name, c.Verdict.String(), c.Expected, c.Got, c.Advice}
	}
	return cose.Sum(cose.Marshal(list))
}

// SignEAR returns the result as a COSE_Sign1 by the verifier's own key. issuer
// says who that is; the subject is the digest of the evidence. Reading it needs
// [OpenEAR]. The signature says who appraised, not that the appraisal is right:
// that anyone can find out by appraising again.
func (r *Result) SignEAR(s *cose.Signer, issuer string) ([]byte, error) {
	raw, err := cose.Sign(s, cose.Header{Type: typeEAR, Issuer: issuer, Subject: r.evidence.String()}, r.EAR(), nil)
	if err != nil {
		return nil, fmt.Errorf("attestation result: %w", err)
	}
	return raw, nil
}

// OpenEAR verifies a signed result against the key of who appraised. It returns
// the payload too, for comparing with one's own.
func OpenEAR(raw []byte, k cose.Key) (*EAR, []byte, error) {
	m, err := cose.Parse(raw)
	if err != nil {
		return nil, nil, fmt.Errorf("attestation result: %w", err)
	}
	if m.Header.Type != typeEAR {
		return nil, nil, fmt.Errorf("attestation result: type %.40q, want %q", m.Header.Type, typeEAR)
	}
	if err := m.Verify(k, nil); err != nil {
		return nil, nil, fmt.Errorf("attestation result: %w", err)
	}
	e, err := ParseEAR(m.Payload)
	if err != nil {
		return nil, nil, err
	}
	if m.Header.Subject != e.Concordat.Evidence.String() {
		return nil, nil, errors.New("attestation result: subject is not the evidence")
	}
	return e, m.Payload, nil
}

// ParseEAR decodes what [Result.EAR] returns, and no other verifier's result. It
// says nothing about the truth of it.
func ParseEAR(b []byte) (*EAR, error) {
	if len(b) > MaxEAR {
		return nil, fmt.Errorf("attestation result: %d bytes, limit %d", len(b), MaxEAR)
	}
	e := new(EAR)
	if err := cose.Unmarshal(b, e); err != nil {
		return nil, fmt.Errorf("attestation result: %w", err)
	}
	var verdict check.Verdict
	switch {
	case e.Profile != ProfileEAR:
		return nil, fmt.Errorf("attestation result: profile %.60q, want %q", e.Profile, ProfileEAR)
	case e.Verifier != EARVerifier{earDeveloper, earBuild}:
		return nil, fmt.Errorf("attestation result: by %.60q, build %.40q", e.Verifier.Developer, e.Verifier.Build)
	case len(e.Attesters) == 0:
		return nil, errors.New("attestation result: no attester")
	case verdict.UnmarshalText([]byte(e.Concordat.Verdict)) != nil:
		return nil, fmt.Errorf("attestation result: verdict %.20q", e.Concordat.Verdict)
	case e.Concordat.Challenge == nil && len(e.Nonce) > 0 || e.Concordat.Challenge != nil && string(e.Nonce) != string(e.Concordat.Challenge.Nonce[:]):
		return nil, errors.New("attestation result: nonce and challenge differ")
	}
	return e, nil
}

// Time returns the time that was judged.
func (e *EAR) Time() time.Time { return time.Unix(e.IssuedAt, 0).UTC() }
