// Package object is Flower's content-addressed object model, byte for byte: a
// Message holds a RecordDict, that holds records, an ArrayRecord holds Arrays,
// an Array holds ArrayChunks, and each of them is an object whose [ID] is the
// SHA-256 of its bytes. A message's id so commits to every gradient under it.
//
// Start with [Flatten], which turns Go values into objects, children first, and
// [Inflate], which turns them back and checks every id, list and size on the
// way. [ParseHead] reads one object without what is below it. [ParseNPY] and
// [NewArray] read and write the numpy form that Flower's arrays have.
//
// Parsing is strict: an object that Flower's own writer (flwr 1.26 and later)
// would have spelled differently is refused with [ErrInvalid]. That costs
// nothing, since objects are passed on as the bytes that they came as, and it
// leaves one object for each value. Never rebuild a received Message from its
// parsed form to send it on: pass its bytes.
//
// An id is a hash of content that may be easy to guess (a metric, a count). It
// stays inside encrypted envelopes: no error of this package contains one, nor
// a name or value of the object, and callers keep it out of their logs.
package object
