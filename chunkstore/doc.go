// Package chunkstore seals objects into chunks that anyone may store and only a
// key holder opens, names each chunk by a tree over its ciphertext, and says
// what a store of them must do.
//
// Start with [Seal] and [Open]; with [NewOpener] where only some 64 KiB
// segments are wanted; with [Manifest] for the list of what a contribution
// holds, and [Root] for what its author signs. [Store] is the contract of
// stores and [Mem] the one in memory; package pack has the one on disk and
// package storetest the suite that all pass.
//
// # What a chunk id is good for
//
// An [ID] commits to the header and to every byte of ciphertext; the header
// commits to the opening. An id that stands in a signed statement therefore has
// one content, whoever asks and however often: a second opening is refused even
// to the owner of all keys, and so are segments that were exchanged between two
// readings. An id from anywhere else proves nothing.
//
// Keys follow from a run's secret, the step and the object's own id, so equal
// objects have equal chunks within one contribution and nowhere else: which
// arrays changed since the last step does not show.
//
// # What it does not do
//
// It signs nothing and checks no signatures, moves no bytes over a network, and
// hides neither sizes nor times nor who stores. It cannot wipe keys from memory.
// Errors name chunk ids, never plaintext ids.
package chunkstore
