// Package process starts Flower's processes, and programs that act as one, confined: a
// node's ClientApps and the ServerApp of a run, wherever that is.
//
// [Open] looks at a Python environment with flwr in it, and [Environment.Program] says how
// one of its programs is started. [Start] makes a home, an address and a token file for
// one process and starts it in the sandbox; whoever started it serves it on
// [Process.Listener], in the way of its [Dialect], and removes what is left.
package process
