package ci_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/ci"
	"github.com/concordat/concordat/ci/hostile"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/durable"
	"github.com/concordat/concordat/internal/session"
	"github.com/concordat/concordat/node/atrest"
	"github.com/concordat/concordat/node/journal"
	"github.com/concordat/concordat/verifier/receipt"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// outside is everything of a federation that is not in a node or an enclave: what the
// link has on disk, the log's tiles among it, what went over the wires, and what the
// enclave logged.
type outside struct {
	place   []string
	content [][]byte
}

func (o *outside) add(place string, b []byte) {
	o.place, o.content = append(o.place, place), append(o.content, b)
}

func (o *outside) disk(t *testing.T, dir string) {
	t.Helper()
	n := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		n++
		o.add("disk "+strings.TrimPrefix(path, dir), append([]byte(path+"\x00"), b...)) // names count too
		return err
	})
	if err != nil || n == 0 {
		t.Fatalf("%d files: %v", n, err)
	}
}

func (o *outside) wires(t *testing.T, l *hostile.Link) {
	t.Helper()
	for _, m := range l.Seen(func(hostile.Message) bool { return true }) {
		b, err := proto.Marshal(m.Body)
		if err != nil {
			t.Fatal(err)
		}
		o.add(fmt.Sprintf("wire of %s, %s", m.Party, m.Method), b)
	}
}

// find returns where a secret is, in any of the forms in which bytes are written.
func (o *outside) find(secret []byte) (places []string) {
	forms := [][]byte{secret, []byte(hex.EncodeToString(secret)), []byte(strings.ToUpper(hex.EncodeToString(secret))),
		[]byte(base64.StdEncoding.EncodeToString(secret)), []byte(base64.RawURLEncoding.EncodeToString(secret))}
	for i, c := range o.content {
		for _, f := range forms {
			if bytes.Contains(c, f) {
				places = append(places, o.place[i])
				break
			}
		}
	}
	return places
}

// output collects what daemons log.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// lines returns the lines of a daemon.
func (o *output) lines(daemon string) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []string
	for line := range strings.Lines(o.buf.String()) {
		if strings.Contains(line, "daemon="+daemon) || strings.Contains(line, `daemon="`+daemon) {
			out = append(out, line)
		}
	}
	return strings.Join(out, "")
}

