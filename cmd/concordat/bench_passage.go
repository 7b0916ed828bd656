package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/chunkstore/transfer"
	"github.com/concordat/concordat/enclave"
	"github.com/concordat/concordat/enclave/aggregate"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/daemon/dial"
	"github.com/concordat/concordat/internal/daemon/keyfile"
	"github.com/concordat/concordat/internal/flower"
	"github.com/concordat/concordat/internal/relay"
)

// passage is the way of contributions: nodes seal them and upload them to a link, which
// checks and keeps them, and an enclave's end reads, checks, opens and aggregates them. The
// link is a process of its own, with its store on disk; nodes and the enclave's end are in
// this one, attached as the real ones attach. All of it is TLS on loopback.
type passage struct {
	ctx        context.Context // ends when the link does
	federation cose.Digest
	address    string // of the link
	procs      processes
	link       *process
	nodes      []*party
	enclave    *party
	cancel     context.CancelCauseFunc
	self       string       // this program
	sealed     atomic.Int64 // bytes of elements that went into contributions so far
	meant      atomic.Int64 // and that came out of them into a mean
	spent      passageCost  // by rounds so far
}

// passageCost is what processors spent on a number of bytes of contributions: until they
// lay at the link, and from there to the aggregate.
type passageCost struct {
	bytes                      int64
	nodes, linkIn              time.Duration
	enclave, linkOut           time.Duration
	depositTime, aggregateTime time.Duration // by the clock
}

// String words it in nanoseconds a byte, to stand behind something else; it is empty where
// nothing is known.
func (c passageCost) String() string {
	if c.all() == 0 {
		return ""
	}
	each := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / float64(c.bytes) }
	return fmt.Sprintf("; CPU for each byte: nodes %.1f ns, link %.1f and %.1f ns, enclave's end %.1f ns; deposited in %.1f ns, aggregated in %.1f ns",
		each(c.nodes), each(c.linkIn), each(c.linkOut), each(c.enclave), each(c.depositTime), each(c.aggregateTime))
}

// all is what all processors spent.
func (c passageCost) all() time.Duration { return c.nodes + c.linkIn + c.enclave + c.linkOut }

