// Package log writes one federation's transparency log: it appends statements,
// signs checkpoints, has the members' witnesses cosign them, and serves the tiles
// (C2SP tlog-tiles) and COSE receipts that others check.
//
// Start with [Open] and [Log.Append]. An entry is durable when Append returns; it
// is published when [Config].Published is called with a checkpoint of a larger
// size, which as many witnesses have cosigned as the policy demands. Nothing less
// is ever published.
//
// The writer is Tessera on a POSIX directory. Reading and checking is in
// verifier/tlog; this package proves nothing to anybody, it is watched.
package log
