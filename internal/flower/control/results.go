package control

import (
	"archive/zip"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	flwr "github.com/concordat/concordat/api/flwr/proto"
)

// Flower's command shows its users an address and fetches nothing itself, so a browser or
// curl comes without its token: the address holds a key of its own, for one run.

// resultsPath is where results are had: a key and a file's name follow.
const resultsPath = "/v1/results/"

// Limits of results that are on offer.
const (
	resultsTime = time.Hour // how long an address is good for
	maxOffers   = 1024      // of all accounts; the one that ends first goes
	stallTime   = time.Minute
)

// Result is a file that a run has left at the node.
type Result struct {
	Name string // as users get it
	Path string
}

// offer is the results of one run, to whoever has the key.
type offer struct {
	files []Result
	until time.Time
}

// offer returns the key to a run's results.
func (s *Server) offer(files []Result) string {
	var b [32]byte
	rand.Read(b[:]) // never fails: Go crashes the program instead
	key := hex.EncodeToString(b[:])
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.config.Now()
	first := [32]byte{}
	for k, o := range s.offers {
		if !o.until.After(now) {
			delete(s.offers, k)
		} else if f, some := s.offers[first]; !some || o.until.Before(f.until) {
			first = k
		}
	}
	if len(s.offers) >= maxOffers {
		delete(s.offers, first)
	}
	s.offers[sha256.Sum256([]byte(key))] = offer{files, now.Add(resultsTime)}
	return key
}

// offered returns what a key opens, or nothing. Keys are found by their hash, which how
// long it takes says nothing of.
func (s *Server) offered(key string) []Result {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.offers[sha256.Sum256([]byte(key))]
	if !ok || !o.until.After(s.config.Now()) {
		return nil
	}
	return o.files
}

// PullArtifacts returns the address of a run's results.
func (v *server) PullArtifacts(ctx context.Context, q *flwr.PullArtifactsRequest) (*flwr.PullArtifactsResponse, error) {
	r, err := v.run(ctx, q.GetRunId())
	if err != nil {
		return nil, err
	}
	v.s.mu.Lock()
	finished, mark := !r.finished.IsZero(), r.mark
	v.s.mu.Unlock()
	if !finished {
		return nil, status.Error(codes.FailedPrecondition, "Cannot pull artifacts for an unfinished run") // Flower's words
	}
	var files []Result
	if mark != nil {
		if files, err = v.s.config.Runner.Results(mark); err != nil {
			return nil, status.Error(codes.Unavailable, err.Error())
		}
	}
	if len(files) == 0 {
		return nil, status.Errorf(codes.NotFound, "This node has no results of run %d: \"flwr log %d\" says how it ended.", r.id, r.id)
	}
	at := url.URL{Scheme: "http", Host: authority(ctx), Path: fmt.Sprintf("%s%s/run-%d.zip", resultsPath, v.s.offer(files), r.id)}
	if v.login != nil {
		at.Scheme = "https"
	}
	address := at.String()
	return &flwr.PullArtifactsResponse{Url: &address}, nil
}

type authorityKey struct{}

// authority is the host and port that the caller reached this node by.
func authority(ctx context.Context) string {
	host, _ := ctx.Value(authorityKey{}).(string)
	return host
}

// results hands out what was offered, and all else to h, with the address that it was
// reached by.
func (s *Server) results(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rest, ok := strings.CutPrefix(r.URL.Path, resultsPath)
		if !ok {
			h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), authorityKey{}, r.Host)))
			return
		}
		key, name, _ := strings.Cut(rest, "/")
		files := s.offered(key)
		switch {
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "only GET", http.StatusMethodNotAllowed)
			return
		case files == nil || name == "" || strings.Contains(name, "/"):
			http.Error(w, `There is nothing here, or not any more: "flwr pull" gives an address for an hour.`, http.StatusNotFound)
			return
		}
		for k, v := range map[string]string{
			"Content-Type": "application/zip", "Content-Disposition": "attachment", "Cache-Control": "no-store",
			"Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff",
		} {
			w.Header().Set(k, v)
		}
		if r.Method == http.MethodHead {
			return
		}
		if err := pack(&patient{w, http.NewResponseController(w)}, files); err != nil {
			panic(http.ErrAbortHandler) // the caller sees that it is not whole
		}
	})
}

// patient gives up on a reader that takes nothing for a while.
type patient struct {
	w http.ResponseWriter
	c *http.ResponseController
}

func (p *patient) Write(b []byte) (int, error) {
	_ = p.c.SetWriteDeadline(time.Now().Add(stallTime)) // net/http's writers have deadlines
	return p.w.Write(b)
}

// pack writes a ZIP archive of files, as they are: models do not get smaller. A file that
// is gone by now is left out, unless all are.
func pack(w io.Writer, files []Result) error {
	z := zip.NewWriter(w)
	written := 0
	for _, x := range files {
		f, err := os.Open(x.Path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		to, err := z.CreateHeader(&zip.FileHeader{Name: x.Name, Method: zip.Store})
		if err == nil {
			_, err = io.Copy(to, f)
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
		written++
	}
	if written == 0 {
		return os.ErrNotExist
	}
	return z.Close()
}
