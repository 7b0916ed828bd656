package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/enclave/aggregate"
)

// numpyRatios are the strategies that sort, against the numpy expressions that Flower
// computes them with (FedMedian and trim_mean of flwr.serverapp.strategy, flwr 1.29).
var numpyRatios = []struct {
	name, strategy, expression string
	target                     float64
}{
	{"median", aggregate.FedMedian, "np.median(x, axis=0)", 20},
	{"trimmed-mean", aggregate.FedTrimmedAvg, "np.mean(np.partition(x, (20, 79), axis=0)[20:80], axis=0)", 15},
}

const (
	sortedParties  = 100
	sortedElements = 1 << 17 // of each: 52 MB in all
)

// numpyScript holds the contributions in one array, and computes each expression that it
// reads.
const numpyScript = `
import sys
import numpy as np
x = np.load(sys.argv[1])
print("numpy", np.__version__, flush=True)
for line in sys.stdin:
    eval(line)
    print("done", flush=True)
`

// errNoNumpy: there is nothing to compare with.
var errNoNumpy = errors.New("no python3 with numpy")

func startNumpy(ctx context.Context, file string) (*python, error) {
	if err := exec.CommandContext(ctx, "python3", "-c", "import numpy").Run(); err != nil {
		return nil, errNoNumpy
	}
	return startPython(exec.CommandContext(ctx, "python3", "-c", numpyScript, file))
}

// benchSorted compares the strategies that sort with numpy, over the same hundred
// contributions. numpy has them stacked in one array already; here they are read from
// where they lie.
func benchSorted(ctx context.Context, dir string) (all []benchValue, err error) {
	in := sortedContributions()
	file := filepath.Join(dir, "bench-stack.npy")
	if err := writeStack(file, in); err != nil {
		return nil, err
	}
	python, err := startNumpy(ctx, file)
	if err == errNoNumpy {
		for _, r := range numpyRatios {
			all = append(all, notMeasured(r.name, "ratio to "+r.expression, "higher", r.target, errNoNumpy.Error()))
		}
		return all, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, python.end()) }()
	var ratios []ratio
	for _, r := range numpyRatios {
		s, err := aggregate.New(r.strategy, nil)
		must(err)
		plan, err := s.Plan(aggregate.Step{Round: 1, Contributions: make([]aggregate.Contribution, sortedParties)})
		must(err)
		tensor := aggregate.Tensor{Name: "a", Type: "<f4", Shape: []int{sortedElements}}
		ratios = append(ratios, ratio{name: r.name, limit: fmt.Sprintf("%s, %d contributions stacked", r.expression, sortedParties), better: "higher", target: r.target,
			ours: func() error {
				return plan.Array(tensor, aggregate.Sources{In: lenders(in)}, io.Discard, nil)
			},
			bound: func() error { _, err := python.ask(r.expression); return err }})
	}
	return measureRatios(ctx, ratios)
}

// sortedContributions are normally distributed, npy bytes each.
func sortedContributions() [][]byte {
	random := rand.New(rand.NewPCG(1, 2))
	in := make([][]byte, sortedParties)
	for k := range in {
		in[k] = object.NPY{Descr: "<f4", Shape: []int{sortedElements}}.Append(nil)
		for range sortedElements {
			in[k] = binary.LittleEndian.AppendUint32(in[k], math.Float32bits(float32(random.NormFloat64())))
		}
	}
	return in
}

// writeStack writes contributions as numpy stacks them.
func writeStack(file string, in [][]byte) error {
	stack := object.NPY{Descr: "<f4", Shape: []int{len(in), sortedElements}}.Append(nil)
	for _, x := range in {
		stack = append(stack, x[len(x)-4*sortedElements:]...)
	}
	return os.WriteFile(file, stack, 0o600)
}
