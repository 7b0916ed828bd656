// Package control serves Flower's Control API to the unmodified flwr command: of versions
// 1.26 to 1.29 over gRPC (dialect A) and of 1.37 and later over HTTP (dialect C), at one
// address. Runs are kept in memory, with what they print, and on disk in a [Store]; the
// [Runner] behind it, a member's own node, does the work.
//
// A [Listener] says who may call. On an address of this machine alone there may be one
// local account: whoever reaches it may start bundles that the node's owner approved, and
// sees and stops every run that was started here. Elsewhere every call shows a token of the
// member's OpenID Connect provider, over TLS, and an account sees its own runs alone. What a
// run has left is had at an address with a key in it, which the command shows.
package control
