package crosscheck

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-tdx-guest/abi"
	"github.com/google/go-tdx-guest/testing/testdata"
	"github.com/google/go-tdx-guest/validate"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/sim"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/internal/check"
	ours "github.com/concordat/concordat/verifier/internal/tdx"
)

var tdxAt = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// tdxVendor is a simulated Intel; AMD's keys in it are small and unused.
var tdxVendor = sync.OnceValue(func() *sim.Vendor {
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		panic(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(err)
	}
	rsaPEM := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	file, err := json.Marshal(map[string]string{"seed": strings.Repeat("22", 32), "ark": rsaPEM, "ask": rsaPEM})
	if err != nil {
		panic(err)
	}
	v := new(sim.Vendor)
	if err := json.Unmarshal(file, v); err != nil {
		panic(err)
	}
	return v
})

// both returns the own verdict and the library's check on one machine. change
// may make the policy another one.
func both(t *testing.T, at time.Time, change func(*policy.TDX), faults ...string) (check.Verdict, Outcome) {
	t.Helper()
	c := sim.Config{Vendor: tdxVendor(), Platform: sim.PlatformTDX, Chip: "chip-a", Faults: map[string]string{}}
	for _, f := range faults {
		name, value, _ := strings.Cut(f, "=")
		c.Faults[name] = value
	}
	m, err := sim.New(c, tdxAt)
	if err != nil {
		t.Fatal(err)
	}
	items, err := m.Collect(context.Background(), [64]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	ends, err := m.Endorsements()
	if err != nil {
		t.Fatal(err)
	}
	d, err := m.Describe()
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(d.Platforms.TDX)
	}
	p := &policy.Policy{Simulated: true, SimulatedRoots: d.Roots, Platforms: d.Platforms, Evidence: policy.Evidence{MaxCollateralAge: 86400}}
	reportData := [64]byte{1}
	r := check.NewRecorder("tdx")
	ours.Appraise(items[0].Raw, ends, items[0].Endorsements, p, check.Expect{ReportData: reportData[:], At: at, Simulated: true, Roots: d.Roots}, r)
	return check.Summary(r.Checks()), TDX(items[0].Raw, ends, items[0].Endorsements, p, reportData[:], at)
}

// TestTDXAgree: on everything that the library is able to see, both verifiers
// say the same.
func TestTDXAgree(t *testing.T) {
	for faults, want := range map[string]string{ // the library's reason
		"":                                   "",
		"quote-version=5":                    "",
		"quote-version=5,module-update":      "",
		"measurement":                        "no value in AnyMrTd",
		"image":                              "quote field RTMR[3]",
		"owner":                              "MR_OWNER",
		"wrong-nonce":                        "REPORT_DATA",
		"debug":                              "DEBUG bit is set",
		"migration":                          "unauthorized tdAttributes",
		"attribute":                          "unauthorized tdAttributes",
		"stale-tcb=module":                   "OutOfDate",
		"stale-tcb=qe":                       "latest status of Enclave TCB",
		"unknown-tcb":                        "no matching TCB level",
		"unknown-tcb=module":                 "matching the TDX Module's ISVSVN",
		"unknown-tcb=qe":                     "no matching QE TCB level",
		"module-signer":                      "MRSIGNERSEAM",
		"qe-signer":                          "MRSIGNER value",
		"qe-debug":                           "AttributesMask value",
		"qe-report-data":                     "QE Report Data does not match",
		"qe-signature":                       "QE report's signature verification",
		"bad-signature":                      "unable to verify message digest",
		"expired":                            "expired",
		"expired-collateral":                 "tcbInfo has expired",
		"expired-crl":                        "CRL has expired",
		"missing-qe-identity":                "no enclaveIdentity",
		"tampered-tcb-info":                  "could not verify response body",
		"tampered-tcb-info=qe":               "could not verify response body",
		"other-family":                       "FMSPC",
		"revoked":                            "PCK Leaf certificate in PCK certificate chain was revoked",
		"revoked=ca":                         "intermediate certificate in PCK certificate chain was revoked",
		"revoked=signer":                     "signing certificate was revoked",
		"forged-root":                        "is not an accepted root",
		"forged-collateral":                  "unknown authority",
		"forged-ca":                          "parent certificate failed",
		"forged-pck":                         "parent certificate failed",
		"forged-signer":                      "parent certificate failed",
		"expired-signer":                     "expired",
		"processor-ca":                       "Intel SGX PCK Processor CA",
		"quote-version=5,bad-signature":      "unable to verify message digest",
		"quote-version=5,stale-tcb=qe":       "latest status of Enclave TCB",
		"quote-version=5,expired-collateral": "tcbInfo has expired",
	} {
		t.Run(faults, func(t *testing.T) {
			t.Parallel()
			var list []string
			if faults != "" {
				list = strings.Split(faults, ",")
			}
			own, c := both(t, tdxAt, nil, list...)
			if (own == check.Pass) != (want == "") || (c.Verdict == check.Pass) != (want == "") || !strings.Contains(c.Reason, want) {
				t.Errorf("own %v, library %v (%s), want %q", own, c.Verdict, c.Reason, want)
			}
		})
	}
}

