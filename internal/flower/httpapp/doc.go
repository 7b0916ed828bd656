// Package httpapp serves a flower.App to one process of flwr 1.35 or later (dialect C:
// Flower's Runtime API, protobuf over HTTP). Start with [Serve].
//
// Every call shows the process's token. The listener must be one that nobody but the
// process reaches: a loopback in a network namespace of its own, or at least of this
// machine.
package httpapp
