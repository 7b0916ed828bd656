package main

import (
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/daemon/keyfile"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier"
)

// refusals tries five things that must not succeed. The demo fails if one does.
func (d *demo) refusals() error {
	d.out.heading("Trying what must be refused")
	d.enclave.stop()
	for _, try := range []func() error{d.wrongMeasurement, d.debugEnclave, d.smallerSet, d.noCredential, d.flippedBit} {
		if err := try(); err != nil {
			return err
		}
	}
	return nil
}

// refused shows a refusal.
func (d *demo) refused(letter, tried, by, reason string) {
	d.result.Refusals = append(d.result.Refusals, refusalResult{letter, tried, by, reason})
	d.out.line("%s  %s", d.out.paint(green, letter), tried)
	d.out.quote(by, reason)
}

func (d *demo) wrongMeasurement() error {
	other := sha512.Sum384([]byte("another image"))
	return d.badEnclave("a", "an enclave whose measurement the policy does not list: no node joins it, so none pulls a task", "measurement="+hex.EncodeToString(other[:]),
		map[string]string{"snp": "snp.measurement", "tdx": "tdx.mrtd"}[d.platform])
}

func (d *demo) debugEnclave() error {
	return d.badEnclave("b", "an enclave with debugging on, whose host can read its memory", "debug", d.platform+".debug")
}

// badEnclave starts an enclave on a machine with a fault and demands that every node
// refuses it, and that it is this check that it fails.
func (d *demo) badEnclave(letter, tried, fault, check string) error {
	machine := filepath.Join(d.state, "machine-"+letter+".json")
	if _, err := output(d.ctx, d.sim, "machine", "--from", d.machine, "--fault", fault, "--out", machine); err != nil {
		return err
	}
	since := d.events.len()
	e, err := d.startEnclave("enclave-"+letter, machine)
	if err != nil {
		return err
	}
	defer e.stop()
	var reason string
	joined := false
	left := slices.Clone(d.members)
	err = d.await("every node to refuse the enclave", func(ctx context.Context) error {
		return d.events.await(ctx, since, func(ev nodeEvent) bool {
			switch ev.GetEvent() {
			case "joined":
				joined = true
			case "refused":
				left = slices.DeleteFunc(left, func(h *hospital) bool { return h == ev.node })
				if ev.node == d.members[0] {
					reason = ev.GetReason()
				}
			}
			return joined || len(left) == 0
		})
	})
	if err != nil {
		return err
	}
	switch {
	case joined:
		return fmt.Errorf("case %s: a node joined the enclave with the fault %q", letter, fault)
	case !strings.Contains(reason, check+":"):
		return fmt.Errorf("case %s: the enclave with the fault %q was refused for another reason: %s", letter, fault, reason)
	}
	d.refused(letter, tried, fmt.Sprintf("%s, as every node", d.members[0].id), reason)
	return nil
}

// lostStep is the step after whose acks the first enclave of case c is lost: it
// closes the training of the second round.
const lostStep = 4

// smallerSet is two genuine enclaves and a host that plays them against each other.
// The first closes a step over everybody's contributions; everybody signs; and before
// it can release anything the host cuts its power. The second resumes the run, but the
// host keeps one hospital from it. Were the smaller sum released too, or the larger
// known already, their difference would be that hospital's update.
func (d *demo) smallerSet() error {
	since := d.events.len()
	first, err := d.startEnclave("enclave-first", d.machine, "--crash-after", "acked:"+strconv.Itoa(lostStep))
	if err != nil {
		return err
	}
	first.leave()
	if err := d.awaitJoined(since, d.members...); err != nil {
		return err
	}
	request, err := d.request(d.rounds)
	if err != nil {
		return err
	}
	if err := d.await("the enclave to be lost", first.wait); d.ctx.Err() != nil || !first.killed() {
		return errors.Join(errors.New("case c: the first enclave was not lost"), err)
	}
	last := d.members[len(d.members)-1]
	last.node.signal(syscall.SIGSTOP)
	defer last.node.signal(syscall.SIGCONT)
	rest := d.members[:len(d.members)-1]

	from := d.events.len()
	second, err := d.startEnclave("enclave-second", d.machine)
	if err != nil {
		return err
	}
	d.enclave = second
	if err := d.awaitJoined(from, rest...); err != nil {
		return err
	}
	reason, err := d.awaitAckRefusals(from, request, rest)
	if err != nil {
		return err
	}
	d.refused("c", fmt.Sprintf("a second enclave, after a feigned crash, that is offered the same step without %s: nobody signs, nothing leaves", last.id), string(rest[0].id), reason)
	return nil
}

