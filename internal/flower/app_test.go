package flower

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/concordat/concordat/chunkstore/object"
)

const runID, nodeID = 7, 42

func newApp(t *testing.T, change ...func(*Config)) *App {
	t.Helper()
	c := Config{RunID: runID, NodeID: nodeID, Now: func() time.Time { return time.Unix(1_750_000_000, 0) }}
	for _, f := range change {
		f(&c)
	}
	a, err := NewApp(c)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// bag is a set of objects and the order in which they were made.
type bag struct {
	root object.ID
	raw  map[object.ID][]byte
	tree Tree
}

func bagOf(t *testing.T, n object.Node) bag {
	t.Helper()
	objects, err := object.Objects(n)
	if err != nil {
		t.Fatal(err)
	}
	b := bag{root: objects[len(objects)-1].ID, raw: map[object.ID][]byte{}}
	for _, o := range objects {
		b.raw[o.ID] = o.Raw
	}
	b.tree = treeOf(t, b, b.root)
	return b
}

func treeOf(t *testing.T, b bag, id object.ID) Tree {
	t.Helper()
	h, err := object.ParseHead(b.raw[id])
	if err != nil {
		t.Fatal(err)
	}
	out := Tree{ID: id}
	for _, c := range h.Children {
		out.Children = append(out.Children, treeOf(t, b, c))
	}
	return out
}

func (b bag) get(id object.ID) ([]byte, error) {
	if raw, ok := b.raw[id]; ok {
		return raw, nil
	}
	return nil, errors.New("not in the bag")
}

func model(t *testing.T, values ...byte) object.RecordDict {
	t.Helper()
	a, err := object.NewArray(object.NPY{Descr: "|u1", Shape: []int{len(values)}}, values)
	if err != nil {
		t.Fatal(err)
	}
	return object.RecordDict{
		{Name: "arrays", Record: object.ArrayRecord{{Name: "w", Array: a}, {Name: "same", Array: a}}},
		{Name: "metrics", Record: object.MetricRecord{{Key: "num-examples", Value: object.Sint(3)}}},
	}
}

type answer struct {
	reply *Reply
	err   error
}

// ask runs Do beside the test, which plays the process.
func ask(t *testing.T, a *App, ctx context.Context, content bag) <-chan answer {
	t.Helper()
	out := make(chan answer, 1)
	go func() {
		r, err := a.Do(ctx, Instruction{Type: "train", Round: 3, MaxReply: 4000, Content: content.root, Get: content.get})
		out <- answer{r, err}
	}()
	return out
}

// replyTo returns the metadata and tree of a reply with the given content.
func replyTo(t *testing.T, m object.Metadata, id object.ID, content bag) (object.Metadata, Tree) {
	t.Helper()
	r := object.Metadata{
		RunID: m.RunID, SrcNode: m.DstNode, DstNode: m.SrcNode, ReplyTo: id.String(), Group: m.Group, Type: m.Type,
		CreatedAt: m.CreatedAt + 1, TTL: m.TTL - 1,
	}
	return r, Tree{ID: object.ID{1}, Children: []Tree{content.tree}}
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	in, out := bagOf(t, model(t, 1, 2, 3)), bagOf(t, model(t, 4, 5, 6))
	done := ask(t, a, t.Context(), in)

	m, tree, err := a.PullMessage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if m.RunID != runID || m.SrcNode != Server || m.DstNode != nodeID || m.Group != "3" || m.Type != "train" || m.TTL != 43200 || m.CreatedAt != 1.75e9 {
		t.Errorf("metadata %+v", m)
	}
	again, sameTree, err := a.PullMessage(t.Context())
	if err != nil || again != m || !sameTree.equal(tree) {
		t.Errorf("second pull before the reply: %+v, %v", again, err)
	}
	// What the process pulls is a whole message.
	n, err := object.Inflate(tree.ID, func(id object.ID) ([]byte, error) { return a.PullObject(id) }, object.Limits{Objects: 100, Bytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if msg := n.(*object.Message); msg.Metadata != m || len(msg.Content) != 2 {
		t.Errorf("pulled %+v", msg)
	}
	if raw, err := a.PullObject(out.root); raw != nil || err != nil {
		t.Errorf("object that is not of the message: %x, %v", raw, err)
	}
	if err := a.Confirm(); err != nil {
		t.Fatal(err)
	}
	if raw, err := a.PullObject(in.root); raw != nil || err != nil {
		t.Errorf("object after the message was confirmed: %x, %v", raw, err)
	}

	r, rtree := replyTo(t, m, tree.ID, out)
	missing, err := a.PushMessage(r, rtree, nil)
	if err != nil || len(missing) != len(out.raw) {
		t.Fatalf("%d objects missing, want %d; %v", len(missing), len(out.raw), err)
	}
	for i, id := range missing {
		if i == 1 { // the announcement again: its answer was lost
			if rest, err := a.PushMessage(r, rtree, nil); err != nil || len(rest) != len(missing)-1 {
				t.Errorf("second announcement: %d missing, %v", len(rest), err)
			}
		}
		for range 2 - i%2 { // some twice
			if err := a.PushObject(id, bytes.Clone(out.raw[id])); err != nil && i < len(missing)-1 {
				t.Fatal(err)
			}
		}
	}
	got := <-done
	if got.err != nil {
		t.Fatal(got.err)
	}
	if got.reply.Root != out.root || !maps.EqualFunc(got.reply.Objects, out.raw, bytes.Equal) {
		t.Error("reply has other objects than were pushed")
	}
	if v := got.reply.Content.Get("metrics").(object.MetricRecord).Get("num-examples"); v != object.Sint(3) {
		t.Errorf("num-examples %v", v)
	}

	// The same process takes the next message, and then ends.
	done = ask(t, a, t.Context(), out)
	if m2, _, err := a.PullMessage(t.Context()); err != nil || m2.Group != "3" {
		t.Fatal(err)
	}
	if err := a.PushOutputs([]byte("state")); err != nil {
		t.Fatal(err)
	}
	if got := <-done; !errors.Is(got.err, ErrRefused) {
		t.Errorf("outputs without a reply: %v", got.err)
	}
	if got := <-ask(t, a, t.Context(), in); !errors.Is(got.err, ErrFinished) {
		t.Errorf("message after the outputs: %v", got.err)
	}
	if string(a.State()) != "state" {
		t.Errorf("state %q", a.State())
	}
}

// Flower computes the same id for the same message (flwr 1.28: run 7, node 42,
// round 1, created at 1750000000.0, one 2x2 float32 array).
func TestEnvelopeIsFlowers(t *testing.T) {
	t.Parallel()
	a, err := object.NewArray(object.NPY{Descr: "<f4", Shape: []int{2, 2}},
		[]byte{0, 0, 0x80, 0x3f, 0, 0, 0, 0x40, 0, 0, 0x40, 0x40, 0, 0, 0x80, 0x40})
	if err != nil {
		t.Fatal(err)
	}
	content := bagOf(t, object.RecordDict{{Name: "arrays", Record: object.ArrayRecord{{Name: "0", Array: a}}}})
	task, err := newApp(t).newTask(Instruction{Type: "train", Round: 1, Content: content.root, Get: content.get})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := task.tree.ID.String(), "451219a77cd58577c63396ab293b569b13788528b128dff1981dfcf3dc893563"; got != want {
		t.Errorf("message id %s, Flower computes %s", got, want)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	in := bagOf(t, model(t, 1))
	good := bagOf(t, model(t, 9))
	other := bagOf(t, object.RecordDict{{Name: "x", Record: object.ConfigRecord{}}})
	record := bagOf(t, object.ConfigRecord{})
	big := bagOf(t, model(t, make([]byte, 5000)...))

	push := func(meta func(*object.Metadata), tree func(*Tree), content bag) func(*testing.T, *App, object.Metadata, object.ID) error {
		return func(t *testing.T, a *App, m object.Metadata, id object.ID) error {
			r, rt := replyTo(t, m, id, content)
			if meta != nil {
				meta(&r)
			}
			if tree != nil {
				tree(&rt)
			}
			missing, err := a.PushMessage(r, rt, nil)
			for _, id := range missing {
				if err == nil {
					err = a.PushObject(id, content.raw[id])
				}
			}
			return err
		}
	}
	meta := func(f func(*object.Metadata)) func(*testing.T, *App, object.Metadata, object.ID) error {
		return push(f, nil, good)
	}
	tree := func(f func(*Tree)) func(*testing.T, *App, object.Metadata, object.ID) error {
		return push(nil, f, good)
	}

	for name, c := range map[string]struct {
		do   func(*testing.T, *App, object.Metadata, object.ID) error
		want string
	}{
		"run":         {meta(func(m *object.Metadata) { m.RunID++ }), "run id"},
		"source":      {meta(func(m *object.Metadata) { m.SrcNode = 1 }), "source"},
		"destination": {meta(func(m *object.Metadata) { m.DstNode = 2 }), "destination"},
		"reply-to":    {meta(func(m *object.Metadata) { m.ReplyTo = strings.Repeat("0", 64) }), "reply-to"},
		"group":       {meta(func(m *object.Metadata) { m.Group = "4" }), "group"},
		"type":        {meta(func(m *object.Metadata) { m.Type = "evaluate" }), "type"},
		"long ttl":    {meta(func(m *object.Metadata) { m.TTL++ }), "ttl"},
		"no ttl":      {meta(func(m *object.Metadata) { m.TTL = 0 }), "ttl"},
		"old":         {meta(func(m *object.Metadata) { m.CreatedAt, m.TTL = 1, 1 }), "creation"},

		"no content":     {tree(func(t *Tree) { t.Children = nil }), "contents"},
		"two contents":   {tree(func(t *Tree) { t.Children = append(t.Children, t.Children[0]) }), "contents"},
		"fewer children": {tree(func(t *Tree) { t.Children[0].Children = t.Children[0].Children[:1] }), ""},
		"not a dict":     {push(nil, nil, record), "names"},
		"too large":      {push(nil, nil, big), "more than"},
		"a second reply": {func(t *testing.T, a *App, m object.Metadata, id object.ID) error {
			r, rt := replyTo(t, m, id, good)
			if _, err := a.PushMessage(r, rt, nil); err != nil {
				t.Fatal(err)
			}
			_, rt = replyTo(t, m, id, other)
			_, err := a.PushMessage(r, rt, nil)
			return err
		}, "second"},
		"not announced": {func(t *testing.T, a *App, m object.Metadata, id object.ID) error {
			r, rt := replyTo(t, m, id, good)
			if _, err := a.PushMessage(r, rt, nil); err != nil {
				t.Fatal(err)
			}
			return a.PushObject(other.root, other.raw[other.root])
		}, "not announced"},
		"before the announcement": {func(t *testing.T, a *App, m object.Metadata, id object.ID) error {
			return a.PushObject(good.root, good.raw[good.root])
		}, "not announced"},
		"other content": {func(t *testing.T, a *App, m object.Metadata, id object.ID) error {
			r, rt := replyTo(t, m, id, good)
			if _, err := a.PushMessage(r, rt, nil); err != nil {
				t.Fatal(err)
			}
			return a.PushObject(good.root, other.raw[other.root])
		}, "other content"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newApp(t)
			done := ask(t, a, t.Context(), in)
			m, mtree, err := a.PullMessage(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			err = c.do(t, a, m, mtree.ID)
			if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("process is told %v, want a refusal with %q", err, c.want)
			}
			if got := <-done; !errors.Is(got.err, ErrRefused) || got.reply != nil {
				t.Errorf("Do returns %v, %v", got.reply, got.err)
			}
			for id := range good.raw {
				if err != nil && strings.Contains(err.Error(), id.String()[:8]) {
					t.Errorf("error tells an object id: %v", err)
				}
			}
		})
	}
}

func TestErrorReplies(t *testing.T) {
	t.Parallel()
	for reason, want := range map[string]Failure{
		"<class 'ValueError'>:<'patient 4711'>":          {Code: CodeRaised, Type: "ValueError"},
		"<class 'sklearn.exceptions.NotFitted'>:<'x'>":   {Code: CodeRaised, Type: "sklearn.exceptions.NotFitted"},
		"<class 'patient 4711'>:<'x'>":                   {Code: CodeRaised},
		"patient 4711 <class 'ValueError'>":              {Code: CodeRaised},
		"<class '" + strings.Repeat("x", 65) + "'>:<''>": {Code: CodeRaised},
	} {
		a := newApp(t)
		done := ask(t, a, t.Context(), bagOf(t, model(t, 1)))
		m, tree, err := a.PullMessage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		r, _ := replyTo(t, m, tree.ID, bag{})
		if missing, err := a.PushMessage(r, Tree{}, NewFailure(2, reason)); err != nil || len(missing) != 0 {
			t.Fatalf("%d missing, %v", len(missing), err)
		}
		var f *Failure
		if got := <-done; !errors.As(got.err, &f) || f.Code != want.Code || f.Type != want.Type || f.LocalText() != reason {
			t.Errorf("%q: %#v", reason, got.err)
		} else if strings.Contains(f.Error(), "4711") {
			t.Errorf("error tells the app's text: %v", f)
		}
	}
	if f := NewFailure(99, strings.Repeat("x", maxText+1)); f.Code != CodeUnknown || len(f.LocalText()) != maxText {
		t.Errorf("unknown code %v, %d bytes of text", f.Code, len(f.LocalText()))
	}
}

// Nothing waits for ever: neither Do without a process, nor a process without
// instructions, nor either of them after Close.
func TestEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		in := bagOf(t, model(t, 1))
		a := newApp(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if got := <-ask(t, a, ctx, in); !errors.Is(got.err, context.DeadlineExceeded) {
			t.Errorf("Do without a process: %v", got.err)
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if _, _, err := a.PullMessage(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("PullMessage without an instruction: %v", err)
		}
		if err := a.Authenticate(a.Token()); err != nil {
			t.Errorf("an instruction that was never handed out stopped the app: %v", err)
		}

		// Abandoned in the middle: the process is of no more use.
		ctx, cancel = context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		done := ask(t, a, ctx, in)
		if _, _, err := a.PullMessage(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := <-done; !errors.Is(got.err, context.DeadlineExceeded) {
			t.Errorf("Do without a reply: %v", got.err)
		}
		if _, err := a.PullObject(in.root); !errors.Is(err, ErrStopped) {
			t.Errorf("process goes on after that: %v", err)
		}

		a = newApp(t)
		held := make(chan error)
		go func() { _, _, err := a.PullMessage(t.Context()); held <- err }()
		synctest.Wait()
		a.Close()
		a.Close()
		if err := <-held; !errors.Is(err, ErrStopped) {
			t.Errorf("held PullMessage after Close: %v", err)
		}
		if got := <-ask(t, a, t.Context(), in); !errors.Is(got.err, ErrStopped) {
			t.Errorf("Do after Close: %v", got.err)
		}
	})
}

func TestLimitsAndTokens(t *testing.T) {
	t.Parallel()
	if _, err := NewApp(Config{NodeConfig: map[string]any{"k": 1}}); err == nil {
		t.Error("a config value of type int was taken")
	}
	a, b := newApp(t, func(c *Config) { c.MaxState = 3 }), newApp(t)
	if len(a.Token()) != 256 || a.Token() == b.Token() {
		t.Errorf("tokens of %d characters, equal: %v", len(a.Token()), a.Token() == b.Token())
	}
	for _, wrong := range []string{"", b.Token(), a.Token()[:255], a.Token() + "0"} {
		if err := a.Authenticate(wrong); !errors.Is(err, ErrToken) {
			t.Errorf("token of %d characters: %v", len(wrong), err)
		}
	}
	if err := a.PushOutputs([]byte("1234")); !errors.Is(err, ErrRefused) || a.State() != nil {
		t.Errorf("large state: %v", err)
	}
	if _, err := a.PullObject(object.ID{}); !errors.Is(err, ErrStopped) {
		t.Errorf("after it: %v", err)
	}
	if _, err := b.PullObject(object.ID{}); !errors.Is(err, ErrRefused) {
		t.Errorf("object before a message: %v", err)
	}
}

// TestLeft: a reply counts with the state that follows it, or from a process that goes on.
func TestLeft(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		after func(*App)
		ok    bool
	}{
		"outputs":              {func(a *App) { a.PushOutputs([]byte("123")) }, true},
		"outputs, then gone":   {func(a *App) { a.PushOutputs(nil); a.Close() }, true},
		"the next message":     {func(a *App) { done, cancel := context.WithCancel(t.Context()); cancel(); a.PullMessage(done) }, true},
		"a state too large":    {func(a *App) { a.PushOutputs([]byte("1234")) }, false},
		"gone without outputs": {func(a *App) { a.Close() }, false},
		"nothing":              {func(a *App) {}, false},
	} {
		a := newApp(t, func(c *Config) { c.MaxState = 3 })
		out := bagOf(t, model(t, 4, 5, 6))
		done := ask(t, a, t.Context(), out)
		m, tree, err := a.PullMessage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		r, rtree := replyTo(t, m, tree.ID, out)
		missing, err := a.PushMessage(r, rtree, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range missing {
			if err := a.PushObject(id, out.raw[id]); err != nil {
				t.Fatal(err)
			}
		}
		if got := <-done; got.err != nil {
			t.Fatal(got.err)
		}
		c.after(a)
		if err := a.Left(); (err == nil) != c.ok || err != nil && !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Whatever a process pushes as its content: it is refused, or it is a RecordDict
// whose bytes are the pushed ones.
func FuzzReply(f *testing.F) {
	for _, n := range []object.Node{
		object.RecordDict{},
		object.ConfigRecord{},
		object.RecordDict{{Name: "m", Record: object.MetricRecord{{Key: "n", Value: object.Sint(1)}}}},
	} {
		objects, err := object.Objects(n)
		if err != nil {
			f.Fatal(err)
		}
		other := objects[0].Raw
		f.Add(objects[len(objects)-1].Raw, other)
	}
	f.Fuzz(func(t *testing.T, content, child []byte) {
		announced := Tree{ID: object.Sum(content)}
		objects := map[object.ID][]byte{announced.ID: content}
		if h, err := object.ParseHead(content); err == nil && len(h.Children) == 1 {
			announced.Children = []Tree{{ID: object.Sum(child)}}
			objects[object.Sum(child)] = child
		}
		r, err := newReply(announced, objects)
		if err != nil {
			return
		}
		id, err := object.Flatten(r.Content, func(object.Object) error { return nil })
		if err != nil || id != announced.ID || r.Root != id {
			t.Fatalf("content has another id when written again (%v)", err)
		}
	})
}

// No text of an app gets into what leaves the node, except as a type's name.
func FuzzFailure(f *testing.F) {
	f.Add(int64(2), "<class 'ValueError'>:<'patient 4711'>")
	f.Add(int64(-1), "<class 'a b'>")
	f.Fuzz(func(t *testing.T, code int64, reason string) {
		fail := NewFailure(code, reason)
		if fail.Code < CodeUnknown || fail.Code > CodeCrashed || len(fail.LocalText()) > maxText {
			t.Fatalf("%v, %d bytes of text", fail.Code, len(fail.LocalText()))
		}
		want := "flower: " + fail.Code.String()
		if fail.Type != "" {
			if strings.ContainsAny(fail.Type, " '\n\x00") || len(fail.Type) > 64 {
				t.Fatalf("type %q", fail.Type)
			}
			want += ": " + fail.Type
		}
		if fail.Error() != want {
			t.Fatalf("error %q", fail.Error())
		}
	})
}