// plaintextIDs opens every sealed parcel of a run with the keys in the nodes' journals
// and returns the id of every object, by where it is.
func plaintextIDs(t *testing.T, f *ci.Federation, l *hostile.Link, run ci.Digest) map[object.ID]string {
	t.Helper()
	chunks := map[chunkstore.ID][]byte{} // as they went over the wires
	for _, m := range l.Seen(func(m hostile.Message) bool { return m.Request != nil && m.Method == "GetChunks" }) {
		q, a := m.Request.(*concordatv1.GetChunksRequest), m.Body.(*concordatv1.GetChunksResponse)
		chunks[chunkstore.ID(q.GetRanges()[a.GetRange()].GetId())] = a.GetData()
	}
	fetch := func(_ context.Context, dst []byte, id chunkstore.ID, _ int64) ([]byte, error) {
		b, ok := chunks[id]
		if !ok {
			return nil, fmt.Errorf("chunk %s was read by nobody", id.Short())
		}
		return append(dst, b...), nil
	}
	ids := map[object.ID]string{}
	collect := func(what string, key *chunkstore.Secret, m session.ManifestRef, root ci.Digest, count uint64) {
		t.Helper()
		p, err := chunkstore.OpenParcel(t.Context(), key, chunkstore.Ref{OID: object.ID(m.OID), ID: chunkstore.ID(m.ID), Size: m.Size}, root, count, chunkstore.Fetch(fetch))
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		ids[object.ID(m.OID)] = "manifest of " + what
		for _, e := range p.Entries() {
			ids[e.Object] = what
		}
	}
	for _, n := range f.Nodes {
		dir := filepath.Join(n.Dir, f.Policy.FederationID().String())
		key, err := atrest.Open(durable.OS{}, dir)
		if err != nil {
			t.Fatal(err)
		}
		j, err := journal.Open(durable.OS{}, dir, key)
		if err != nil {
			t.Fatal(err)
		}
		j.View(func(s *journal.State) {
			r := s.Runs[run]
			for _, task := range r.Tasks {
				step := statementBody[*receipt.Step](t, l, task.Step)
				collect(fmt.Sprintf("outputs of step %d", step.Seq), chunkstore.NewDownlink(*r.Downlink, run, step.Generation), task.Manifest, step.OutputsRoot, step.OutputsCount)
			}
			for _, c := range r.Contributions {
				u, err := receipt.Parse(c.Statement)
				if err != nil {
					t.Fatal(err)
				}
				v, err := u.Verify(n.Signer.Public())
				if err != nil {
					t.Fatal(err)
				}
				b := v.Body.(*receipt.Contribution)
				collect(fmt.Sprintf("contribution of %s to step %d", n.Name, b.Seq), chunkstore.NewUplink(r.Uplink, run, b.Seq), c.Manifest, b.ChunkRoot, b.Count)
			}
		})
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return ids
}

func statementBody[B any](t *testing.T, l *hostile.Link, raw []byte) B {
	t.Helper()
	for _, s := range l.Logged() {
		if bytes.Equal(s.Raw(), raw) {
			return s.Body.(B)
		}
	}
	t.Fatal("a statement that a node has was never logged")
	panic("unreachable")
}

// TestNoPlaintextIdOutside is finding F8: ids of objects are hashes of little that can
// be guessed ("10 examples, loss 0.25"). None of any object of a run, of the initial
// model, the contributions or the outputs, is on the link's disk, in the log, on a wire
// or in the enclave's log, in any spelling.
func TestNoPlaintextIdOutside(t *testing.T) {
	t.Parallel()
	l, logs := hostile.New(), new(output)
	f := ci.StartFederation(t, ci.Through(l), ci.LogTo(logs))
	joined(t, f.Nodes...)
	req := start(t, f, f.Nodes[0], 2, nil)
	var run ci.Digest
	for _, n := range f.Nodes {
		completed(t, f, n, req)
		run = ended(t, n, req).Run
		if err := n.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	ids := plaintextIDs(t, f, l, run)
	for _, raw := range initial(t) {
		ids[object.Sum(raw)] = "initial model"
	}
	// 5 steps' outputs; 4 contributions of each of 3 nodes; each its own manifest.
	if len(ids) < 20 {
		t.Fatalf("only %d ids", len(ids))
	}
	var o outside
	o.wires(t, l)
	o.add("enclave log", []byte(logs.lines("enclave")))
	o.add("link log", []byte(logs.lines("link")))
	if err := f.Link.Stop(); err != nil {
		t.Fatal(err)
	}
	o.disk(t, filepath.Join(f.Dir, "link"))
	for id, what := range ids {
		for _, place := range o.find(id[:]) {
			t.Errorf("the id of an object (%s) is on %s", what, place)
		}
	}
	// The search finds what is there: chunk ids, and the run's digest in the log.
	for _, s := range l.Logged() {
		if b, ok := s.Body.(*receipt.Step); ok && len(o.find(b.OutputsRoot[:])) == 0 {
			t.Error("an outputs root is not to be found")
		}
	}
	for _, n := range f.Nodes {
		id := n.Signer.Public().ID()
		if len(o.find(id[:])) == 0 {
			t.Error("a node id is not to be found")
		}
	}
}

// TestErrorTextStaysHome is finding F21: an app fails with text that quotes data. The
// text is in the log of its own node, and nowhere else.
func TestErrorTextStaysHome(t *testing.T) {
	t.Parallel()
	const marker = "patient-4711-glucose-17.2"
	l, logs := hostile.New(), new(output)
	f := ci.StartFederation(t, ci.Policy(trainOnly), ci.Through(l), ci.LogTo(logs))
	joined(t, f.Nodes...)
	// The marker is put together by the app: the run's config, which all members see,
	// does not have it.
	req := start(t, f, f.Nodes[0], 1, map[string]any{"raise reversed member-b": reverse(marker)})
	if e := ended(t, f.Nodes[0], req); e.Outcome != "failed" {
		t.Errorf("run ended %s", e.Outcome)
	}
	e := f.Nodes[1].AwaitKind(t, "failed")
	if strings.Contains(e.Reason, marker) {
		t.Errorf("the event has the text: %s", e.Reason)
	}
	if !strings.Contains(logs.lines("node member-b"), marker) {
		t.Errorf("the node's own log does not have the text")
	}
	var o outside
	o.wires(t, l)
	for _, d := range []string{"enclave", "link", "node member-a", "node member-c"} {
		o.add("log of "+d, []byte(logs.lines(d)))
	}
	if err := f.Link.Stop(); err != nil {
		t.Fatal(err)
	}
	o.disk(t, filepath.Join(f.Dir, "link"))
	for _, place := range o.find([]byte(marker)) {
		t.Errorf("the text of an app's error is on %s", place)
	}
	if len(o.find([]byte(f.Policy.Log.Origin))) == 0 {
		t.Error("the search finds nothing")
	}
}

func reverse(s string) string {
	b := []byte(s)
	for i, j := 0, len(b)-1; i < j; i, j = i+1, j-1 {
		b[i], b[j] = b[j], b[i]
	}
	return string(b)
}

// TestTwoFederations is promise P4: two federations on one link, the parties of each
// hostile to the other, who know all its ids. There is no way across.
func TestTwoFederations(t *testing.T) {
	t.Parallel()
	la := hostile.New()
	a := ci.StartFederation(t, ci.Policy(trainOnly), ci.Through(la))
	joined(t, a.Nodes...)
	lb := hostile.New()
	b := ci.StartFederation(t, ci.Policy(trainOnly), ci.Through(lb), ci.OnLinkOf(a))
	joined(t, b.Nodes...)
	reqA, reqB := start(t, a, a.Nodes[0], 1, nil), start(t, b, b.Nodes[0], 1, nil)
	for _, n := range a.Nodes {
		completed(t, a, n, reqA)
	}
	for _, n := range b.Nodes {
		completed(t, b, n, reqB)
	}
	across(t, "b into a", b, a, la)
	across(t, "a into b", a, b, lb)
}

// across has a node of one federation try every call with names of the other's.
func across(t *testing.T, way string, mine, other *ci.Federation, seen *hostile.Link) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	key := signer(t)
	conn := mine.Dial("enemy")
	n := hostile.Attach(conn, mine.Policy, key, mine.Credential(mine.Members[0], key.Public()))
	defer n.Close()
	if err := n.Join(ctx); err != nil {
		t.Fatal(err)
	}
	rpc := concordatv1.NewRelayClient(conn)
	fed := other.Policy.FederationID()
	theirs := func(method string) hostile.Message {
		return seen.Await(t, method, func(m hostile.Message) bool { return m.Up && m.Method == method })
	}
	scope := theirs("Missing").Body.(*concordatv1.MissingRequest).GetScope()
	blob := cose.Sum(theirs("PutBlob").Body.(*concordatv1.PutBlobRequest).GetData())
	chunk := theirs("GetChunks").Body.(*concordatv1.GetChunksRequest)
	entry := theirs("Append").Body.(*concordatv1.AppendRequest).GetEntry()
	mixed := proto.Clone(scope).(*concordatv1.Scope) // my federation, their run and owner
	myFed := mine.Policy.FederationID()
	mixed.Federation = myFed[:]
	for name, call := range map[string]func() error{
		"Missing": func() error {
			_, err := rpc.Missing(ctx, &concordatv1.MissingRequest{Scope: scope, Ids: [][]byte{chunk.GetRanges()[0].GetId()}})
			return err
		},
		"PutBlob": func() error {
			_, err := rpc.PutBlob(ctx, &concordatv1.PutBlobRequest{Federation: fed[:], Data: []byte("x")})
			return err
		},
		"GetBlob": func() error {
			_, err := rpc.GetBlob(ctx, &concordatv1.GetBlobRequest{Federation: fed[:], Digest: blob[:]})
			return err
		},
		"Append": func() error {
			_, err := rpc.Append(ctx, &concordatv1.AppendRequest{Federation: fed[:], Entry: entry})
			return err
		},
		"GetTile": func() error {
			_, err := rpc.GetTile(ctx, &concordatv1.GetTileRequest{Federation: fed[:], Path: "checkpoint"})
			return err
		},
		"GetReceipt": func() error {
			_, err := rpc.GetReceipt(ctx, &concordatv1.GetReceiptRequest{Federation: fed[:], Index: 0})
			return err
		},
		"GetChunks": func() error {
			s, err := rpc.GetChunks(ctx, chunk)
			if err == nil {
				_, err = s.Recv()
			}
			return err
		},
		"PutChunks": func() error {
			s, err := rpc.PutChunks(ctx)
			if err != nil {
				return err
			}
			_ = s.Send(&concordatv1.PutChunksRequest{Scope: scope})
			_, err = s.CloseAndRecv()
			return err
		},
	} {
		if err := call(); status.Code(err) != codes.Unavailable && status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s: %s of the other federation: %v", way, name, err)
		}
	}
	// Under one's own federation their names mean nothing.
	if _, err := rpc.GetBlob(ctx, &concordatv1.GetBlobRequest{Federation: myFed[:], Digest: blob[:]}); status.Code(err) != codes.NotFound {
		t.Errorf("%s: their blob in one's own federation: %v", way, err)
	}
	stream, err := rpc.GetChunks(ctx, &concordatv1.GetChunksRequest{Scope: mixed, Ranges: chunk.GetRanges()})
	if err == nil {
		_, err = stream.Recv()
	}
	if c := status.Code(err); c != codes.NotFound && c != codes.PermissionDenied {
		t.Errorf("%s: their chunk in one's own federation: %v", way, err)
	}
	// A credential of one federation attaches to no other, and its frames reach nobody there.
	stranger := hostile.Attach(other.Dial("stranger"), other.Policy, key, mine.Credential(mine.Members[0], key.Public()))
	defer stranger.Close()
	if err := stranger.Wait(); err == nil || !strings.Contains(err.Error(), "PermissionDenied") {
		t.Errorf("%s: attached to the other federation: %v", way, err)
	}
}
