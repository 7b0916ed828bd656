package sim

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"slices"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/eventlog"
	"github.com/concordat/concordat/attestation/tpm"
	"github.com/concordat/concordat/policy"
)

// tpmFaults are what can be wrong with a vTPM.
var tpmFaults = []string{
	"tpm-missing",       // no item of the vTPM
	"tpm-nonce",         // a quote over another challenge
	"tpm-magic",         // the key signs bytes that software chose
	"tpm-type",          // another attestation than a quote
	"tpm-unbound",       // a TPM that the CPU's report does not vouch for
	"tpm-other-key",     // a quote that another key signed
	"tpm-two-keys",      // runtime data that name two signing keys
	"tpm-hash",          // a signature with another hash
	"tpm-signature",     // one bit of the signature flipped
	"tpm-bank",          // a quote of the bank of SHA-1
	"tpm-selection",     // a quote that leaves out PCR 11, beside a value for it
	"tpm-fewer",         // a quote that leaves out PCR 11, and no value for it
	"tpm-pcr-values",    // a value of PCR 11 that is not the quoted one
	"tpm-image",         // another kernel, honestly measured
	"tpm-secure-boot",   // Secure Boot off, honestly measured
	"tpm-event",         // another boot loader after the right one, honestly measured
	"tpm-event-missing", // no boot loader measured
	"tpm-log",           // an event log that was changed
	"tpm-log-cut",       // an event log without its last events
	"tpm-log-missing",   // no event log
}

type tpmState struct {
	key, other *rsa.PrivateKey // the vTPM's, and one that nobody vouches for
	refs       []attestation.Digest
}

// tpmKeyBits is the size of the attestation key of Azure's vTPM.
const tpmKeyBits = 2048

// The events of a good boot that policies speak of.
const (
	bootLoader = "boot loader 1"
	kernel     = "kernel 1 with command line"
	secureBoot = "SecureBoot on"
	bootOption = "Calling EFI Application from Boot Option"
)

// bootLog returns what the firmware measured; good leaves the faults out.
func (m *Machine) bootLog(good bool) *eventlog.Log {
	has := func(f string) bool { return !good && m.has(f) }
	l := eventlog.New(eventlog.SHA256, eventlog.SHA384)
	l.Extend(0, eventlog.Action, []byte("firmware 1"))
	if has("tpm-secure-boot") {
		l.Extend(7, eventlog.Action, []byte("SecureBoot off"))
	} else {
		l.Extend(7, eventlog.Action, []byte(secureBoot))
	}
	l.Extend(4, eventlog.Action, []byte(bootOption))
	for i := range uint32(8) {
		l.Extend(i, eventlog.Separator, make([]byte, 4))
	}
	if !has("tpm-event-missing") {
		l.Extend(4, eventlog.IPL, []byte(bootLoader))
	}
	if has("tpm-event") {
		l.Extend(4, eventlog.IPL, []byte("boot loader of somebody else"))
	}
	if has("tpm-image") {
		l.Extend(11, eventlog.IPL, []byte("kernel 2"))
	} else {
		l.Extend(11, eventlog.IPL, []byte(kernel))
	}
	return l
}

// pcrs returns the registers after l.
func pcrs(l *eventlog.Log) ([]tpm.PCR, error) {
	out := make([]tpm.PCR, tpm.NumPCRs)
	for i := range out {
		v, err := l.Replay(eventlog.SHA256, uint32(i))
		if err != nil {
			return nil, err
		}
		if i >= 17 && i <= 22 {
			v = bytes.Repeat([]byte{0xFF}, len(v)) // no late launch happened
		}
		out[i] = tpm.PCR{Index: uint64(i), Value: v}
	}
	return out, nil
}

// issueTPM makes the vTPM's keys, once, and returns the boot's event log.
func (m *Machine) issueTPM() ([]attestation.Endorsement, error) {
	for _, k := range []**rsa.PrivateKey{&m.tpm.key, &m.tpm.other} {
		if *k != nil {
			continue
		}
		var err error
		if *k, err = rsa.GenerateKey(rand.Reader, tpmKeyBits); err != nil {
			return nil, err
		}
	}
	m.tpm.refs = nil
	if m.has("tpm-log-missing") {
		return nil, nil
	}
	l := m.bootLog(false)
	switch {
	case m.has("tpm-log"):
		l.Events[0].Digests[0] = bytes.Repeat([]byte{1}, 32) // PCR 0
		l.Events[2].Digests[0] = bytes.Repeat([]byte{1}, 32) // PCR 4
	case m.has("tpm-log-cut"):
		l.Events = l.Events[:len(l.Events)-2]
	}
	e := attestation.Endorsement{Type: attestation.TypeEventLog, Data: l.Marshal()}
	m.tpm.refs = []attestation.Digest{e.Digest()}
	return []attestation.Endorsement{e}, nil
}