// killed reports whether the child, which was waited for, was ended by SIGKILL.
func (p *process) killed() bool {
	s, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && s.Signaled() && s.Signal() == syscall.SIGKILL
}

// awaitAckRefusals waits for the end of the run and demands that a node refused to
// sign the smaller set, and that the step was never released.
func (d *demo) awaitAckRefusals(from int, request string, rest []*hospital) (reason string, err error) {
	var ended, released bool
	var outcome string
	refusing := map[*hospital]string{}
	err = d.await("the resumed run to end", func(ctx context.Context) error {
		return d.events.await(ctx, from, func(e nodeEvent) bool {
			switch e.GetEvent() {
			case "ack-refused":
				refusing[e.node] = e.GetReason()
			case "step":
				released = released || e.GetSeq() >= lostStep
			case "ended":
				if e.node == d.members[0] && hex.EncodeToString(e.GetRequest()) == request {
					ended, outcome = true, e.GetOutcome()
				}
			}
			return ended
		})
	})
	switch {
	case err != nil:
		return "", err
	case released:
		return "", errors.New("case c: the step was released to somebody")
	case outcome == "completed":
		return "", errors.New("case c: the run completed")
	case refusing[rest[0]] == "":
		return "", fmt.Errorf("case c: the run is %s, and %s did not refuse to sign", outcome, rest[0].id)
	}
	return refusing[rest[0]], nil
}

// noCredential is a node that says it is the first hospital's, with a credential
// that the hospital did not sign. The link turns it away; a link that did not would
// gain nothing, for the enclave asks for the same credential inside the join.
func (d *demo) noCredential() error {
	dir := filepath.Join(d.state, "intruder")
	if err := d.command(nil, "node", "enroll", "--member", string(d.members[0].id), "--witness=false", "--out", dir); err != nil {
		return err
	}
	self, err := keyfile.ReadSigner(filepath.Join(dir, "node.key"))
	if err != nil {
		return err
	}
	issuer, err := cose.GenerateSigner(cose.EdDSA)
	if err != nil {
		return err
	}
	raw, err := policy.SignCredential(issuer, policy.NodeCredential{Federation: d.result.Federation, Member: d.members[0].id,
		NodeKey: self.Public(), Serial: 1, NotAfter: uint64(time.Now().Add(time.Hour).Unix())})
	if err != nil {
		return err
	}
	if err := createFile(filepath.Join(dir, "node.credential"), raw); err != nil {
		return err
	}
	p, err := d.procs.start("intruder", d.self, "node", "--link", d.link, "--policy", d.chain, "--key", filepath.Join(dir, "node.key"),
		"--member", string(d.members[0].id), "--data", filepath.Join(dir, "data"), "--control", d.members[0].control+".i")
	if err != nil {
		return err
	}
	p.leave()
	if err := d.await("the intruder to be turned away", p.wait); err == nil || d.ctx.Err() != nil {
		return errors.Join(errors.New("case d: a node without a member's credential was not turned away"), d.ctx.Err())
	}
	_, reason, ok := strings.Cut(p.last(), "desc = ") // of the gRPC status with which the link answered
	if !ok || !strings.Contains(reason, "credential of "+string(d.members[0].id)) {
		return fmt.Errorf("case d: the intruder's node ended for another reason: %s", p.last())
	}
	d.refused("d", fmt.Sprintf("a node with a credential that %s did not sign", d.members[0].id), "the link", reason)
	return nil
}

// flippedBit is the bundle with one bit changed.
func (d *demo) flippedBit() error {
	b, err := os.ReadFile(d.result.Bundle)
	if err != nil {
		return err
	}
	b[len(b)/2] ^= 1
	flipped := filepath.Join(d.state, "flipped.cbor")
	if err := os.WriteFile(flipped, b, 0o600); err != nil {
		return err
	}
	report := new(verifier.Report)
	err = d.command(report, "verify", flipped, "--trust", d.result.Trust)
	if err == nil {
		return errors.New("case e: a bundle with one flipped bit was verified")
	}
	if len(report.Checks) == 0 {
		return fmt.Errorf("case e: no verdict: %w", err)
	}
	d.refused("e", fmt.Sprintf("the bundle with bit 0 of byte %d flipped", len(b)/2), "concordat verify", obstacle(report))
	return nil
}
