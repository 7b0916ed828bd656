//go:build js

// A program of nothing but the verifier, to see that it builds for WebAssembly
// and how large it is: the bundle comes on standard input, the trust file is the
// first argument's content.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/concordat/concordat/verifier"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: verifier.wasm TRUST-JSON < bundle.cbor")
		os.Exit(2)
	}
	trust, err := verifier.ParseTrust([]byte(os.Args[1]))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	report, err := verifier.VerifyBundle(context.Background(), os.Stdin, trust, time.Time{}, nil)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Print(report.Text())
	if report.Verdict != verifier.Pass && report.Verdict != verifier.PassSimulated {
		os.Exit(1)
	}
}
