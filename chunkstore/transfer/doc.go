// Package transfer moves sealed chunks between a link and those who dial it: what is
// missing is asked for and sent alone, several batches at once; streams resume after any
// break, and memory is bounded on both sides. It sees ciphertext and chunk ids, nothing else.
//
// Start with [NewClient]: [Client.Upload] sends, [Client.Get] and [NewReader] read.
// [Server] is the link's side, over any chunkstore.Store.
//
// It checks no chunk against its id: the store does when it takes one, and the
// reader, who trusts no store, when it opens a segment.
package transfer
