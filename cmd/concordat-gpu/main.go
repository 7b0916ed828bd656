// Command concordat-gpu is the part of an enclave's image that speaks to NVIDIA GPUs.
// concordat-enclave starts it, from /usr/libexec/concordat-gpu, with one request on
// its standard input, and reads one answer from its standard output: package gpuhelper
// has both. It takes no arguments and keeps nothing.
//
// It loads NVIDIA's management library (NVML) at run time, and so needs C: a build
// without cgo, or for another system than Linux, answers every request with the error
// that says so.
//
//	echo '{"version":1,"command":"state"}' | concordat-gpu
//
// Exit status 0 is an answer, 1 a failure, 2 a misused command line, 4 a machine, or a
// build, that has no such GPUs. The reason is in the answer and on standard error.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/concordat/concordat/attestation/collect/gpuhelper"
)

func main() {
	// The driver's library is C and threads: it is shut down, then the process ends.
	d, end := openDriver()
	status := run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr, d)
	end()
	os.Exit(status)
}

func run(args []string, in io.Reader, out, stderr io.Writer, d gpuhelper.Driver) int {
	if len(args) > 0 {
		fmt.Fprintf(stderr, "concordat-gpu: unexpected argument %q: the request is read from standard input\n", args[0])
		return 2
	}
	err := gpuhelper.Serve(in, out, d)
	if err == nil {
		return 0
	}
	fmt.Fprintln(stderr, "concordat-gpu:", err)
	if errors.Is(err, errors.ErrUnsupported) {
		return 4
	}
	return 1
}

// none is a driver that is not there.
type none struct{ reason error }

func (n none) State() (gpuhelper.State, error)               { return gpuhelper.State{}, n.reason }
func (n none) Evidence(int, [32]byte) (gpuhelper.GPU, error) { return gpuhelper.GPU{}, n.reason }
func (n none) SetReady(bool) error                           { return n.reason }
