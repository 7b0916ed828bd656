// Package grpcapp serves one [flower.App] to its process by Flower's gRPC
// service ClientAppIo, as flwr 1.26 to 1.29 call it. Start with [Serve].
//
// The transport is plaintext and belongs on a Unix socket in a directory of the
// process's own. Every connection has to show the app's token before anything
// else: object calls of these versions carry no credential of their own.
//
// It does not serve flower-superexec: whoever starts the process has its token.
package grpcapp
