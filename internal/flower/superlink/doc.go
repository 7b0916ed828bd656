// Package superlink runs Flower's own server and nodes out of a Python environment, as
// Flower publishes them: what tests compare with, and what benchmarks measure against.
// Nothing that is released to members or measured uses it.
package superlink
