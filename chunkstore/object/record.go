package object

// Node is a value that is one object, with everything below it: [*Message],
// [RecordDict], a [Record] or [*Array].
type Node interface{ Kind() Kind }

// Record is an entry of a RecordDict: [ArrayRecord], [ConfigRecord] or
// [MetricRecord].
type Record interface {
	Node
	record()
}

// RecordDict is the content of a message: records by name, in the order in
// which they were put in. The order is part of the id.
type RecordDict []RecordItem

// RecordItem is one record of a RecordDict.
type RecordItem struct {
	Name   string // unique
	Record Record
}

// Get returns the record of that name, or nil.
func (d RecordDict) Get(name string) Record {
	for _, it := range d {
		if it.Name == name {
			return it.Record
		}
	}
	return nil
}

// ArrayRecord is a model, or an update of one: arrays by name, in order.
type ArrayRecord []ArrayItem

// ArrayItem is one array of an ArrayRecord.
type ArrayItem struct {
	Name  string // unique; "0", "1", … where the app gave a list
	Array *Array
}

// Array is one tensor. Its bytes have a form of their own, named by SType; for
// "numpy.ndarray" see [ParseNPY]. DType and Shape say the same as the bytes do,
// but whoever computes with the array believes the bytes.
type Array struct {
	DType  string // as str(ndarray.dtype): "float32"
	Shape  []int  // no dimension is negative; none at all is a scalar
	SType  string // "numpy.ndarray"
	Chunks []Chunk
}

// ConfigRecord holds settings by key, in order. It may hold every kind of
// [Value].
type ConfigRecord []ValueItem

// MetricRecord holds numbers by key, in order: Double, Sint, Uint and lists of
// them.
type MetricRecord []ValueItem

// ValueItem is one entry of a ConfigRecord or MetricRecord.
type ValueItem struct {
	Key   string // unique
	Value Value
}

// Kind implements [Node].
func (RecordDict) Kind() Kind { return KindRecordDict }

// Kind implements [Node].
func (ArrayRecord) Kind() Kind { return KindArrayRecord }

// Kind implements [Node].
func (*Array) Kind() Kind { return KindArray }

// Kind implements [Node].
func (ConfigRecord) Kind() Kind { return KindConfigRecord }

// Kind implements [Node].
func (MetricRecord) Kind() Kind { return KindMetricRecord }

func (ArrayRecord) record()  {}
func (ConfigRecord) record() {}
func (MetricRecord) record() {}

// Get returns the value of that key, or nil.
func (c ConfigRecord) Get(key string) Value { return get(c, key) }

// Get returns the value of that key, or nil.
func (m MetricRecord) Get(key string) Value { return get(m, key) }

func get(items []ValueItem, key string) Value {
	for _, it := range items {
		if it.Key == key {
			return it.Value
		}
	}
	return nil
}

// ChunkSize is how many bytes of an array Flower puts into one ArrayChunk
// (FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE, flwr 1.23 and later). Writers use it, or
// equal data gets unequal ids; readers take any size.
const ChunkSize = 5_242_880

// Chunk is a piece of an Array's bytes.
type Chunk struct {
	// Data is the piece. If it is nil, the object is held elsewhere and ID
	// names it.
	Data []byte
	// ID is the ArrayChunk's id. [Inflate] sets it. [Flatten] computes it from
	// Data, and reads it only where Data is nil.
	ID ID
}

// SplitChunks cuts an array's bytes into chunks as Flower does. They share
// memory with data.
func SplitChunks(data []byte) []Chunk {
	var out []Chunk
	for len(data) > 0 {
		n := min(len(data), ChunkSize)
		out = append(out, Chunk{Data: data[:n:n]})
		data = data[n:]
	}
	return out
}

// Bytes returns the array's bytes, copied into one slice. It panics if a chunk
// has no Data: an array that was inflated in outline has no bytes here.
func (a *Array) Bytes() []byte {
	n := 0
	for _, c := range a.Chunks {
		n += len(c.Data)
	}
	b := make([]byte, 0, n)
	for _, c := range a.Chunks {
		if c.Data == nil {
			panic("object: internal error: Bytes of an array in outline")
		}
		b = append(b, c.Data...)
	}
	return b
}
