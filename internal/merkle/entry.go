package merkle

// The entries of the trees off the log. Each starts with the tag of its kind, so
// that no entry of one kind is an entry of another, and none is an entry of the
// log, whose entries are COSE messages and start with 0xd2. The leaf of an entry
// is [LeafHash] of it.
const (
	tagChunk    = "concordat/chunk-leaf/1\x00"
	tagInput    = "concordat/input-leaf/1\x00"
	tagAck      = "concordat/ack-leaf/1\x00"
	tagExcluded = "concordat/excluded-leaf/1\x00"
)

// ChunkEntry is the entry of a chunk with the given chunk id, in the tree of a
// contribution or of a step's outputs.
func ChunkEntry(id Hash) []byte { return append([]byte(tagChunk), id[:]...) }

// InputEntry is the entry of a contribution in a step's inputs. digest is the
// SHA-256 of the contribution statement.
func InputEntry(digest Hash) []byte { return append([]byte(tagInput), digest[:]...) }

// AckEntry is the entry of an ack in a release. digest is the SHA-256 of the ack
// statement.
func AckEntry(digest Hash) []byte { return append([]byte(tagAck), digest[:]...) }

// ExcludedEntry is the entry of a node that a step leaves out, with the coarse
// reason for it.
func ExcludedEntry(node Hash, code byte) []byte {
	return append(append([]byte(tagExcluded), node[:]...), code)
}
