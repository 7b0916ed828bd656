// Package control serves Flower's Control API to the unmodified flwr command: of versions
// 1.26 to 1.29 over gRPC (dialect A) and of 1.37 and later over HTTP (dialect C), at one
// address. Runs are kept in memory, with what they print; the
// [Runner] behind it, a member's own node, does the work.
//
// There is one local account: whoever reaches the listener may start bundles that the
// node's owner approved, and sees and stops every run that was started here. The
// listener must be one that only the member's own users reach. Accounts of an OIDC
// provider are not served yet.
package control
