package endorse

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/nvgpu"
	"github.com/concordat/concordat/attestation/sim"
	"github.com/concordat/concordat/attestation/tdx"
)

var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

var vendor = sync.OnceValue(func() *sim.Vendor {
	v, err := sim.NewVendor()
	if err != nil {
		panic(err)
	}
	return v
})

// services imitates the addresses of all vendors' services for one machine.
type services struct {
	t      *testing.T
	set    *attestation.Endorsements
	rims   map[string][]byte // by id
	issued map[*x509.Certificate]*x509.Certificate

	mu     sync.Mutex
	asked  []string       // paths in order
	status map[string]int // by a part of the path: answers other than 200
	retry  string         // Retry-After of these
}

// machine returns a simulated machine's evidence and the services that vouch for
// it.
func machine(t *testing.T, cfg sim.Config) ([]attestation.Item, *services) {
	t.Helper()
	cfg.Vendor = vendor()
	m, err := sim.New(cfg, now)
	if err != nil {
		t.Fatal(err)
	}
	items, err := m.Collect(context.Background(), [64]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	gpus, err := m.CollectGPU(context.Background(), make([][32]byte, m.GPUs()))
	if err != nil {
		t.Fatal(err)
	}
	s := &services{t: t, rims: map[string][]byte{}, issued: map[*x509.Certificate]*x509.Certificate{}, status: map[string]int{}}
	if s.set, err = m.Endorsements(); err != nil {
		t.Fatal(err)
	}
	for _, g := range gpus {
		s.name(g)
	}
	return append(items, gpus...), s
}

// name finds out under which ids the manifests of a GPU are asked for.
func (s *services) name(g attestation.Item) {
	r, err := nvgpu.Parse(g.Raw)
	if err != nil {
		s.t.Fatal(err)
	}
	chain, err := deviceChain(g, s.set)
	if err != nil {
		s.t.Fatal(err)
	}
	s.issue(chain)
	chip, err := chipOf(chain)
	if err != nil {
		s.t.Fatal(err)
	}
	driver, _ := r.Driver()
	for _, doc := range s.set.ByType(attestation.TypeNVIDIARIM, g.Endorsements) {
		id, err := r.VBIOSRIM(chip)
		if strings.Contains(string(doc), `"`+driver+`"`) {
			id, err = r.DriverRIM(chip)
		}
		if err != nil {
			s.t.Fatal(err)
		}
		s.rims[id] = doc
		s.issue(signers(doc))
	}
}

func (s *services) one(typ string) []byte {
	if l := s.set.ByType(typ, nil); len(l) > 0 {
		return l[0]
	}
	s.t.Errorf("asked for %s, which this machine has not", typ)
	return nil
}

func (s *services) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	path := r.URL.RequestURI()
	s.asked = append(s.asked, path)
	for part, code := range s.status {
		if strings.Contains(path, part) {
			if s.retry != "" {
				w.Header().Set("Retry-After", s.retry)
			}
			http.Error(w, "<html>patience</html>", code)
			return
		}
	}
	switch path := r.URL.Path; {
	case r.Method == http.MethodPost:
		s.ocsp(w, r)
	case strings.HasSuffix(path, "/cert_chain"):
		w.Write(s.one(attestation.TypeAMDChain))
	case strings.HasSuffix(path, "/crl"):
		w.Write(s.one(attestation.TypeAMDCRL))
	case strings.HasPrefix(path, "/vcek/v1/"):
		w.Write(s.one(attestation.TypeAMDVCEK))
	case strings.HasPrefix(path, "/v1/rim/"):
		doc, ok := s.rims[strings.TrimPrefix(path, "/v1/rim/")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		json.NewEncoder(w).Encode(map[string]string{"id": strings.TrimPrefix(path, "/v1/rim/"), "rim": base64.StdEncoding.EncodeToString(doc), "rim_format": "swid"})
	default:
		s.intel(w, r)
	}
}

func (s *services) intel(w http.ResponseWriter, r *http.Request) {
	c, err := tdx.ParseCollateral(s.one(attestation.TypeIntelCollateral))
	if err != nil {
		s.t.Error(err)
		return
	}
	signed := func(inner, header string, d *tdx.Signed) {
		w.Header().Set(header, strings.ReplaceAll(url.QueryEscape(string(d.Chain)), "+", "%20"))
		fmt.Fprintf(w, `{%q:%s,"signature":%q}`, inner, d.Doc, hex.EncodeToString(d.Signature[:]))
	}
	switch r.URL.Path {
	case "/tdx/certification/v4/tcb":
		signed("tcbInfo", "TCB-Info-Issuer-Chain", c.TCBInfo)
	case "/tdx/certification/v4/qe/identity":
		signed("enclaveIdentity", "SGX-Enclave-Identity-Issuer-Chain", c.QEIdentity)
	case "/sgx/certification/v4/pckcrl":
		w.Header().Set("SGX-PCK-CRL-Issuer-Chain", strings.ReplaceAll(url.QueryEscape(string(c.PCKCRLChain)), "+", "%20"))
		w.Write(c.PCKCRL)
	case "/IntelSGXRootCA.der":
		w.Write(c.RootCRL)
	case "/sgx/certification/v4/rootcacrl": // as a PCCS has it
		fmt.Fprintf(w, "%x\n", c.RootCRL)
	default:
		http.NotFound(w, r)
	}
}

func (s *services) ocsp(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(io.LimitReader(r.Body, 1<<16))
	if err != nil {
		s.t.Error(err)
	}
	req, err := ocsp.ParseRequest(b)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if d := s.response(req); d != nil {
		w.Write(d)
		return
	}
	http.NotFound(w, r)
}

// response finds the one about the certificate that a request means: two issuers
// may give out one serial number.
func (s *services) response(req *ocsp.Request) []byte {
	for cert, issuer := range s.issued {
		again, err := ocsp.CreateRequest(cert, issuer, &ocsp.RequestOptions{Hash: req.HashAlgorithm})
		if err != nil {
			s.t.Error(err)
			return nil
		}
		same, err := ocsp.ParseRequest(again)
		if err != nil || same.SerialNumber.Cmp(req.SerialNumber) != 0 || !bytes.Equal(same.IssuerKeyHash, req.IssuerKeyHash) {
			continue
		}
		for _, d := range s.set.ByType(attestation.TypeNVIDIAOCSP, nil) {
			if _, err := ocsp.ParseResponseForCert(d, cert, issuer); err == nil {
				return d
			}
		}
	}
	return nil
}

// issue notes which certificate of a chain issued which.
func (s *services) issue(chain []*x509.Certificate) {
	for i := range len(chain) - 1 {
		s.issued[chain[i]] = chain[i+1]
	}
}

// RoundTrip answers without a network, so that a test's time is its own.
func (s *services) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w.Result(), nil
}

func (s *services) paths() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.asked...)
}

// at is every service at one address.
func at(base string) Addresses {
	return Addresses{AMD: base, Intel: base, IntelRoot: base + "/IntelSGXRootCA.der", NVIDIAOCSP: base, NVIDIARIM: base}
}

// chains are what a machine hands out itself.
func chains(set *attestation.Endorsements) *attestation.Endorsements {
	out := new(attestation.Endorsements)
	for _, b := range set.ByType(attestation.TypeNVIDIAChain, nil) {
		out.Add(attestation.Endorsement{Type: attestation.TypeNVIDIAChain, Data: b})
	}
	return out
}
