package flower

import (
	"fmt"
	"slices"

	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/policy"
)

// The names of records in messages of Flower's strategies
// (flwr.serverapp.strategy: arrayrecord_key, configrecord_key). Metrics is where the
// enclave puts what it aggregated.
const (
	RecordArrays  = "arrays"
	RecordConfig  = "config"
	RecordMetrics = "metrics"
)

// RecordState starts the names of the records in which the enclave keeps what its
// strategy needs in the next round. Apps do not get them.
const RecordState = "concordat.state."

// ConfigRound is the key under which Flower's strategies send the round.
const ConfigRound = "server-round"

// Split returns the one ArrayRecord and the one MetricRecord of a reply, as Flower's
// strategies demand them; the names are the app's. An evaluation has no arrays. Any
// other record is refused: what a node lets out is bounded (protocol F21).
func Split(d object.RecordDict, train bool) (arrays object.ArrayRecord, metrics object.MetricRecord, err error) {
	var a, m int
	for _, it := range d {
		switch r := it.Record.(type) {
		case object.ArrayRecord:
			arrays = r
			a++
		case object.MetricRecord:
			metrics = r
			m++
		default:
			return nil, nil, fmt.Errorf("%w: a reply holds a %v", ErrRefused, it.Record.Kind())
		}
	}
	want := 0
	if train {
		want = 1
	}
	if a != want || m != 1 {
		return nil, nil, fmt.Errorf("%w: a reply has %d array and %d metric records, want %d and 1", ErrRefused, a, m, want)
	}
	return arrays, metrics, nil
}

// CheckReply says whether a reply may leave a node, and be taken by the enclave,
// under p: its form, the size of its metrics and their keys.
func CheckReply(d object.RecordDict, train bool, p *policy.Policy) error {
	_, metrics, err := Split(d, train)
	if err != nil {
		return err
	}
	size := 0
	if _, err := object.Flatten(metrics, func(o object.Object) error { size += len(o.Raw); return nil }); err != nil {
		return err
	}
	if uint64(size) > p.Release.MaxMetricBytes {
		return fmt.Errorf("%w: metrics of %d bytes, the policy allows %d", ErrRefused, size, p.Release.MaxMetricBytes)
	}
	for _, it := range metrics {
		if len(p.Nodes.MetricKeys) > 0 && !slices.Contains(p.Nodes.MetricKeys, it.Key) {
			return fmt.Errorf("%w: metric %.80q is not among those that the policy lets out", ErrRefused, it.Key)
		}
	}
	return nil
}
