package ci

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/internal/flower/clientapp"
	"github.com/concordat/concordat/internal/sandbox"
)

// Main runs the tests of a package, or, where a node has started this same binary as
// an app, answers its instructions with app. Where an enclave has started it as a
// ServerApp, it is serverApp, which may be nil. Call it from TestMain.
func Main(m *testing.M, app clientapp.Handler, serverApp ServerApp) {
	sandbox.Init()
	if slices.Contains(os.Args, "--serverappio-api-address") {
		if err := serverAppMain(serverApp); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) == 3 && os.Args[1] == linkArgument {
		if err := linkMain(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if i := slices.Index(os.Args, "--clientappio-api-address"); i > 0 {
		set := flag.NewFlagSet("app", flag.ExitOnError)
		set.Bool("insecure", false, "")
		address := set.String("clientappio-api-address", "", "")
		token := set.String("token", "", "")
		_ = set.Parse(os.Args[1:])
		if err := clientapp.Run(context.Background(), clientapp.Config{Address: *address, Token: *token, Once: true}, app); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// Arrays returns the objects of an initial model of float64 vectors, for a
// node.RunRequest.
func Arrays(vectors map[string][]float64) ([][]byte, error) {
	var rec object.ArrayRecord
	names := make([]string, 0, len(vectors))
	for n := range vectors {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		a, err := Vector(vectors[n])
		if err != nil {
			return nil, err
		}
		rec = append(rec, object.ArrayItem{Name: n, Array: a})
	}
	objects, err := object.Objects(object.RecordDict{{Name: "arrays", Record: rec}})
	if err != nil {
		return nil, err
	}
	out := make([][]byte, len(objects))
	for i, o := range objects {
		out[i] = o.Raw
	}
	return out, nil
}
