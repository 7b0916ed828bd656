package endorse

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/sim"
	"github.com/concordat/concordat/attestation/snp"
)

// TestFetch: over HTTP, everything that a machine's evidence names is found again
// at the addresses of the vendors.
func TestFetch(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		cfg  sim.Config
		want []string // parts of the addresses, in order
	}{
		"Milan": {sim.Config{Platform: sim.PlatformSNP, Product: "Milan"}, []string{"/vcek/v1/Milan/", "/vcek/v1/Milan/cert_chain", "/vcek/v1/Milan/crl"}},
		"Genoa": {sim.Config{Platform: sim.PlatformSNP, Product: "Genoa"}, []string{"/vcek/v1/Genoa/", "/vcek/v1/Genoa/cert_chain", "/vcek/v1/Genoa/crl"}},
		"Turin": {sim.Config{Platform: sim.PlatformSNP, Product: "Turin"}, []string{"fmcSPL=", "/vcek/v1/Turin/cert_chain", "/vcek/v1/Turin/crl"}},
		"TDX":   {sim.Config{Platform: sim.PlatformTDX}, []string{"/tdx/certification/v4/tcb?fmspc=", "/tdx/certification/v4/qe/identity", "/sgx/certification/v4/pckcrl?ca=platform&encoding=der", "/IntelSGXRootCA.der"}},
		"GPUs":  {sim.Config{Platform: sim.PlatformSNP, GPUs: 2, Manifests: true}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			items, s := machine(t, c.cfg)
			srv := httptest.NewServer(s)
			defer srv.Close()
			v := NewVendors(Config{Distance: map[string]time.Duration{strings.TrimPrefix(srv.URL, "http://"): time.Nanosecond}}, at(srv.URL))
			got, err := v.Fetch(context.Background(), items, chains(s.set))
			if err != nil {
				t.Fatal(err)
			}
			for _, it := range items {
				for _, d := range it.Endorsements {
					// Of responses there are several about one certificate.
					if e, _ := s.set.Get(d); e.Type != attestation.TypeNVIDIAOCSP {
						if _, ok := got.Get(d); !ok {
							t.Errorf("%s: %s is missing", it.Kind, e.Type)
						}
					}
				}
			}
			for cert, issuer := range s.issued {
				about := func(d []byte) bool { _, err := ocsp.ParseResponseForCert(d, cert, issuer); return err == nil }
				if leaf := strings.Contains(cert.Subject.CommonName, "FMC"); slices.ContainsFunc(got.ByType(attestation.TypeNVIDIAOCSP, nil), about) == leaf {
					t.Errorf("status of %q: got %v", cert.Subject.CommonName, !leaf)
				}
			}
			if c.cfg.Manifests && len(got.ByType(attestation.TypeNVIDIARIM, nil)) != 2 {
				t.Error("not the two manifests")
			}
			asked := s.paths()
			for i, part := range c.want {
				if i >= len(asked) || !strings.Contains(asked[i], part) {
					t.Fatalf("asked for %q, want %q", asked, c.want)
				}
			}
		})
	}
}

// TestPCCS: a caching service has Intel's root list itself, in hex.
func TestPCCS(t *testing.T) {
	t.Parallel()
	items, s := machine(t, sim.Config{Platform: sim.PlatformTDX})
	v := NewVendors(Config{Transport: s, Distance: map[string]time.Duration{"pccs.example": time.Nanosecond}}, Addresses{Intel: "https://pccs.example"})
	got, err := v.Fetch(context.Background(), items, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := got.Get(items[0].Endorsements[0]); !ok {
		t.Error("other collateral than the machine's")
	}
	if asked := s.paths(); !slices.Contains(asked, "/sgx/certification/v4/rootcacrl") {
		t.Errorf("asked for %q", asked)
	}
}

// TestPace: two requests to AMD are ten seconds apart, those to others are not
// held up.
func TestPace(t *testing.T) {
	t.Parallel()
	items, s := machine(t, sim.Config{Platform: sim.PlatformSNP})
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		if _, err := NewVendors(Config{Transport: s}, Addresses{}).Fetch(t.Context(), items, nil); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != 2*kdsDistance || len(s.paths()) != 3 {
			t.Errorf("%d requests took %s, want 3 in %s", len(s.paths()), took, 2*kdsDistance)
		}
	})
}