// collectVTPM makes the CPU evidence as the paravisor asks for it at start, and
// the vTPM's quote for reportData.
func (m *Machine) collectVTPM(collect func([64]byte) (attestation.Item, error), reportData [64]byte) ([]attestation.Item, error) {
	runtime, err := tpm.MarshalRuntime(m.tpm.key.Public())
	if err != nil {
		return nil, err
	}
	if m.has("tpm-two-keys") {
		runtime = bytes.Replace(runtime, []byte(`"keys":[`), []byte(`"keys":[{"kid":"HCLAkPub"},`), 1)
	}
	cpu, err := collect(tpm.Binding(runtime))
	if err != nil || m.has("tpm-missing") {
		return []attestation.Item{cpu}, err
	}
	key := m.tpm.key
	if m.has("tpm-unbound") {
		key = m.tpm.other
		if runtime, err = tpm.MarshalRuntime(key.Public()); err != nil {
			return nil, err
		}
	}
	if m.has("tpm-other-key") {
		key = m.tpm.other
	}
	e, err := m.tpmQuote(key, tpm.ExtraData(reportData))
	if err != nil {
		return nil, err
	}
	e.Runtime = runtime
	return []attestation.Item{cpu, {Kind: attestation.KindTPM, Raw: e.Encode(), Endorsements: m.tpm.refs}}, nil
}

// tpmQuote makes the quote of all registers, with its faults.
func (m *Machine) tpmQuote(key *rsa.PrivateKey, challenge [32]byte) (*tpm.Evidence, error) {
	registers, err := pcrs(m.bootLog(false))
	if err != nil {
		return nil, err
	}
	e := &tpm.Evidence{PCRs: registers}
	q := &tpm.Quote{
		Signer:    append([]byte{0, 0x0b}, m.chipBytes("tpm/name", 32)...),
		ExtraData: challenge[:], Clock: tpm.Clock{Milliseconds: 123456789, Resets: 2, Safe: true}, Firmware: 0x20200312_00120003,
	}
	quoted := registers
	if m.has("tpm-selection") || m.has("tpm-fewer") {
		quoted = slices.Delete(slices.Clone(registers), 11, 12)
	}
	if m.has("tpm-fewer") {
		e.PCRs = quoted
	}
	var numbers []int
	h := sha256.New()
	for _, p := range quoted {
		numbers = append(numbers, int(p.Index))
		h.Write(p.Value)
	}
	q.Digest, q.Selections = h.Sum(nil), []tpm.Selection{tpm.Select(numbers...)}
	if m.has("tpm-bank") {
		q.Selections[0].Hash = 0x0004
	}
	if m.has("tpm-pcr-values") {
		good, err := pcrs(m.bootLog(true))
		if err != nil {
			return nil, err
		}
		e.PCRs[11].Value = bytes.Clone(good[11].Value)
		e.PCRs[11].Value[0] ^= 1
	}
	if m.has("tpm-nonce") {
		q.ExtraData[0] ^= 1
	}
	e.Quote = q.Marshal()
	switch {
	case m.has("tpm-magic"):
		e.Quote[0] ^= 1
	case m.has("tpm-type"):
		e.Quote[5] = 0x17 // TPM_ST_ATTEST_CERTIFY
	}
	sum := sha256.Sum256(e.Quote)
	sig, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
	if err != nil {
		return nil, err
	}
	s := &tpm.Signature{Scheme: tpm.RSASSA, Hash: tpm.SHA256, RSA: sig}
	if m.has("tpm-hash") {
		s.Hash = 0x000c
	}
	if m.has("tpm-signature") {
		s.RSA[100] ^= 1
	}
	e.Signature = s.Marshal()
	return e, nil
}

// describeTPM pins the firmware, Secure Boot and the kernel by value, and the
// boot loader by its event.
func (m *Machine) describeTPM(d *Description) error {
	registers, err := pcrs(m.bootLog(true))
	if err != nil {
		return fmt.Errorf("vTPM: %w", err)
	}
	t := new(policy.TPM)
	for _, n := range []uint64{0, 7, 11} {
		t.PCRs = append(t.PCRs, policy.PCR{Index: n, Values: []policy.Hex{registers[n].Value}})
	}
	rule := func(data []byte, required bool, name string) {
		t.Events = append(t.Events, policy.Event{Register: 4, Digest: eventlog.SHA256.Sum(data), Required: required, Name: name})
	}
	rule([]byte(bootOption), false, "boot option")
	rule(make([]byte, 4), true, "separator")
	rule([]byte(bootLoader), true, "boot loader")
	slices.SortFunc(t.Events, func(a, b policy.Event) int {
		return cmp.Or(cmp.Compare(a.Register, b.Register), bytes.Compare(a.Digest, b.Digest))
	})
	d.Platforms.TPM = t
	return nil
}
