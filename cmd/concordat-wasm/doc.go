//go:build !(js && wasm)

// Command concordat-wasm is the verifier for a web page; it is built with
// GOOS=js GOARCH=wasm. See main.go.
package main

import "os"

func main() {
	os.Stderr.WriteString("concordat-wasm runs in a web page: build it with GOOS=js GOARCH=wasm\n")
	os.Exit(2)
}
