package tdx

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// sample returns a quote whose every byte follows from its place.
func sample(version uint16, body BodyType) *Quote {
	q := &Quote{Version: version, BodyType: body, Vendor: VendorIntel}
	size := bodySize15 + qeReportSize + 2*signatureSize + keySize
	pattern := make([]byte, size)
	for i := range pattern {
		pattern[i] = byte(i*7 + 1)
	}
	r := reader{b: pattern}
	r.fixed("", bodySize10, &q.Body)
	if body == TDX15 {
		r.fixed("", bodySize15-bodySize10, &q.Extra)
	}
	r.fixed("", qeReportSize, &q.QEReport)
	r.fixed("", signatureSize, &q.Signature)
	r.fixed("", signatureSize, &q.QESignature)
	r.fixed("", keySize, &q.AttestationKey)
	if r.err != nil {
		panic(r.err)
	}
	q.AuthData = []byte("authentication data")
	q.Chain = []byte("-----BEGIN CERTIFICATE-----\n\x00")
	return q
}

var samples = map[string]*Quote{"v4": sample(V4, TDX10), "v5 TDX 1.0": sample(V5, TDX10), "v5 TDX 1.5": sample(V5, TDX15)}

// TestGolden pins the layout: a digest for each version, and the offsets of
// Intel's tables where a field must lie.
func TestGolden(t *testing.T) {
	for name, want := range map[string]string{
		"v4":         "1d6dafbde6c755d04234539d29fa2b3870d77b0db1658521c1e9dc78e14fb6e3",
		"v5 TDX 1.0": "55012adc30191a8ccf563e5ad8494b0772bda86f247ecc3312855450be5de1c0",
		"v5 TDX 1.5": "923291912c636611263a44b62048d53751fe9190333bac1dce23f82d0e2b4d96",
	} {
		sum := sha256.Sum256(samples[name].Marshal())
		if got := hex.EncodeToString(sum[:]); got != want {
			t.Errorf("%s: digest %s, want %s", name, got, want)
		}
	}
	q := samples["v4"]
	b := q.Marshal()
	const body = 0x30
	for _, f := range []struct {
		off  int
		want []byte
		name string
	}{
		{0, []byte{4, 0, 2, 0, 0x81, 0, 0, 0}, "header"},
		{12, VendorIntel[:], "vendor"},
		{body + 0x00, q.Body.TEETCBSVN[:], "TEE_TCB_SVN"},
		{body + 0x10, q.Body.MRSEAM[:], "MRSEAM"},
		{body + 0x40, q.Body.MRSignerSEAM[:], "MRSIGNERSEAM"},
		{body + 0x70, q.Body.SEAMAttributes[:], "SEAMATTRIBUTES"},
		{body + 0x78, binary.LittleEndian.AppendUint64(nil, uint64(q.Body.TDAttributes)), "TDATTRIBUTES"},
		{body + 0x80, binary.LittleEndian.AppendUint64(nil, q.Body.XFAM), "XFAM"},
		{body + 0x88, q.Body.MRTD[:], "MRTD"},
		{body + 0xb8, q.Body.MRConfigID[:], "MRCONFIGID"},
		{body + 0xe8, q.Body.MROwner[:], "MROWNER"},
		{body + 0x118, q.Body.MROwnerConfig[:], "MROWNERCONFIG"},
		{body + 0x148, q.Body.RTMR[0][:], "RTMR0"},
		{body + 0x1d8, q.Body.RTMR[3][:], "RTMR3"},
		{body + 0x208, q.Body.ReportData[:], "REPORTDATA"},
		{0x278 + 4, q.Signature[:], "signature"},
		{0x278 + 4 + 64, q.AttestationKey[:], "attestation key"},
		{0x278 + 4 + 134, q.QEReport.CPUSVN[:], "QE report"},
		{0x278 + 4 + 134 + 256, []byte{byte(q.QEReport.ISVProdID), byte(q.QEReport.ISVProdID >> 8)}, "ISVPRODID"},
		{0x278 + 4 + 134 + 320, q.QEReport.ReportData[:], "QE REPORTDATA"},
		{0x278 + 4 + 134 + 384, q.QESignature[:], "QE signature"},
	} {
		if !bytes.Equal(b[f.off:f.off+len(f.want)], f.want) {
			t.Errorf("%s is not at 0x%x", f.name, f.off)
		}
	}
	v5 := samples["v5 TDX 1.5"].Marshal()
	if got := v5[0x30:0x36]; !bytes.Equal(got, []byte{3, 0, 0x88, 2, 0, 0}) {
		t.Errorf("descriptor %x", got)
	}
	if got := v5[0x36+584 : 0x36+600]; !bytes.Equal(got, samples["v5 TDX 1.5"].Extra.TEETCBSVN2[:]) {
		t.Errorf("TEE_TCB_SVN2 %x", got)
	}
}

