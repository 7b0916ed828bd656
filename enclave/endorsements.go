package enclave

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/internal/relay"
)

// fetchTime bounds how long a window's evidence waits for the link to ask vendors. Nodes'
// challenges are good for a minute; what comes later than this is there for the next
// window, since the link keeps it.
const fetchTime = 20 * time.Second

// fetchEndorsements has the link ask the vendors for what endorses ev, and names what
// came in its items, behind what the machine suggested. It believes nothing: an item's
// endorsements are suggestions, and whoever appraises the evidence checks each against
// the vendor's root. Without them the verdict says what is missing.
// At most room documents are named.
func (e *Enclave) fetchEndorsements(ctx context.Context, ev *attestation.Evidence, room int) (all []Digest) {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	for i := range ev.Items {
		it := &ev.Items[i]
		if it.Kind == attestation.KindTPM {
			continue // vouched for by the CPU's evidence
		}
		got, missing, err := e.peer.FetchEndorsements(ctx, string(it.Kind), it.Raw, it.Endorsements)
		switch {
		case errors.Is(err, relay.ErrNotFetched):
			return all
		case err != nil:
			e.log.WarnContext(ctx, "the link fetched no endorsements", "kind", string(it.Kind), "reason", err.Error())
			continue
		case missing != "":
			e.log.WarnContext(ctx, "the link could not fetch all endorsements", "kind", string(it.Kind), "reason", missing)
		}
		before := it.Endorsements
		for _, d := range got {
			if !d.IsZero() && !slices.Contains(it.Endorsements, d) && len(all)+len(it.Endorsements)-len(before) < room {
				it.Endorsements = append(slices.Clip(it.Endorsements), d)
			}
		}
		if _, err := attestation.ParseEvidence(ev.Encode()); err != nil { // more than an envelope may name
			e.log.WarnContext(ctx, "endorsements of the link left out", "kind", string(it.Kind), "reason", err.Error())
			it.Endorsements = before
			continue
		}
		all = append(all, it.Endorsements[len(before):]...)
	}
	return all
}
