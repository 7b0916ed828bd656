package link

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/concordat/concordat/internal/daemon"
	"github.com/concordat/concordat/link/state"
)

// Config is all that an operator can choose. Only Data is required.
type Config struct {
	Data     string   `yaml:"data"`     // directory of everything that the link keeps; one process at a time
	Listen   string   `yaml:"listen"`   // TCP address; empty: 127.0.0.1:7443
	Address  string   `yaml:"address"`  // "host:port" by which others reach it, if that is not Listen
	Policies []string `yaml:"policies"` // files with policy chains, besides those in Data/federations

	TLSCert string `yaml:"tls_cert"` // PEM files; empty: a self-signed certificate for a key kept in Data
	TLSKey  string `yaml:"tls_key"`
	LogKey  string `yaml:"log_key"` // PEM file; empty: a key kept in Data

	// EnclaveNetworks are the prefixes ("10.1.0.0/16") from which enclaves may
	// attach; empty: any. An enclave shows no credential to the link, so that a
	// stranger who knows a federation's id could pose as its newest one and keep the
	// true one from hearing of new nodes.
	EnclaveNetworks []string `yaml:"enclave_networks"`

	Endorsements Endorsements `yaml:"endorsements"`

	Metrics string           `yaml:"metrics"` // TCP address for GET /metrics; empty: none
	Log     daemon.LogConfig `yaml:"log"`
	Limits  Limits           `yaml:"limits"`

	BatchAge           time.Duration `yaml:"batch_age"`           // how long a log entry waits for company; zero: 20 ms
	CheckpointInterval time.Duration `yaml:"checkpoint_interval"` // between checkpoints of a log that grows; zero: 100 ms
	MessageAge         time.Duration `yaml:"message_age"`         // after which a payload that nobody fetched is dropped; zero: 7 days

	// Retain and Abandoned say when the chunks of a run are released: so long after the
	// log had its end, or, of what does not end, so long after anybody used it. Zero: 30
	// days; 90 days, or Retain if that is longer. Abandoned is at least Retain and a day.
	Retain    Period `yaml:"retain"`
	Abandoned Period `yaml:"abandoned"`

	ReleaseInterval time.Duration `yaml:"-"` // between looks at what may be released; zero: 10 minutes

	Logger *slog.Logger     `yaml:"-"` // nil: nothing is logged. Log is for whoever makes it
	Now    func() time.Time `yaml:"-"` // nil: time.Now
}

// Limits bound what one party or one federation may use. A zero value is the
// default.
type Limits struct {
	NodeRate    float64 `yaml:"node_rate"`    // calls and payloads a second of one node; default 500
	EnclaveRate float64 `yaml:"enclave_rate"` // of one enclave; default 20000
	ChunkBytes  int64   `yaml:"chunk_bytes"`  // of a federation; default 1 TiB
	BlobBytes   int64   `yaml:"blob_bytes"`   // of a federation; default 8 GiB
	QueueBytes  int64   `yaml:"queue_bytes"`  // waiting in one mailbox; default 2 GiB
}

// Complete checks c and fills in the defaults. [New] does so as well.
func (c *Config) Complete() error {
	if c.Data == "" {
		return errors.New("link: no data directory")
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		return errors.New("link: tls_cert and tls_key come together")
	}
	for _, d := range []struct {
		name string
		v    *time.Duration
		def  time.Duration
	}{{"batch_age", &c.BatchAge, 20 * time.Millisecond}, {"checkpoint_interval", &c.CheckpointInterval, 100 * time.Millisecond}, {"message_age", &c.MessageAge, 7 * day}, {"release interval", &c.ReleaseInterval, 10 * time.Minute}} {
		if *d.v < 0 {
			return fmt.Errorf("link: %s is negative", d.name)
		}
		if *d.v == 0 {
			*d.v = d.def
		}
	}
	if c.Retain == 0 {
		c.Retain = Period(30 * day)
	}
	if c.Abandoned == 0 {
		c.Abandoned = max(Period(90*day), c.Retain)
	}
	if least := max(c.Retain, Period(day)); c.Retain < 0 || c.Abandoned < least {
		return fmt.Errorf("link: abandoned is %s, want at least retain and a day: %s", c.Abandoned, least)
	}
	l := &c.Limits
	for _, d := range []struct {
		name string
		v    *int64
		def  int64
	}{{"chunk_bytes", &l.ChunkBytes, 1 << 40}, {"blob_bytes", &l.BlobBytes, state.DefaultLimits.BlobBytes}, {"queue_bytes", &l.QueueBytes, state.DefaultLimits.MailboxBytes}} {
		if *d.v < 0 {
			return fmt.Errorf("link: limits.%s is negative", d.name)
		}
		if *d.v == 0 {
			*d.v = d.def
		}
	}
	for _, d := range []struct {
		name string
		v    *float64
		def  float64
	}{{"node_rate", &l.NodeRate, 500}, {"enclave_rate", &l.EnclaveRate, 20000}} {
		if !(*d.v >= 0) {
			return fmt.Errorf("link: limits.%s is not a rate", d.name)
		}
		if *d.v == 0 {
			*d.v = d.def
		}
	}
	if c.Listen == "" {
		c.Listen = "127.0.0.1:7443"
	}
	if c.Address != "" {
		if _, _, err := net.SplitHostPort(c.Address); err != nil {
			return fmt.Errorf("link: address: %w", err)
		}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return nil
}

func parsePrefixes(s []string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, p := range s {
		n, err := netip.ParsePrefix(p)
		if err != nil {
			return nil, fmt.Errorf("link: enclave_networks: %w", err)
		}
		all = append(all, n.Masked())
	}
	return all, nil
}