// found has the members of a demo's federation agree on its policy, and starts nothing.
func (d *demo) found() error {
	d.machine = filepath.Join(d.state, "machine.json")
	for _, step := range []func() error{d.dealRows, d.makeMachine, d.makeKeys, d.agree} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// startPassage starts the link of a federation whose processes have ended, or were never
// started, and attaches a node of each member and an enclave's end.
func startPassage(ctx context.Context, d *demo) (p *passage, err error) {
	p = &passage{procs: processes{dir: d.procs.dir}, self: d.self}
	p.ctx, p.cancel = context.WithCancelCause(ctx)
	p.procs.fail = p.cancel
	defer func() {
		if err != nil {
			err = errors.Join(err, context.Cause(p.ctx), p.close())
		}
	}()
	c, err := loadChain(d.chain)
	if err != nil {
		return p, err
	}
	p.federation = c.Federation()
	starting := *d
	starting.ctx, starting.procs = p.ctx, p.procs
	err = starting.startLink()
	p.procs, p.address = starting.procs, starting.link
	if err != nil {
		return p, err
	}
	p.link = p.procs.all[0]
	for _, h := range d.members {
		node, err := p.attachNode(h)
		if err != nil {
			return p, fmt.Errorf("%s: %w", h.id, err)
		}
		p.nodes = append(p.nodes, node)
	}
	p.enclave, err = attachEnclave(p.ctx, p.address, p.federation)
	return p, err
}

// close ends it all.
func (p *passage) close() error {
	var errs []error
	if p.enclave != nil {
		errs = append(errs, p.enclave.close())
	}
	for _, n := range p.nodes {
		errs = append(errs, n.close())
	}
	p.procs.stop()
	p.cancel(nil)
	return errors.Join(errs...)
}

// party is an attached node's or enclave's connection.
type party struct {
	id     cose.Digest // of a node
	conn   *grpc.ClientConn
	chunks *transfer.Client
	cancel context.CancelFunc
	tasks  sync.WaitGroup
}

func (p *passage) attachNode(h *hospital) (*party, error) {
	key, err := keyfile.ReadSigner(h.at("node/node.key"))
	if err != nil {
		return nil, err
	}
	credential, err := readFile(h.at("node/node.credential"), keyfile.MaxSize)
	if err != nil {
		return nil, err
	}
	n, err := attach(p.ctx, p.address, dial.Options{}, relay.Config{Federation: p.federation, Self: relay.Node(key.Public().ID()), Signer: key, Credential: credential})
	if err != nil {
		return nil, err
	}
	n.id = key.Public().ID()
	return n, nil
}

func attachEnclave(ctx context.Context, link string, federation cose.Digest) (*party, error) {
	key, err := cose.GenerateSigner(cose.ES256)
	if err != nil {
		return nil, err
	}
	var instance [16]byte
	if _, err := rand.Read(instance[:]); err != nil {
		return nil, err
	}
	n, err := attach(ctx, link, dial.Options{Window: enclave.ReadWindow}, relay.Config{Federation: federation, Self: relay.Enclave(instance), Signer: key})
	if err == nil {
		n.chunks.Window = enclave.UploadWindow
	}
	return n, err
}

// attach dials the link and waits until it has attached the party. What it delivers after
// that nobody needs.
func attach(ctx context.Context, link string, o dial.Options, c relay.Config) (*party, error) {
	conn, err := dial.Dial(link, o)
	if err != nil {
		return nil, err
	}
	c.Conn, c.Log = conn, slog.New(slog.DiscardHandler)
	peer := relay.New(c)
	n := &party{conn: conn, chunks: transfer.NewClient(conn)}
	ctx, n.cancel = context.WithCancel(ctx)
	attached, refused := make(chan struct{}, 1), make(chan error, 1)
	n.tasks.Go(func() { refused <- peer.Run(ctx) })
	n.tasks.Go(func() {
		for e := range peer.Events() {
			if _, is := e.(relay.Attached); is {
				select {
				case attached <- struct{}{}:
				default: // once is enough
				}
			}
		}
	})
	select {
	case <-attached:
		return n, nil
	case err = <-refused:
		if err == nil {
			err = context.Cause(ctx) // it ends without one when ctx does
		}
	case <-time.After(maxWait):
		err = fmt.Errorf("waited %s for the link to attach", maxWait)
	}
	return nil, errors.Join(err, n.close())
}

func (n *party) close() error {
	n.cancel()
	n.tasks.Wait()
	return n.conn.Close()
}

// deposited is a contribution that lies at the link, with what it takes to read it.
type deposited struct {
	Scope  chunkstore.Scope
	Secret [32]byte // the node's uplink secret of the run
	Seq    uint64
	Sealed chunkstore.Sealed
}

// syntheticArray is the one array of every contribution.
const syntheticArray = "w"

// syntheticTensor says what all contributions with so many elements look like.
func syntheticTensor(elements int) aggregate.Tensor {
	return aggregate.Tensor{Name: syntheticArray, Type: "<f4", Shape: []int{elements}}
}

// deposit has the nodes seal n contributions of so many elements, each node its own one
// after the other, and the link store them. Every call is a run of its own, so that the
// link has none of them.
func (p *passage) deposit(n, elements int) ([]deposited, error) {
	var run cose.Digest
	if _, err := rand.Read(run[:]); err != nil {
		return nil, err
	}
	all := make([]deposited, n)
	g, ctx := errgroup.WithContext(p.ctx)
	for k, node := range p.nodes {
		g.Go(func() error {
			for i := k; i < n; i += len(p.nodes) {
				all[i] = deposited{Scope: chunkstore.Scope{Federation: p.federation, Run: run, Owner: node.id}, Secret: run, Seq: uint64(i + 1)}
				if err := p.contribute(ctx, node, &all[i], elements); err != nil {
					return fmt.Errorf("contribution %d: %w", i, err)
				}
			}
			return nil
		})
	}
	return all, g.Wait()
}

// contribute seals and uploads one contribution as package node does.
func (p *passage) contribute(ctx context.Context, node *party, c *deposited, elements int) error {
	up := node.chunks.Upload(ctx, c.Scope)
	w := chunkstore.NewParcelWriter(chunkstore.NewUplink(c.Secret, c.Scope.Run, c.Seq), up.Add)
	array, err := p.sealArray(w, elements)
	if err == nil {
		_, err = object.Flatten(object.RecordDict{
			{Name: flower.RecordArrays, Record: object.ArrayRecord{{Name: syntheticArray, Array: array}}},
			{Name: flower.RecordMetrics, Record: object.MetricRecord{{Key: aggregate.ExamplesKey, Value: object.Sint(c.Seq)}}},
		}, func(o object.Object) error { return w.Add(o.Raw) })
	}
	if err == nil {
		c.Sealed, err = w.Close()
	}
	return errors.Join(err, up.Close())
}

func (p *passage) sealArray(w *chunkstore.ParcelWriter, elements int) (*object.Array, error) {
	head := object.NPY{Descr: "<f4", Shape: []int{elements}}
	array, err := object.NewOutline(head)
	if err != nil {
		return nil, err
	}
	chunks := object.NewChunkWriter(w.AddObject)
	if _, err := chunks.Write(head.Append(nil)); err != nil {
		return nil, err
	}
	if err := writeElements(chunks, 4*int64(elements), &p.sealed); err != nil {
		return nil, err
	}
	array.Chunks, err = chunks.Close()
	return array, err
}

// elementBlock is 1 MiB of float32 from 0 to 1.
var elementBlock = sync.OnceValue(func() []byte {
	random := mathrand.New(mathrand.NewPCG(1, 2))
	var b []byte
	for range 1 << 18 {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(random.Float32()))
	}
	return b
})

