package serverapp

import (
	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/internal/flower"
)

// Start is what a run with a native strategy needs of the first batch.
type Start struct {
	Arrays [][]byte       // objects of a RecordDict with the arrays alone, post-order, the root last
	Config map[string]any // of the message, without the round: bool, int64, float64 or string
}

// Start reads what Flower's strategies send first: the initial arrays, and the settings of
// train messages. Everything else, a native strategy cannot do. All nodes' contents are the
// same.
func (b *Batch) Start() (*Start, error) {
	if b.Type != "train" {
		return nil, refusef("its first message is %.40q, want \"train\": give the strategy initial arrays, and evaluate first on no node", b.Type)
	}
	n, err := object.Inflate(b.Contents[0], b.Get, object.Limits{Objects: flower.MaxObjects, Bytes: 1 << 40}) // it is in memory
	if err != nil {
		return nil, refusef("%w", err)
	}
	s := &Start{Config: map[string]any{}}
	for _, it := range n.(object.RecordDict) {
		switch r := it.Record.(type) {
		case object.ArrayRecord:
			if it.Name != flower.RecordArrays || len(r) == 0 {
				return nil, refusef("its arrays are a record named %.80q of %d arrays, want one named %q that is not empty (strategies of flwr.serverapp send it)", it.Name, len(r), flower.RecordArrays)
			}
			objects, err := object.Objects(object.RecordDict{{Name: it.Name, Record: r}})
			if err != nil {
				return nil, refusef("%w", err)
			}
			for _, x := range objects {
				s.Arrays = append(s.Arrays, x.Raw)
			}
		case object.ConfigRecord:
			if it.Name != flower.RecordConfig {
				return nil, refusef("its config is a record named %.80q, want %q", it.Name, flower.RecordConfig)
			}
			if err := settings(s.Config, r); err != nil {
				return nil, err
			}
		default:
			return nil, refusef("its message holds a %v", it.Record.Kind())
		}
	}
	if s.Arrays == nil {
		return nil, refusef("its message holds no arrays")
	}
	return s, nil
}

// settings reads the config of the message: scalars, which run configs can hold.
func settings(out map[string]any, r object.ConfigRecord) error {
	for _, it := range r {
		if it.Key == flower.ConfigRound {
			continue
		}
		switch v := it.Value.(type) {
		case object.Bool:
			out[it.Key] = bool(v)
		case object.Sint:
			out[it.Key] = int64(v)
		case object.Double:
			out[it.Key] = float64(v)
		case object.String:
			out[it.Key] = string(v)
		default:
			return refusef("train_config %.80q is no bool, integer, float or string", it.Key)
		}
	}
	return nil
}