// TestTDXGaps pins what is known to differ. A newer library that closes a gap
// fails here: then the list in TDX's comment gets shorter.
func TestTDXGaps(t *testing.T) {
	for name, c := range map[string]struct {
		faults       string
		at           time.Duration
		change       func(*policy.TDX)
		own, library check.Verdict
		text         string
	}{
		"platform out of date below a good module": {faults: "stale-tcb", own: check.Fail, library: check.Pass},
		"platform revoked below a good module":     {faults: "tcb-status=Revoked", own: check.Fail, library: check.Pass},
		"evaluation number":                        {faults: "old-evaluation", own: check.Fail, library: check.Pass},
		"issued in the future":                     {at: -2 * time.Hour, own: check.Fail, library: check.Pass},
		"attributes of version 5":                  {faults: "quote-version=5,debug", own: check.Fail, library: check.Pass},
		"status that the policy accepts": {faults: "stale-tcb=module", change: func(p *policy.TDX) { p.Statuses = []string{"OutOfDate"} },
			own: check.Pass, library: check.Unsupported, text: "found OutOfDate"},
		"measurement of version 5": {faults: "quote-version=5,measurement", own: check.Fail, library: check.Pass},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var list []string
			if c.faults != "" {
				list = strings.Split(c.faults, ",")
			}
			own, lib := both(t, tdxAt.Add(c.at), c.change, list...)
			if own != c.own || lib.Verdict != c.library || !strings.Contains(lib.Reason, c.text) {
				t.Errorf("own %v, library %v (%s), want %v and %v", own, lib.Verdict, lib.Reason, c.own, c.library)
			}
		})
	}
	q, err := abi.QuoteToProto(testdata.RawQuoteV5)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.TdxQuote(q, &validate.Options{}); err == nil || !strings.Contains(err.Error(), "unsupported quote type") {
		t.Errorf("validate and version 5: %v", err)
	}
}

// TestTDXMissing: without revocation lists or collateral the library answers for
// what is there; that something is missing, the own verifier says.
func TestTDXMissing(t *testing.T) {
	for _, f := range []string{"missing-crl", "missing-collateral"} {
		if own, lib := both(t, tdxAt, nil, f); own != check.Incomplete || lib.Verdict != check.Pass {
			t.Errorf("%s: own %v, library %v (%s)", f, own, lib.Verdict, lib.Reason)
		}
	}
}

// TestTDXReal judges Intel's own signatures, from the library's test data, under
// the compiled-in root.
func TestTDXReal(t *testing.T) {
	at := time.Date(2026, 2, 10, 0, 0, 0, 0, time.UTC)
	v4 := testdata.RawQuote
	// A line of text from the tool that wrote the file follows the quote: the
	// library ignores it.
	if c := TDX(v4, nil, nil, nil, nil, at); c.Verdict != check.Fail || !strings.Contains(c.Reason, "not all zero") {
		t.Errorf("trailing text: %+v", c)
	}
	if _, err := abi.QuoteToProto(v4); err != nil {
		t.Errorf("the library minds trailing text: %v", err)
	}
	end := bytes.LastIndex(v4, []byte("-----END CERTIFICATE-----\n")) + len("-----END CERTIFICATE-----\n")
	for name, raw := range map[string][]byte{"v4": v4[:end], "v5": testdata.RawQuoteV5} {
		r := check.NewRecorder("tdx")
		ours.Appraise(raw, nil, nil, nil, check.Expect{At: at, AllowMissingCollateral: true}, r)
		c := TDX(raw, nil, nil, nil, nil, at)
		if !r.IsAuthentic() || c.Verdict != check.Pass {
			t.Errorf("%s: authentic %t, library %+v", name, r.IsAuthentic(), c)
		}
	}
}

func TestTDXVectors(t *testing.T) {
	dir := os.Getenv("CONCORDAT_VECTORS")
	if dir == "" {
		t.Skip("CONCORDAT_VECTORS is not set: real collateral was not judged twice")
	}
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, "tdx", name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	ends, err := attestation.NewEndorsements(attestation.Endorsement{Type: attestation.TypeIntelCollateral, Data: read("tdx_quote_collateral.json")})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		quote string
		ends  *attestation.Endorsements
		day   string
		own   check.Verdict
		lib   check.Verdict
	}{
		{"tdx_quote", ends, "2025-06-20", check.Pass, check.Pass},
		{"tdx_quote", ends, "2026-11-23", check.Fail, check.Fail},
		{"tdx_quote", nil, "2026-11-23", check.Incomplete, check.Pass},
		{"tdx_quote_5.dat", nil, "2026-11-23", check.Incomplete, check.Pass},
		{"tdx_quote_5.dat", ends, "2025-06-20", check.Fail, check.Fail},
	} {
		at, err := time.Parse(time.DateOnly, c.day)
		if err != nil {
			t.Fatal(err)
		}
		raw := read(c.quote)
		r := check.NewRecorder("tdx")
		ours.Appraise(raw, c.ends, nil, nil, check.Expect{At: at, AllowMissingCollateral: true}, r)
		lib := TDX(raw, c.ends, nil, nil, nil, at)
		if own := check.Summary(r.Checks()); own != c.own || lib.Verdict != c.lib {
			t.Errorf("%s at %s: own %v, library %+v", c.quote, c.day, own, lib)
		}
	}
}
