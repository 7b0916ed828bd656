package interop

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/ci"
	"github.com/concordat/concordat/policy"
)

// bigArray is the number of elements of one array of testdata/big, in float32.
const bigArray = 2 << 20

// TestBig runs an app with a model of CONCORDAT_INTEROP_BIG bytes ("1GiB") with the newest
// version: initial arrays of its ServerApp, two nodes with their ClientApps, the native
// mean, and the model that an owner gets. It logs how long that took and the most memory
// that Flower's processes and this one, which is nodes, link and enclave together, ever had.
func TestBig(t *testing.T) {
	size := os.Getenv("CONCORDAT_INTEROP_BIG")
	if size == "" {
		t.Skip("NOT TESTED with a large model: make interop INTEROP_BIG=1GiB; the machine needs about sixteen times that memory, and disk")
	}
	arrays := bigArrays(t, size)
	envs := environments(t)
	env := envs[len(envs)-1]
	u := newUser(t, env)
	app, err := filepath.Abs(filepath.Join("testdata", "big"))
	if err != nil {
		t.Fatal(err)
	}
	file, digest := u.build(app)
	f, approve := u.federation(digest, [3]string{env, env}, nil, ci.Members(2), ci.Policy(func(p *policy.Policy) {
		p.Release.StepDeadline, p.Release.AckDeadline = 3600, 3600
	}))
	approve(file)
	most := watchMemory(t, env)
	out := u.timed(app, "-c", fmt.Sprintf("arrays=%d", arrays))
	for part, kB := range most() {
		t.Logf("most memory of %s: %d MB", part, kB>>10)
	}
	if !strings.Contains(out, "[ROUND 1/1] evaluate: 2 contributions") {
		t.Error("no evaluation of the model")
	}
	begin := time.Now()
	z, err := zip.OpenReader(u.modelFile(f, out))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	t.Logf("the owner's model took %.1f s", time.Since(begin).Seconds())
	if len(z.File) != arrays {
		t.Fatalf("%d arrays, want %d", len(z.File), arrays)
	}
	for i, e := range z.File {
		// The mean of what the two added, 1 and 2, which is exact in float32.
		if name := fmt.Sprintf("layer.%d.npy", i); e.Name != name {
			t.Fatalf("%s, want %s", e.Name, name)
		}
		r, err := e.Open()
		if err != nil {
			t.Fatal(err)
		}
		npy, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		h, err := object.ParseNPY(npy)
		if err != nil || h.Descr != "<f4" || len(npy) != h.HeaderSize+4*bigArray {
			t.Fatalf("%s: %+v, %v", e.Name, h, err)
		}
		for k := range bigArray {
			if got := math.Float32frombits(binary.LittleEndian.Uint32(npy[h.HeaderSize+4*k:])); got != float32(i+k)+1.5 {
				t.Fatalf("%s[%d] is %v, want %v", e.Name, k, got, float32(i+k)+1.5)
			}
		}
	}
}

// bigArrays is how many arrays a model of some size has: "1GiB", "512MiB".
func bigArrays(t *testing.T, size string) int {
	t.Helper()
	m := regexp.MustCompile(`^([1-9][0-9]{0,5})([MG])iB$`).FindStringSubmatch(size)
	if m == nil {
		t.Fatalf("INTEROP_BIG is %q, want a number of MiB or GiB, such as 1GiB", size)
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		t.Fatal(err)
	}
	n <<= 20
	if m[2] == "G" {
		n <<= 10
	}
	return max(n/(4*bigArray), 1)
}

// watchMemory looks at Flower's processes of an environment, and at this one, until the
// function that it returns is called: that returns the most memory that any of each kind
// had, in kB, as Linux knows it.
func watchMemory(t *testing.T, env string) func() map[string]uint64 {
	stop, stopped := make(chan struct{}), make(chan struct{})
	most := map[string]uint64{}
	look := func() {
		all, err := filepath.Glob("/proc/[0-9]*")
		if err != nil {
			t.Error(err)
		}
		for _, p := range all {
			// Processes end while they are looked at.
			words, _ := os.ReadFile(filepath.Join(p, "cmdline"))
			part := ""
			switch {
			case filepath.Base(p) == strconv.Itoa(os.Getpid()):
				part = "nodes, link and enclave"
			case bytes.Contains(words, []byte(filepath.Join(env, "bin", "flwr-clientapp"))):
				part = "a ClientApp"
			case bytes.Contains(words, []byte(filepath.Join(env, "bin", "flwr-serverapp"))):
				part = "the ServerApp"
			default:
				continue
			}
			status, _ := os.ReadFile(filepath.Join(p, "status"))
			if m := regexp.MustCompile(`VmHWM:\s*(\d+) kB`).FindSubmatch(status); m != nil {
				kB, _ := strconv.ParseUint(string(m[1]), 10, 64) // digits
				most[part] = max(most[part], kB)
			}
		}
	}
	go func() {
		defer close(stopped)
		for {
			look()
			select {
			case <-stop:
				return
			case <-time.After(200 * time.Millisecond):
			}
		}
	}()
	end := sync.OnceFunc(func() {
		close(stop)
		<-stopped
	})
	t.Cleanup(end)
	return func() map[string]uint64 {
		end()
		return most
	}
}