// TestPatience: a server that asks for patience gets it, up to a limit.
func TestPatience(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status int
		retry  string
		took   time.Duration
		asked  int
	}{
		"seconds":     {429, "30", 90 * time.Second, attempts},
		"unavailable": {503, "30", 90 * time.Second, attempts},
		"no word":     {429, "", 5*time.Second + kdsDistance + 20*time.Second, attempts}, // AMD's distance is more than the first pause
		"too long":    {429, "3600", 0, 1},
		"not found":   {404, "30", 0, 1},
		"broken":      {500, "30", 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			items, s := machine(t, sim.Config{Platform: sim.PlatformSNP})
			s.status["/vcek/"], s.retry = c.status, c.retry
			if name == "no word" {
				c.took += 5 * time.Second // the first pause is AMD's distance
			}
			synctest.Test(t, func(t *testing.T) {
				cl := NewClient(Config{Transport: s, Distance: map[string]time.Duration{kdsHost: kdsDistance}})
				r, err := snp.Parse(items[0].Raw)
				if err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				_, err = (&AMD{cl, kds}).vcek(t.Context(), r, []snp.Product{snp.Genoa})
				if !errors.Is(err, ErrStatus) {
					t.Errorf("got %v", err)
				}
				if took := time.Since(start); took != c.took || len(s.paths()) != c.asked {
					t.Errorf("%d requests in %s, want %d in %s", len(s.paths()), took, c.asked, c.took)
				}
			})
		})
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for s, want := range map[string]time.Duration{
			"": 0, "x": 0, "-5": 0, "7": 7 * time.Second,
			time.Now().Add(time.Minute).UTC().Format(http.TimeFormat):  time.Minute,
			time.Now().Add(-time.Minute).UTC().Format(http.TimeFormat): time.Second,
		} {
			if got := retryAfter(s); got != want {
				t.Errorf("%q: got %s, want %s", s, got, want)
			}
		}
	})
}

// TestCache: what never changes is asked for once, what does is asked again when
// it is no longer fresh; offline nothing is asked; a damaged answer is no answer.
func TestCache(t *testing.T) {
	t.Parallel()
	items, s := machine(t, sim.Config{Platform: sim.PlatformSNP})
	dir := t.TempDir()
	cache, err := OpenCache(dir)
	if err != nil {
		t.Fatal(err)
	}
	fetch := func(cfg Config) ([]string, error) {
		cfg.Transport, cfg.Cache, cfg.Distance = s, cache, map[string]time.Duration{kdsHost: time.Nanosecond}
		s.asked = nil
		_, err := NewVendors(cfg, Addresses{}).Fetch(context.Background(), items, nil)
		return s.asked, err
	}
	if asked, err := fetch(Config{}); err != nil || len(asked) != 3 {
		t.Fatalf("%v: %q", err, asked)
	}
	if asked, err := fetch(Config{}); err != nil || len(asked) != 1 || !strings.HasSuffix(asked[0], "/crl") {
		t.Errorf("%v: again: %q", err, asked)
	}
	if asked, err := fetch(Config{Fresh: time.Hour}); err != nil || len(asked) != 0 {
		t.Errorf("%v: fresh: %q", err, asked)
	}
	if asked, err := fetch(Config{Offline: true}); err != nil || len(asked) != 0 {
		t.Errorf("%v: offline: %q", err, asked)
	}
	files, err := filepath.Glob(filepath.Join(dir, "answers", "*"))
	if err != nil || len(files) != 3 {
		t.Fatalf("%v: %q", err, files)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)/2] ^= 1
		if err := os.WriteFile(f, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := fetch(Config{Offline: true}); err == nil {
		t.Error("damaged answers were used")
	}
	if asked, err := fetch(Config{Fresh: time.Hour}); err != nil || len(asked) != 3 {
		t.Errorf("%v: after damage: %q", err, asked)
	}
}

// fixed answers everything with one body.
type fixed struct {
	body   string
	header http.Header
	code   int
}

func (f fixed) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	for k, v := range f.header {
		w.Header()[k] = v
	}
	w.WriteHeader(max(f.code, 200))
	w.WriteString(f.body)
	resp := w.Result()
	resp.Request = r
	return resp, nil
}

