package hostile

import "github.com/concordat/concordat/internal/cose"

// Record is what anybody on the way sees of a sealed record.
type Record struct {
	_       struct{} `cbor:",toarray"`
	Label   string
	Session []byte
	Counter uint64
	Sealed  []byte
}

// RecordOf reads the record in a message, or returns nil if it has none.
func RecordOf(m Message) *Record {
	r := new(Record)
	if cose.Unmarshal(m.Payload(), r) != nil || r.Label != "concordat/join/1/record" {
		return nil
	}
	return r
}

// Frame returns the record's bytes.
func (r *Record) Frame() []byte { return cose.Marshal(r) }
