// Package interop runs whole federations with what Flower publishes: its command, its
// ServerApps and its ClientApps, unmodified, of every version that "make interop"
// installs. It holds tests alone.
package interop