// TestRefuses: what is not the document that was asked for is neither returned nor
// kept.
func TestRefuses(t *testing.T) {
	t.Parallel()
	snpItems, _ := machine(t, sim.Config{Platform: sim.PlatformSNP})
	tdxItems, _ := machine(t, sim.Config{Platform: sim.PlatformTDX})
	gpus, s := machine(t, sim.Config{Platform: sim.PlatformSNP, GPUs: 1})
	for name, rt := range map[string]http.RoundTripper{
		"error page": fixed{body: "<html>log in to the network</html>"},
		"empty":      fixed{},
		"huge":       fixed{body: strings.Repeat("x", maxBody+1)},
		"JSON":       fixed{body: `{"tcbInfo":{},"signature":"00","id":"x","rim":"eA=="}`},
		"chain":      fixed{body: `{"tcbInfo":{},"enclaveIdentity":{},"signature":"` + strings.Repeat("00", 64) + `"}`, header: http.Header{chainTCB: {"%zz"}, chainQE: {"x"}}},
		"elsewhere":  fixed{code: http.StatusFound, header: http.Header{"Location": {"https://elsewhere.example/"}}},
	} {
		cache, err := OpenCache(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		near := map[string]time.Duration{kdsHost: time.Nanosecond, "h": time.Nanosecond}
		v := NewVendors(Config{Transport: rt, Cache: cache, Distance: near}, Addresses{Intel: "https://h", NVIDIAOCSP: "https://h", NVIDIARIM: "https://h"})
		for _, items := range [][]attestation.Item{snpItems, tdxItems, gpus[1:]} {
			got, err := v.Fetch(context.Background(), items, chains(s.set))
			if err == nil || got.Len() != chains(s.set).Len() {
				t.Errorf("%s, %s: got %d documents, %v", name, items[0].Kind, got.Len(), err)
			}
		}
		if files, _ := filepath.Glob(filepath.Join(cache.dir, "*", "*")); len(files) != 0 {
			t.Errorf("%s: kept %q", name, files)
		}
	}
	v := NewVendors(Config{Transport: s}, Addresses{})
	for name, it := range map[string]attestation.Item{
		"no report":   {Kind: attestation.KindSNP, Raw: []byte("x")},
		"no quote":    {Kind: attestation.KindTDX, Raw: []byte("x")},
		"no chain":    gpus[1],
		"no platform": {Kind: "sgx", Raw: []byte("x")},
	} {
		s.asked = nil
		if got, err := v.Fetch(context.Background(), []attestation.Item{it}, nil); err == nil || got.Len() != 0 || len(s.asked) != 0 {
			t.Errorf("%s: got %d documents, %v, asked %q", name, got.Len(), err, s.asked)
		}
	}
}

// TestReports: what a report does not say is not guessed.
func TestReports(t *testing.T) {
	t.Parallel()
	items, s := machine(t, sim.Config{Platform: sim.PlatformSNP})
	amd := &AMD{NewClient(Config{Transport: s, Distance: map[string]time.Duration{kdsHost: time.Nanosecond}}), kds}
	fetch := func(change func(r *snp.Report)) ([]attestation.Endorsement, []string, error) {
		r, err := snp.Parse(items[0].Raw)
		if err != nil {
			t.Fatal(err)
		}
		change(r)
		s.asked = nil
		docs, err := amd.Fetch(context.Background(), attestation.Item{Kind: attestation.KindSNP, Raw: r.Marshal()}, nil)
		return docs, s.asked, err
	}
	if _, asked, err := fetch(func(r *snp.Report) { r.ChipID = [64]byte{} }); err == nil || len(asked) != 0 {
		t.Errorf("hidden chip: %v, %q", err, asked)
	}
	if _, asked, err := fetch(func(r *snp.Report) { r.CPUID = snp.CPUID{Family: 0x20} }); err == nil || len(asked) != 0 {
		t.Errorf("unknown family: %v, %q", err, asked)
	}
	docs, asked, err := fetch(func(r *snp.Report) { r.SignerInfo = snp.NewSignerInfo(snp.VLEK, 0) })
	if err != nil || len(docs) != 2 || !strings.Contains(asked[0], "/vlek/v1/Genoa/cert_chain") {
		t.Errorf("VLEK: %v, %q", err, asked)
	}
	// A report of version 2 names no product line: each is tried.
	s.status["/v1/Milan/"] = http.StatusNotFound
	docs, asked, err = fetch(func(r *snp.Report) {
		r.Version, r.CPUID, r.LaunchMitigations, r.CurrentMitigations = 2, snp.CPUID{}, 0, 0
	})
	if err != nil || len(docs) != 3 || len(asked) != 4 || !strings.Contains(asked[1], "/vcek/v1/Genoa/") {
		t.Errorf("version 2: %v, %q", err, asked)
	}
}
