// Package node is the daemon at a data owner. It only dials out: to a link that it
// does not trust, through which it challenges the federation's enclave, appraises
// what answers against the policy that its own member signed, and only then joins,
// pulls tasks, runs the approved app on its own data, and contributes sealed updates.
// It signs one ack a step, ever, mirrors the log and cosigns it for its member, and
// writes the bundle that an officer verifies.
//
// Start with [New] and [Node.Run], which returns after a clean drain. Everything that
// must survive a crash is in package journal, durable before anything that depends on
// it is sent.
//
// # Who owns what
//
// One goroutine, the loop, owns all state; work that waits runs in jobs that hand a
// function back to it (package internal/loop).
package node