// writeElements writes size bytes of elements, of which no two chunks are the same object,
// and counts them as they go.
func writeElements(w io.Writer, size int64, count *atomic.Int64) error {
	block := append([]byte(nil), elementBlock()...)
	for i := uint32(0); size > 0; i++ {
		binary.LittleEndian.PutUint32(block, math.Float32bits(0.5)+i%(1<<23)) // 0.5 and a little
		n := min(size, int64(len(block)))
		if _, err := w.Write(block[:n]); err != nil {
			return err
		}
		size -= n
		count.Add(n)
	}
	return nil
}

// opened is a contribution whose manifest was read and checked.
type opened struct {
	parcel *chunkstore.Parcel
	array  *object.Array // in outline
	weight aggregate.Contribution
}

// open reads what stands around the arrays of a contribution, as package enclave does, which
// has the bounds. from reads the contribution's scope.
func (c *deposited) open(ctx context.Context, from *transfer.Reader) (*opened, error) {
	parcel, err := chunkstore.OpenParcel(ctx, chunkstore.NewUplink(c.Secret, c.Scope.Run, c.Seq), c.Sealed.Manifest, c.Sealed.Root, c.Sealed.Count, from)
	if err != nil {
		return nil, err
	}
	o := &opened{parcel: parcel}
	n, err := object.Inflate(parcel.Root(), parcel.Inline, object.Limits{Objects: 1 << 16, Bytes: 16 << 20, Outline: true})
	if err != nil {
		return nil, err
	}
	dict, ok := n.(object.RecordDict)
	if !ok {
		return nil, errors.New("bench: a contribution is no RecordDict")
	}
	arrays, metrics, err := flower.Split(dict, true)
	if err != nil {
		return nil, err
	}
	o.array = arrays[0].Array
	o.weight, err = aggregate.Weigh(metrics, aggregate.ExamplesKey)
	return o, err
}

// planFor returns the plan of a strategy without arguments for contributions.
func planFor(strategy string, all []*opened) (*aggregate.Plan, error) {
	s, err := aggregate.New(strategy, nil)
	if err != nil {
		return nil, err
	}
	step := aggregate.Step{Round: 1}
	for _, o := range all {
		step.Contributions = append(step.Contributions, o.weight)
	}
	return s.Plan(step)
}

// aggregateOnce reads all arrays once, side by side, and aggregates them.
func aggregateOnce(ctx context.Context, plan *aggregate.Plan, tensor aggregate.Tensor, all []*opened, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx) // ends readers that an error leaves
	defer cancel()
	var from aggregate.Sources
	for _, o := range all {
		from.In = append(from.In, o.parcel.ArrayReader(ctx, o.array))
	}
	return plan.Array(tensor, from, out, nil)
}

