// Package serverapp serves one unmodified ServerApp process: flwr-serverapp of versions
// 1.26 to 1.29 over gRPC (dialect A's ServerAppIo), of 1.35 and later over HTTP (dialect
// C's Runtime API).
//
// A [Server] is told which nodes there are, and turns what the process does into batches:
// [Server.Next] returns the messages that it sent, once all their objects are here, and
// [Server.Answer] gives it the replies, all at once and in the order of their nodes, so
// that what it computes does not depend on who was first. A process that asks for replies
// is held until then. Every message of a batch has the same content: what differs from
// node to node is refused, unless [Config.Addressed]. Where some nodes get no message, that shows when the process
// asks for the replies to all that it sent, or after a moment in which more might have
// come; [Config.All] says what becomes of pools of threads.
//
// Two use it. A node runs the process of a run with a native strategy as far as its first
// batch, which says with which arrays training begins and which settings ClientApps get
// ([Batch.Start]); the process sees no data then. The enclave runs it to its end where the
// app's own code aggregates.
//
// The process is hostile: whatever it pushes is bounded and checked against its id. Errors
// about it wrap [ErrRefused]; what [Rule] returns of them holds none of the process's
// words, which may quote what members sent.
package serverapp
