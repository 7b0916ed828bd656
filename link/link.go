package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"time"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"github.com/concordat/concordat/chunkstore/pack"
	"github.com/concordat/concordat/chunkstore/transfer"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/daemon"
	"github.com/concordat/concordat/internal/daemon/dial"
	"github.com/concordat/concordat/internal/daemon/metrics"
	"github.com/concordat/concordat/internal/durable"
	"github.com/concordat/concordat/link/endorse"
	"github.com/concordat/concordat/link/state"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
)

// Link is one running link.
type Link struct {
	cfg      Config
	address  string
	state    *state.Store
	relay    *service
	collect  *collector
	server   *grpc.Server
	listener net.Listener
	exporter net.Listener // nil: none
	registry *prometheus.Registry
	closers  []io.Closer // of what New opened, in that order
}

// service answers the Relay service. All its fields are set before it serves.
type service struct {
	concordatv1.UnimplementedRelayServer
	federations map[cose.Digest]*federation
	state       *state.Store
	chunks      transfer.Server
	vendors     endorse.Vendors // nil: nobody is asked
	enclaves    []netip.Prefix
	limits      Limits
	now         func() time.Time
	logger      *slog.Logger
	metrics     *counters
	draining    chan struct{}
}

// New opens everything in the data directory, hosts every federation whose policy
// it finds, and listens; nothing is answered before [Link.Run]. Whatever is wrong
// with any of it is an error: a link hosts all of its federations or does not
// start.
func New(cfg Config) (_ *Link, err error) {
	if err := cfg.Complete(); err != nil {
		return nil, err
	}
	l := &Link{cfg: cfg, registry: metrics.Registry()}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	enclaves, err := parsePrefixes(cfg.EnclaveNetworks)
	if err != nil {
		return nil, err
	}
	f, err := lock(cfg.Data)
	if err != nil {
		return nil, err
	}
	l.closers = append(l.closers, f)
	cert, pin, err := cfg.certificate()
	if err != nil {
		return nil, err
	}
	limits := state.DefaultLimits
	limits.BlobBytes, limits.MailboxBytes = cfg.Limits.BlobBytes, cfg.Limits.QueueBytes
	if l.state, err = state.Open(context.Background(), filepath.Join(cfg.Data, stateFile), limits, cfg.Now); err != nil {
		return nil, err
	}
	l.closers = append(l.closers, l.state)
	chunks, err := cfg.openChunks()
	if err != nil {
		return nil, err
	}
	l.closers = append(l.closers, chunks)
	vendors, err := cfg.vendors()
	if err != nil {
		return nil, fmt.Errorf("link: endorsements: %w", err)
	}
	l.relay = &service{federations: make(map[cose.Digest]*federation), state: l.state, chunks: transfer.Server{Store: chunks}, vendors: vendors, enclaves: enclaves, limits: cfg.Limits,
		now: cfg.Now, logger: cfg.Logger, metrics: newMetrics(l.registry), draining: make(chan struct{})}
	if err := l.hostAll(); err != nil {
		return nil, err
	}
	l.collect = l.collector(chunks)
	if err := l.listen(pin); err != nil {
		return nil, err
	}
	l.server = grpc.NewServer(append(dial.ServerOptions(),
		grpc.Creds(connCredentials{dial.Gathered(credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, DynamicRecordSizingDisabled: true}))}),
		grpc.ForceServerCodecV2(transfer.Codec{}),
		grpc.MaxConcurrentStreams(256), grpc.MaxHeaderListSize(16<<10), grpc.ConnectionTimeout(10*time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 20 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)...)
	concordatv1.RegisterRelayServer(l.server, l.relay)
	return l, nil
}

// openChunks opens the store of chunks and says what of it is lost.
func (c *Config) openChunks() (*pack.Store, error) {
	chunks, err := pack.Open(disk, filepath.Join(c.Data, chunksDir), pack.Options{FederationBytes: c.Limits.ChunkBytes, Now: c.Now})
	if err != nil {
		return nil, fmt.Errorf("link: %w", err)
	}
	for _, err := range chunks.Damaged() {
		c.Logger.Error("chunks are lost", "error", err)
	}
	for _, err := range chunks.Torn() {
		c.Logger.Warn("chunks that a crash left uncommitted are gone", "error", err)
	}
	return chunks, nil
}