// round takes n contributions of so many elements from the nodes to their mean: every byte
// is sealed, hashed, sent, checked, stored durably, sent once more, checked, opened and
// aggregated once. It adds to what was spent.
func (p *passage) round(n, elements int) error {
	begin, before, err := p.clock()
	if err != nil {
		return err
	}
	all, err := p.deposit(n, elements)
	if err != nil {
		return err
	}
	half, stored, err := p.clock()
	if err != nil {
		return err
	}
	if err := p.aggregate(all, elements); err != nil {
		return err
	}
	end, after, err := p.clock()
	if err != nil {
		return err
	}
	p.spent.bytes += 4 * int64(n) * int64(elements)
	p.spent.nodes += stored[0].own - before[0].own
	p.spent.linkIn += stored[1].own - before[1].own
	p.spent.enclave += after[0].own - stored[0].own
	p.spent.linkOut += after[1].own - stored[1].own
	p.spent.depositTime += half.Sub(begin)
	p.spent.aggregateTime += end.Sub(half)
	return nil
}

// clock returns the time, and what this process and the link have spent. Where the kernel
// does not say that, it is nothing.
func (p *passage) clock() (time.Time, []spent, error) {
	all, err := spentBy(os.Getpid(), p.link.pid())
	if err != nil {
		all = make([]spent, 2)
	}
	return time.Now(), all, context.Cause(p.ctx)
}

// aggregate makes the mean of contributions.
func (p *passage) aggregate(all []deposited, elements int) error {
	in := make([]*opened, len(all))
	for i := range all {
		var err error
		if in[i], err = all[i].open(p.ctx, transfer.NewReader(p.enclave.chunks, all[i].Scope)); err != nil {
			return fmt.Errorf("contribution %d: %w", i, err)
		}
	}
	plan, err := planFor(aggregate.FedAvg, in)
	if err != nil {
		return err
	}
	return aggregateOnce(p.ctx, plan, syntheticTensor(elements), in, &counter{&p.meant, int64(len(in))})
}

// counter drops what is written, and counts each byte as so many.
type counter struct {
	sum  *atomic.Int64
	each int64
}

func (c *counter) Write(b []byte) (int, error) {
	c.sum.Add(c.each * int64(len(b)))
	return len(b), nil
}

// Of the line end-to-end.
const (
	passageElements = 4 << 20 // of one contribution: 16 MiB
	passageNodes    = 3
	passageRounds   = 15
)

// endToEnd compares the whole way with hashing as many bytes once.
func (p *passage) endToEnd() ratio {
	size := passageNodes * 4 * passageElements
	return ratio{name: "end-to-end", limit: fmt.Sprintf("crypto/sha256 over the same %d MiB on one core", size>>20), better: "higher", target: 0.40,
		ours: func() error { return p.round(passageNodes, passageElements) },
		bound: func() error {
			h := sha256.New()
			for range size / len(elementBlock()) {
				h.Write(elementBlock())
			}
			h.Sum(nil)
			return nil
		}}
}

// benchPassage measures all that needs a link and nothing of a federation besides: whole
// rounds, how much memory the link had for them, and the memory of enclaves.
func benchPassage(ctx context.Context, d *demo) (all []benchValue, err error) {
	p, err := startPassage(ctx, d)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	if all, err = measureRounds(p.ctx, passageRounds, []ratio{p.endToEnd()}); err != nil {
		return nil, errors.Join(err, context.Cause(p.ctx))
	}
	all[0].Unit += p.spent.String()
	all = append(all, p.linkMemory())
	for _, l := range memoryLines {
		m, err := p.memory(&l, l.small, l.members, func(string, ...any) {})
		if err != nil {
			return nil, errors.Join(err, context.Cause(p.ctx))
		}
		all = append(all, m)
	}
	return all, nil
}

// tell says every few seconds how far something is.
func tell(ctx context.Context, say func(string, ...any), what string, total int64, done func() int64) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	begin := time.Now()
	group.Go(func() {
		t := time.NewTicker(5 * time.Second)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				say("%6.1f s  %s: %.1f of %.1f GB", time.Since(begin).Seconds(), what, float64(done())/1e9, float64(total)/1e9)
			case <-ctx.Done():
				return
			}
		}
	})
	return func() { cancel(); group.Wait() }
}
