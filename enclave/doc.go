// Package enclave is the supervisor inside the confidential VM: it proves what it
// is, joins with nodes that believe it, aggregates what they send, and lets nothing
// out before every contributor has signed for it.
//
// It starts from a signed policy chain and a link's address, and nothing else:
// [New] makes its keys in memory, [Enclave.Run] works until its context ends or the
// epoch is superseded. It listens on nothing, writes nothing to disk and reads no
// environment. Where it is given package apps, it starts the ServerApp of a run whose
// members approved its code, and nothing else. A successor gets what it needs from the nodes that appraise it anew.
//
// # Who owns what
//
// One goroutine, the loop, owns all state: windows, nodes, runs, and the chain of
// statements. Work that waits (hardware, the link, arithmetic) runs in jobs, which
// get copies and hand a function back to the loop. Run waits for all of them.
package enclave