func (l *Link) hostAll() error {
	chains, err := l.cfg.chains()
	if err != nil {
		return err
	}
	path := l.cfg.LogKey
	if path == "" {
		path = filepath.Join(l.cfg.Data, logKeyFile)
	}
	k, err := key(path, cose.EdDSA)
	if err != nil {
		return err
	}
	for _, c := range chains {
		f, err := l.host(context.Background(), c, k)
		if err != nil {
			return err
		}
		l.closers = append(l.closers, closer(func() error {
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			return f.log.Close(ctx)
		}))
		l.relay.federations[f.id] = f
		l.cfg.Logger.Info("hosting a federation", "federation", f.id.String(), "policy", f.policy.Version, "simulated", f.policy.Simulated)
	}
	return nil
}

type closer func() error

func (c closer) Close() error { return c() }

// listen opens the listeners and writes the address, with its pin, where people
// and scripts find it.
func (l *Link) listen(pin *dial.Pin) (err error) {
	if l.listener, err = net.Listen("tcp", l.cfg.Listen); err != nil {
		return fmt.Errorf("link: %w", err)
	}
	l.closers = append(l.closers, l.listener)
	a := dial.Address{HostPort: l.listener.Addr().String(), Pin: pin}
	if l.cfg.Address != "" {
		a.HostPort = l.cfg.Address
	}
	l.address = a.String()
	if err := durable.WriteFile(disk, filepath.Join(l.cfg.Data, addressFile), []byte(l.address+"\n"), 0o644); err != nil {
		return err
	}
	if l.cfg.Metrics == "" {
		return nil
	}
	if l.exporter, err = net.Listen("tcp", l.cfg.Metrics); err != nil {
		return fmt.Errorf("link: metrics: %w", err)
	}
	l.closers = append(l.closers, l.exporter)
	return nil
}

// Address returns what nodes and enclaves dial: "host:port", and the pin of a
// self-signed key. The file "address" in the data directory has it too.
func (l *Link) Address() string { return l.address }

// Run serves until ctx ends, then drains: streams are told to come again, calls
// under way are finished, and everything is closed. It is to be called once; a
// Link that does not run is never closed.
func (l *Link) Run(ctx context.Context) error {
	if len(l.relay.federations) == 0 {
		l.cfg.Logger.Warn("no federation is hosted; put a signed policy into the directory and start again", "directory", filepath.Join(l.cfg.Data, federationsDir))
	}
	l.cfg.Logger.Info("link is ready", "address", l.address)
	parts := []daemon.Part{{Name: "mail expiry", Run: l.expire}, {Name: "chunk release", Run: l.collect.run}}
	if l.exporter != nil {
		parts = append(parts, daemon.Part{Name: "metrics", Run: func(ctx context.Context) error { return metrics.Serve(ctx, l.exporter, l.registry) }})
	}
	parts = append(parts, daemon.Part{Name: "relay", Run: l.serve})
	err := daemon.Run(ctx, parts...)
	return errors.Join(err, l.close())
}

// drainTime is how long calls under way may take to finish.
const drainTime = 10 * time.Second

func (l *Link) serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		close(l.relay.draining)
		t := time.AfterFunc(drainTime, l.server.Stop)
		defer t.Stop()
		l.server.GracefulStop()
	})
	err := l.server.Serve(l.listener)
	if stop() {
		return err // it did not end because it was told to
	}
	l.server.GracefulStop() // waits for the one above
	return nil
}

// expire drops payloads that nobody fetched.
func (l *Link) expire(ctx context.Context) error {
	t := time.NewTicker(10 * time.Minute)
	defer t.Stop()
	for {
		for {
			n, err := l.state.Expire(ctx, l.cfg.Now().Add(-l.cfg.MessageAge))
			if err != nil && ctx.Err() == nil {
				l.cfg.Logger.ErrorContext(ctx, "old payloads are not dropped", "error", err)
			}
			if n > 0 {
				l.cfg.Logger.InfoContext(ctx, "dropped payloads that nobody fetched", "count", n)
			}
			if n == 0 {
				break
			}
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (l *Link) close() error {
	var errs []error
	for i := len(l.closers) - 1; i >= 0; i-- {
		if err := l.closers[i].Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	l.closers = nil
	return errors.Join(errs...)
}
