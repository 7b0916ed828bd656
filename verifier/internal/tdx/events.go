package tdx

import (
	"fmt"
	"slices"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/eventlog"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/internal/events"
)

// events replays event logs against the quote's RTMRs where the policy names
// events, or where a log was given without a policy.
func (j *judge) events(ends *attestation.Endorsements, refs []attestation.Digest) {
	var rules []policy.Event
	if j.tdx != nil {
		rules = j.tdx.Events
	}
	regs := events.Registers{
		Name: "RTMR", Alg: eventlog.SHA384, Index: func(n uint64) uint32 { return eventlog.RTMR(int(n)) },
		Values: make(map[uint64][]byte, len(j.quote.Body.RTMR)),
	}
	for i := range j.quote.Body.RTMR {
		regs.Values[uint64(i)] = j.quote.Body.RTMR[i][:]
	}
	if !slices.ContainsFunc(rules, func(e policy.Event) bool { return e.Register == 3 }) {
		j.r.NotChecked("rtmr3", fmt.Sprintf("no policy names events of it; here: %x", j.quote.Body.RTMR[3]))
	}
	events.Appraise(ends.ByType(attestation.TypeEventLog, refs), regs, j.policy, rules, j.r)
}
