package flower

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

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

// The names of records that the enclave adds to what apps get begin with RecordOwn; no app
// gets them, and none may use such a name. Those of RecordState hold what the strategy
// needs in the next round. Where the app's own ServerApp aggregates, RecordTerms is a
// config with the type and the group of its message and, unless all get it, the nodes that
// do, and RecordTotals holds the metrics of the members together, as a native strategy
// would make them. [Address] says which records are for single nodes.
const (
	RecordOwn    = "concordat."
	RecordState  = RecordOwn + "state."
	RecordTerms  = RecordOwn + "message"
	RecordTotals = RecordOwn + "metrics"
)

// Keys of the record RecordTerms.
const (
	termsType  = "type"
	termsGroup = "group"
	termsTo    = "to"
)

// Terms are how Flower's message around a content is labelled.
type Terms struct {
	Type  string // "train", "evaluate" or "query", with ".action" if it has one
	Group string
	To    []uint64 // numbers of the nodes that it goes to ([NodeNumber]), ascending; nil: all of the cohort
}

// Asks reports whether the message goes to a node. Others do not answer it.
func (t Terms) Asks(number uint64) bool {
	_, found := slices.BinarySearch(t.To, number)
	return t.To == nil || found
}

// Record returns the terms as the record [RecordTerms].
func (t Terms) Record() object.ConfigRecord {
	c := object.ConfigRecord{{Key: termsType, Value: object.String(t.Type)}, {Key: termsGroup, Value: object.String(t.Group)}}
	if t.To != nil {
		c = append(c, object.ValueItem{Key: termsTo, Value: object.Uints(t.To)})
	}
	return c
}

// TermsOf reads the record [RecordTerms] of d. opens is what the step opens, which the
// type must be one of.
func TermsOf(d object.RecordDict, opens string) (Terms, error) {
	c, _ := d.Get(RecordTerms).(object.ConfigRecord)
	kind, okType := c.Get(termsType).(object.String)
	group, okGroup := c.Get(termsGroup).(object.String)
	base, _, _ := strings.Cut(string(kind), ".")
	t := Terms{Type: string(kind), Group: string(group)}
	known := 2
	if to, some := c.Get(termsTo).(object.Uints); some {
		t.To, known = to, 3
	}
	if len(c) != known || !okType || !okGroup || base != opens || known == 3 && len(t.To) == 0 ||
		!slices.IsSortedFunc(t.To, func(a, b uint64) int { return cmp.Or(cmp.Compare(a, b), -1) }) {
		return Terms{}, fmt.Errorf("%w: a message of the ServerApp without its terms", ErrRefused)
	}
	return t, nil
}

// recordBundle is where a run request has the app's bundle.
const recordBundle = RecordOwn + "bundle"

// PackBundle returns the content of an app bundle as what a run request may hold instead
// of initial arrays.
func PackBundle(content []byte) object.RecordDict {
	return object.RecordDict{{Name: recordBundle, Record: object.ConfigRecord{{Key: "fab", Value: object.Bytes(content)}}}}
}

// UnpackBundle is the inverse of [PackBundle].
func UnpackBundle(d object.RecordDict) ([]byte, error) {
	c, _ := d.Get(recordBundle).(object.ConfigRecord)
	content, ok := c.Get("fab").(object.Bytes)
	if !ok || len(d) != 1 || len(c) != 1 {
		return nil, errors.New("want one RecordDict with an app bundle")
	}
	return content, nil
}

// metricExamples is the metric that Flower's strategies weigh by, and so do native ones.
const metricExamples = "num-examples"

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
// under p: its form, the size of its metrics, their keys, and whether they can be averaged.
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
	return checkMeans(metrics)
}

// checkMeans says whether metrics can be averaged with others: the weight is there, and
// all are finite. Values stay out of the error: the enclave logs it.
func checkMeans(metrics object.MetricRecord) error {
	const mostExamples = 1 << 53 // of all contributions together (enclave/aggregate)
	var weighs bool
	switch n := metrics.Get(metricExamples).(type) {
	case object.Sint:
		weighs = n >= 0 && n <= mostExamples
	case object.Uint:
		weighs = n <= mostExamples
	}
	if !weighs {
		return fmt.Errorf("%w: metric %q is no whole number from 0 to 2^53", ErrRefused, metricExamples)
	}
	for _, it := range metrics {
		var numbers []float64
		switch v := it.Value.(type) {
		case object.Double:
			numbers = []float64{float64(v)}
		case object.Doubles:
			numbers = v
		}
		for _, x := range numbers {
			if !(math.Abs(x) < 0x1p1023) { // NaN too
				return fmt.Errorf("%w: metric %.80q is not finite, or too large for a mean", ErrRefused, it.Key)
			}
		}
	}
	return nil
}

// CheckCustomReply is [CheckReply] where the app's own ServerApp aggregates: the reply has
// the form that the two agreed on, but what is no array is bounded and named all the same
// (protocol F21). asked is the content that it answers: names of arrays count where that
// does not have them.
func CheckCustomReply(d, asked object.RecordDict, p *policy.Policy) error {
	known := map[string]bool{}
	for _, it := range asked {
		if a, ok := it.Record.(object.ArrayRecord); ok {
			for _, x := range a {
				known[x.Name] = true
			}
		}
	}
	size, err := besidesArrays(d, known)
	if err != nil {
		return err
	}
	if size > p.Release.MaxMetricBytes {
		return fmt.Errorf("%w: %d bytes that are no arrays, the policy allows %d", ErrRefused, size, p.Release.MaxMetricBytes)
	}
	if len(p.Nodes.MetricKeys) == 0 {
		return nil
	}
	for _, it := range d {
		var items []object.ValueItem
		switch r := it.Record.(type) {
		case object.MetricRecord:
			items = r
		case object.ConfigRecord:
			items = r
		}
		for _, x := range items {
			if !slices.Contains(p.Nodes.MetricKeys, x.Key) {
				return fmt.Errorf("%w: metric %.80q is not among those that the policy lets out", ErrRefused, x.Key)
			}
		}
	}
	return nil
}

// CheckCustomContent says whether the enclave may hand a ServerApp's content to nodes,
// whatever it holds (protocol F5): the size of what is no array, with that of what else its
// message has. The arrays' shapes and names are for the enclave to compare.
func CheckCustomContent(d object.RecordDict, more uint64, p *policy.Policy) error {
	for _, it := range d {
		if strings.HasPrefix(it.Name, RecordOwn) {
			return fmt.Errorf("%w: a record with a name of the enclave's", ErrRefused)
		}
	}
	size, err := besidesArrays(d, nil)
	if err == nil && size+more > p.Release.MaxMetricBytes {
		err = fmt.Errorf("%w: a content of more bytes beside its arrays than the policy allows", ErrRefused)
	}
	return err
}

// besidesArrays counts the bytes of a content that are not in arrays, and with known those
// of arrays' names that are not in it.
func besidesArrays(d object.RecordDict, known map[string]bool) (size uint64, err error) {
	for _, it := range d {
		size += uint64(len(it.Name))
		if a, ok := it.Record.(object.ArrayRecord); ok {
			for _, x := range a {
				if known != nil && !known[x.Name] {
					size += uint64(len(x.Name))
				}
			}
			continue
		}
		if _, err := object.Flatten(it.Record, func(o object.Object) error { size += uint64(len(o.Raw)); return nil }); err != nil {
			return 0, err
		}
	}
	return size, nil
}