func TestRoundTrip(t *testing.T) {
	for name, q := range samples {
		t.Run(name, func(t *testing.T) {
			b := q.Marshal()
			for _, pad := range []int{0, 1, 3000} {
				p, err := Parse(append(bytes.Clone(b), make([]byte, pad)...))
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(p.Marshal(), b) {
					t.Errorf("padded by %d: not the same bytes", pad)
				}
				if !bytes.HasPrefix(b, p.Signed()) {
					t.Error("signed bytes are not a prefix")
				}
			}
			for n := range b {
				if _, err := Parse(b[:n]); !errors.Is(err, ErrMalformed) {
					t.Fatalf("cut to %d bytes: %v", n, err)
				}
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	v4, v5 := samples["v4"].Marshal(), samples["v5 TDX 1.5"].Marshal()
	const sig = 0x278
	change := func(b []byte, at int, v ...byte) []byte {
		b = bytes.Clone(b)
		copy(b[at:], v)
		return b
	}
	for name, c := range map[string]struct {
		raw  []byte
		want error
		text string
	}{
		"too large":            {make([]byte, MaxQuote+1), ErrMalformed, "limit 65536"},
		"version 3":            {change(v4, 0, 3), ErrUnsupported, "quote version 3"},
		"key type":             {change(v4, 2, 3), ErrUnsupported, "key type 3"},
		"SGX":                  {change(v4, 4, 0), ErrUnsupported, "TEE type 0x0"},
		"body type":            {change(v5, 48, 1), ErrUnsupported, "body type 1"},
		"body size":            {change(v5, 50, 0x87), ErrMalformed, "type 3 has 648"},
		"signature too long":   {change(v4, sig, 0xff, 0xff, 0xff, 0xff), ErrMalformed, "signature data: 4294967295 bytes"},
		"signature too short":  {change(v4, sig, 10, 0, 0, 0), ErrMalformed, "signature: 64 bytes, only 10"},
		"outer type":           {change(v4, sig+4+128, 5), ErrUnsupported, "certification data of type 5"},
		"outer too short":      {change(v4, sig+4+130, 200, 0), ErrMalformed, "QE report: 384 bytes, only 200"},
		"auth too long":        {change(v4, sig+4+134+448, 0xff, 0xff), ErrMalformed, "QE authentication data: 65535 bytes"},
		"inner type":           {change(v4, sig+4+134+450+19, 1), ErrUnsupported, "PCK certification data of type 1"},
		"chain too short":      {change(v4, sig+4+134+450+19+2, 1), ErrMalformed, "bytes too many"},
		"trailing byte":        {append(bytes.Clone(v4), 1), ErrMalformed, "not all zero"},
		"trailing after zeros": {append(bytes.Clone(v4), 0, 0, 'x'), ErrMalformed, "not all zero"},
	} {
		if _, err := Parse(c.raw); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, want %v with %q", name, err, c.want, c.text)
		}
	}
}

func vectors(t testing.TB) string {
	dir := os.Getenv("CONCORDAT_VECTORS")
	if dir == "" {
		t.Skip("CONCORDAT_VECTORS is not set: real quotes were not read")
	}
	return filepath.Join(dir, "tdx")
}

func read(t testing.TB, name string) []byte {
	b, err := os.ReadFile(filepath.Join(vectors(t), name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRealQuotes(t *testing.T) {
	for name, c := range map[string]struct {
		version uint16
		body    BodyType
		pad     int
	}{
		"tdx_quote":       {V4, TDX10, 70},
		"tdx_quote_5.dat": {V5, TDX15, 0},
	} {
		raw := read(t, name)
		q, err := Parse(raw)
		if err != nil {
			t.Fatal(name, err)
		}
		if q.Version != c.version || q.BodyType != c.body || q.Vendor != VendorIntel || q.Body.TDAttributes != SeptVEDisable {
			t.Errorf("%s: version %d, body %d, vendor %x, attributes %x", name, q.Version, q.BodyType, q.Vendor, q.Body.TDAttributes)
		}
		if got := q.Marshal(); !bytes.Equal(got, raw[:len(raw)-c.pad]) {
			t.Errorf("%s: does not marshal to itself", name)
		}
		p, _ := pem.Decode(q.Chain)
		if p == nil {
			t.Fatal(name, "no PEM")
		}
	}
}

func TestRealCollateral(t *testing.T) {
	c, err := ParseCollateral(read(t, "tdx_quote_collateral.json"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseCollateral(c.Marshal())
	if err != nil || !bytes.Equal(again.Marshal(), c.Marshal()) || !bytes.Equal(again.TCBInfo.Doc, c.TCBInfo.Doc) {
		t.Errorf("round trip: %v", err)
	}
	info, err := ParseTCBInfo(c.TCBInfo.Doc)
	if err != nil {
		t.Fatal(err)
	}
	if info.Evaluation != 17 || len(info.Levels) != 2 || len(info.Modules) != 2 || info.Levels[1].Status != OutOfDate ||
		!info.IssueDate.Equal(time.Date(2025, 6, 19, 10, 16, 3, 0, time.UTC)) {
		t.Errorf("TCB info %+v", info)
	}
	id, err := ParseQEIdentity(c.QEIdentity.Doc)
	if err != nil || id.ISVProdID != 2 || id.Levels[0].TCB.ISVSVN != 4 {
		t.Errorf("QE identity %+v, %v", id, err)
	}
	// The PCS's own answer is the other spelling of the same document.
	whole := `{"tcb_info": "{\"tcbInfo\": ` + strings.ReplaceAll(string(c.TCBInfo.Doc), `"`, `\"`) + ` ,\"signature\":\"` + hex.EncodeToString(c.TCBInfo.Signature[:]) + `\"}"}`
	w, err := ParseCollateral([]byte(whole))
	if err != nil || !bytes.Equal(w.TCBInfo.Doc, c.TCBInfo.Doc) || w.TCBInfo.Signature != c.TCBInfo.Signature || w.QEIdentity != nil || w.RootCRL != nil {
		t.Errorf("whole answer: %v", err)
	}
}

func TestCollateralRefuses(t *testing.T) {
	for name, c := range map[string]struct{ json, want string }{
		"too large":       {strings.Repeat(" ", MaxCollateral+1), "limit"},
		"no JSON":         {"x", "invalid character"},
		"short signature": {`{"tcb_info":"{}","tcb_info_signature":"00"}`, "want 128 hex digits"},
		"no signature":    {`{"tcb_info":"{\"tcbInfo\":{}}"}`, "signature"},
		"nothing inside":  {`{"qe_identity":"{}"}`, `no "enclaveIdentity" in it`},
		"list":            {`{"root_ca_crl":"zz"}`, "neither PEM nor hex"},
		"PEM list":        {`{"pck_crl":"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"}`, "X509 CRL"},
	} {
		if _, err := ParseCollateral([]byte(c.json)); !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

const goodInfo = `{"id":"TDX","version":3,"issueDate":"2025-06-19T10:16:03Z","nextUpdate":"2025-07-19T10:16:03Z","fmspc":"B0C06F000000","pceId":"0000","tcbType":0,"tcbEvaluationDataNumber":17,` +
	`"tdxModule":{"mrsigner":"` + zeros48 + `","attributes":"0000000000000000","attributesMask":"FFFFFFFFFFFFFFFF"},` +
	`"tcbLevels":[{"tcb":{"sgxtcbcomponents":[` + comps + `],"pcesvn":11,"tdxtcbcomponents":[` + comps + `]},"tcbDate":"2024-03-13T00:00:00Z","tcbStatus":"UpToDate"}]}`

const zeros48 = "000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
const comps = `{"svn":1},{"svn":1},{"svn":1},{"svn":1},{"svn":1},{"svn":1},{"svn":1},{"svn":1},{"svn":1},{"svn":1},{"svn":1},{"svn":1},{"svn":1},{"svn":1},{"svn":1},{"svn":1}`

func TestTCBInfoRefuses(t *testing.T) {
	if _, err := ParseTCBInfo([]byte(goodInfo)); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		old, new string
		want     error
	}{
		"SGX":              {`"id":"TDX"`, `"id":"SGX"`, ErrUnsupported},
		"version":          {`"version":3`, `"version":4`, ErrUnsupported},
		"type":             {`"tcbType":0`, `"tcbType":1`, ErrUnsupported},
		"15 components":    {`"sgxtcbcomponents":[{"svn":1},`, `"sgxtcbcomponents":[`, ErrMalformed},
		"17 components":    {`"tdxtcbcomponents":[`, `"tdxtcbcomponents":[{"svn":1},`, ErrMalformed},
		"status":           {`"tcbStatus":"UpToDate"`, `"tcbStatus":"Fine"`, ErrMalformed},
		"FMSPC":            {`"B0C06F000000"`, `"B0C06F0000"`, ErrMalformed},
		"component 256":    {`{"svn":1}`, `{"svn":256}`, ErrMalformed},
		"short mrsigner":   {zeros48, zeros48[2:], ErrMalformed},
		"negative number":  {`"tcbEvaluationDataNumber":17`, `"tcbEvaluationDataNumber":-1`, ErrMalformed},
		"no date":          {`"2025-06-19T10:16:03Z"`, `"yesterday"`, ErrMalformed},
		"another document": {goodInfo, `[]`, ErrMalformed},
	} {
		bad := strings.Replace(goodInfo, c.old, c.new, 1)
		if bad == goodInfo {
			t.Fatal(name, "changes nothing")
		}
		if _, err := ParseTCBInfo([]byte(bad)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestSGXExtension(t *testing.T) {
	x := &SGXExtension{PPID: [16]byte{1}, PCESVN: 300, CPUSVN: [16]byte{2}, PCEID: [2]byte{3}, FMSPC: [6]byte{4, 5}, Type: 1, InstanceID: [16]byte{6}, CachedKeys: true}
	for i := range x.Components {
		x.Components[i] = uint8(i * 16)
	}
	der := x.Marshal()
	back, err := ParseSGXExtension(der)
	if err != nil || *back != *x {
		t.Fatalf("%+v, %v", back, err)
	}
	for n := range der {
		if _, err := ParseSGXExtension(der[:n]); !errors.Is(err, ErrMalformed) {
			t.Fatalf("cut to %d: %v", n, err)
		}
	}
	if _, err := ParseSGXExtension(append(bytes.Clone(der), 0)); !errors.Is(err, ErrMalformed) {
		t.Errorf("trailing byte: %v", err)
	}
	if _, err := ParseSGXExtension(make([]byte, maxSGX+1)); !errors.Is(err, ErrMalformed) {
		t.Errorf("too large: %v", err)
	}
	twice := bytes.Replace(der, []byte{0xf8, 0x4d, 1, 13, 1, 4}, []byte{0xf8, 0x4d, 1, 13, 1, 3}, 1)
	if _, err := ParseSGXExtension(twice); err == nil || !strings.Contains(err.Error(), "is there twice") {
		t.Errorf("two PCEIDs: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, q := range samples {
		f.Add(q.Marshal())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := Parse(b)
		if err != nil {
			return
		}
		again := q.Marshal()
		if !bytes.HasPrefix(b, again) || len(bytes.TrimLeft(b[len(again):], "\x00")) != 0 {
			t.Error("does not marshal to itself")
		}
	})
}

func FuzzParseCollateral(f *testing.F) {
	f.Add([]byte(`{"tcb_info":"{}","tcb_info_signature":"` + strings.Repeat("00", 64) + `","root_ca_crl":"00"}`))
	f.Add([]byte(`{"qe_identity":"{\"enclaveIdentity\":{},\"signature\":\"` + strings.Repeat("00", 64) + `\"}"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseCollateral(b)
		if err != nil {
			return
		}
		if _, err := ParseCollateral(c.Marshal()); err != nil && len(b) < MaxCollateral/8 {
			t.Error(err)
		}
	})
}

func FuzzParseTCBInfo(f *testing.F) {
	f.Add([]byte(goodInfo))
	f.Fuzz(func(t *testing.T, b []byte) {
		if info, err := ParseTCBInfo(b); err == nil {
			for _, l := range info.Levels {
				if len(l.TCB.SGX) != 16 || len(l.TCB.TDX) != 16 {
					t.Error("components")
				}
			}
		}
		_, _ = ParseQEIdentity(b)
	})
}

func FuzzParseSGXExtension(f *testing.F) {
	f.Add((&SGXExtension{}).Marshal())
	f.Fuzz(func(t *testing.T, b []byte) {
		if x, err := ParseSGXExtension(b); err == nil {
			if y, err := ParseSGXExtension(x.Marshal()); err != nil || *x != *y {
				t.Errorf("round trip: %v", err)
			}
		}
	})
}

func BenchmarkParse(b *testing.B) {
	raw := samples["v4"].Marshal()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(raw); err != nil {
			b.Fatal(err)
		}
	}
}
