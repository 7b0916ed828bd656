// Package pack is the chunkstore.Store on disk. Start with [Open].
//
// Today it writes one file per chunk and one directory per batch:
//
//	<root>/lock
//	<root>/<federation>/<run>/<owner>/<time>-<random>/<chunk id>
//
// all in lower-case hex; time is the commit's, as 16 digits of nanoseconds since
// the Unix epoch, and owner is 64 zeros for the downlink. A batch becomes
// visible by one rename of its directory, after every file and the directory
// were synced. A kill or power cut at any moment loses only what was not
// committed, and whole batches of that. An index of ids lies in memory; Open
// builds it from the names alone.
//
// The files hold ciphertext in the form that the chunk ids name, so the
// directory may be copied, and a reader detects every change. The store itself
// does not check again what it reads back. One process at a time uses a root.
package pack
