// Package pack is the chunkstore.Store on disk. Start with [Open].
//
// It keeps chunks in packs, files that are only ever appended to:
//
//	<root>/lock
//	<root>/<federation>/<run>/<owner>/<time>-<random>.pack
//
// all in lower-case hex; time is the first batch's, as 16 digits of nanoseconds
// since the Unix epoch, and owner is 64 zeros for the downlink. What is in a pack
// says format.go. A batch of more than 64 KiB becomes a pack of its own, which
// gets its name when it is durable. Smaller ones wait in memory until they are
// committed, and those that wait at the same time are appended to a pack of the
// scope together, with two syncs for all of them. A kill or power cut at any
// moment loses only what was not committed, and whole batches of that; [Open]
// cuts off what one left behind the last batch of a pack. An index of ids lies in
// memory; Open builds it from the records between the chunks.
//
// The packs hold ciphertext in the form that the chunk ids name, so the
// directory may be copied, and a reader detects every change. The store checks
// its own records when it opens, and not the chunks that it reads back. One
// process at a time uses a root.
package pack
