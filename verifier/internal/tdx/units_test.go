package tdx

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/tdx"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/internal/check"
)

// certificate makes one for TestTrusted; change may break the template.
func certificate(t *testing.T, name string, parent *x509.Certificate, by, key *ecdsa.PrivateKey, ca bool, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: at.Add(-time.Hour), NotAfter: at.Add(time.Hour), BasicConstraintsValid: true, IsCA: ca}
	if ca {
		c.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	}
	if change != nil {
		change(c)
	}
	if parent == nil {
		parent = c
	}
	issuer := *parent
	issuer.PublicKey = by.Public() // Go refuses to forge
	der, err := x509.CreateCertificate(rand.Reader, c, &issuer, key.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	out, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func key(t *testing.T, c elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestTrusted takes a chain apart link by link.
func TestTrusted(t *testing.T) {
	rootKey, caKey, leafKey, other := key(t, elliptic.P256()), key(t, elliptic.P256()), key(t, elliptic.P256()), key(t, elliptic.P256())
	root := certificate(t, nameRoot, nil, rootKey, rootKey, true, nil)
	ca := certificate(t, nameCA, root, rootKey, caKey, true, nil)
	leaf := certificate(t, namePCK, ca, caKey, leafKey, false, nil)
	j := &judge{want: check.Expect{At: at, Roots: []attestation.Digest{check.SPKI(root)}}}
	critical := func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: tdx.OIDSGX, Critical: true, Value: []byte{5, 0}}}
	}
	p384 := key(t, elliptic.P384())
	for name, c := range map[string]struct {
		root, ca, leaf *x509.Certificate
		want           string
	}{
		"good":               {root, ca, leaf, ""},
		"other root":         {certificate(t, nameRoot, nil, other, other, true, nil), ca, leaf, "is not an accepted root"},
		"root not by itself": {certificate(t, nameRoot, root, other, rootKey, true, nil), ca, leaf, `"Intel SGX Root CA": not signed by`},
		"CA not by root":     {root, certificate(t, nameCA, root, other, caKey, true, nil), leaf, `"Intel SGX PCK Platform CA": not signed by`},
		"leaf not by CA":     {root, ca, certificate(t, namePCK, ca, other, leafKey, false, nil), `"Intel SGX PCK Certificate": not signed by`},
		"leaf by root":       {root, ca, certificate(t, namePCK, root, rootKey, leafKey, false, nil), `issued by "Intel SGX Root CA", not by "Intel SGX PCK Platform CA"`},
		"issuer's name":      {root, certificate(t, nameCA, leaf, rootKey, caKey, true, nil), leaf, `issued by "Intel SGX PCK Certificate"`},
		"CA without CA":      {root, certificate(t, nameCA, root, rootKey, caKey, false, nil), leaf, `"Intel SGX PCK Platform CA": CA is false`},
		"leaf with CA":       {root, ca, certificate(t, namePCK, ca, caKey, leafKey, true, nil), `"Intel SGX PCK Certificate": CA is true`},
		"leaf's name":        {root, ca, certificate(t, nameSigner, ca, caKey, leafKey, false, nil), `want "Intel SGX PCK Certificate"`},
		"critical":           {root, ca, certificate(t, namePCK, ca, caKey, leafKey, false, critical), "unknown critical extension"},
		"another curve":      {root, ca, certificate(t, namePCK, ca, caKey, p384, false, nil), "not on P-256"},
		"CA may not sign":    {root, certificate(t, nameCA, root, rootKey, caKey, true, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign }), leaf, "not signed by"},
	} {
		err := j.trusted(named{c.root, nameRoot}, named{c.ca, nameCA}, named{c.leaf, namePCK})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestParsePEM(t *testing.T) {
	k := key(t, elliptic.P256())
	block := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate(t, nameRoot, nil, k, k, true, nil).Raw}))
	for name, c := range map[string]struct {
		pem string
		ok  bool
	}{
		"two":              {block + block, true},
		"two and NUL":      {block + block + "\x00", true},
		"spaces":           {block + "\r\n" + block + "\n", true},
		"one":              {block, false},
		"three":            {block + block + block, false},
		"none":             {"", false},
		"text at the end":  {block + block + "x", false},
		"a key":            {block + "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n", false},
		"no certificate":   {block + "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n", false},
		"two NULs":         {block + block + "\x00\x00", false},
		"nothing but NULs": {"\x00", false},
	} {
		if got, err := (certificates{}).pem([]byte(c.pem), 2); (err == nil) != c.ok || c.ok && len(got) != 2 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestVerify(t *testing.T) {
	for _, c := range []struct {
		curve elliptic.Curve
		want  bool
	}{{elliptic.P256(), true}, {elliptic.P224(), false}} {
		k := key(t, c.curve)
		sum := sha256.Sum256([]byte("message"))
		r, s, err := ecdsa.Sign(rand.Reader, k, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		var sig [64]byte
		r.FillBytes(sig[:32])
		s.FillBytes(sig[32:])
		if got := verify(k.Public(), []byte("message"), sig); got != c.want {
			t.Errorf("%s: %t", c.curve.Params().Name, got)
		}
		if verify(k.Public(), []byte("messagf"), sig) || verify(k.Public(), []byte("message"), [64]byte{}) || verify(nil, []byte("message"), sig) {
			t.Errorf("%s: verifies anything", c.curve.Params().Name)
		}
	}
}

func components(svn ...uint8) []tdx.Component {
	out := make([]tdx.Component, 16)
	for i, s := range svn {
		out[i].SVN = s
	}
	return out
}

func TestPlatformLevel(t *testing.T) {
	info := &tdx.TCBInfo{Levels: make([]tdx.PlatformTCB, 2)}
	for i, s := range []tdx.Status{tdx.UpToDate, tdx.OutOfDate} {
		l := &info.Levels[i]
		l.Status = s
		l.TCB.SGX, l.TCB.TDX, l.TCB.PCESVN = components(5, 5, 5), components(3, 1, 2), 10
		if i == 1 {
			l.TCB.SGX, l.TCB.TDX, l.TCB.PCESVN = components(4), components(2), 9
		}
	}
	comps := func(a, b, c uint8) *tdx.SGXExtension {
		return &tdx.SGXExtension{Components: [16]uint8{a, b, c}, PCESVN: 10}
	}
	old := comps(5, 5, 5)
	old.PCESVN = 9
	older := comps(5, 5, 5)
	older.PCESVN = 8
	for name, c := range map[string]struct {
		p    *tdx.SGXExtension
		svn  [16]byte
		want tdx.Status
	}{
		"exact":                    {comps(5, 5, 5), [16]byte{3, 1, 2}, tdx.UpToDate},
		"above":                    {comps(9, 9, 9), [16]byte{9, 9, 9}, tdx.UpToDate},
		"one SGX component below":  {comps(9, 9, 4), [16]byte{3, 1, 2}, tdx.OutOfDate},
		"SGX below all":            {comps(3, 9, 9), [16]byte{3, 1, 2}, ""},
		"PCESVN below":             {old, [16]byte{3, 1, 2}, tdx.OutOfDate},
		"PCESVN below all":         {older, [16]byte{3, 1, 2}, ""},
		"TDX component 2 below":    {comps(5, 5, 5), [16]byte{3, 1, 1}, tdx.OutOfDate},
		"module judged elsewhere":  {comps(5, 5, 5), [16]byte{0, 1, 2}, tdx.UpToDate},
		"old module judged here":   {comps(5, 5, 5), [16]byte{3, 0, 2}, tdx.OutOfDate},
		"older module judged here": {comps(5, 5, 5), [16]byte{1, 0, 2}, ""},
	} {
		var got tdx.Status
		if l := platformLevel(info, c.p, c.svn); l != nil {
			got = l.Status
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// objections returns the names of the checks that f makes fail.
func objections(j *judge, f func()) string {
	j.r = check.NewRecorder("tdx")
	f()
	names, _ := problems(j.r)
	return strings.Join(names, " ")
}

// TestQEAndModule changes one field of a report at a time.
func TestQEAndModule(t *testing.T) {
	id := &tdx.QEIdentity{MRSigner: make([]byte, 32), ISVProdID: 2, Attributes: append([]byte{0x11}, make([]byte, 15)...),
		AttributesMask: append([]byte{0xfb}, make([]byte, 15)...), MiscSelect: make([]byte, 4), MiscSelectMask: []byte{0xff, 0xff, 0, 0}}
	signer := tdx.ModuleSigner{MRSigner: make([]byte, 48), Attributes: make([]byte, 8), AttributesMask: []byte{0xff, 0, 0, 0, 0, 0, 0, 0xff}}
	other := signer
	other.MRSigner = slices.Repeat([]byte{1}, 48)
	info := &tdx.TCBInfo{Module: signer, Modules: []tdx.Module{{ID: "TDX_01", ModuleSigner: signer}, {ID: "TDX_03", ModuleSigner: other}}}
	for name, c := range map[string]struct {
		change func(*tdx.Quote)
		want   string
	}{
		"good":                        {func(*tdx.Quote) {}, ""},
		"64-bit mode does not count":  {func(q *tdx.Quote) { q.QEReport.Attributes[0] |= 4 }, ""},
		"QE under debug":              {func(q *tdx.Quote) { q.QEReport.Attributes[0] |= 2 }, "qe-report"},
		"QE signer":                   {func(q *tdx.Quote) { q.QEReport.MRSigner[31] = 1 }, "qe-report"},
		"QE product":                  {func(q *tdx.Quote) { q.QEReport.ISVProdID = 1 }, "qe-report"},
		"MISCSELECT":                  {func(q *tdx.Quote) { q.QEReport.MiscSelect = 0x100 }, "qe-report"},
		"MISCSELECT outside the mask": {func(q *tdx.Quote) { q.QEReport.MiscSelect = 0x10000 }, ""},
		"module signer":               {func(q *tdx.Quote) { q.Body.MRSignerSEAM[47] = 1 }, "tdx-module"},
		"module attributes":           {func(q *tdx.Quote) { q.Body.SEAMAttributes[7] = 0x80 }, "tdx-module"},
		"attributes outside the mask": {func(q *tdx.Quote) { q.Body.SEAMAttributes[3] = 1 }, ""},
		"module of major version 0":   {func(q *tdx.Quote) { q.Body.TEETCBSVN[1] = 0 }, ""},
		"version 0, signer":           {func(q *tdx.Quote) { q.Body.TEETCBSVN[1] = 0; q.Body.MRSignerSEAM[0] = 1 }, "tdx-module"},
		"module of another identity":  {func(q *tdx.Quote) { q.Body.TEETCBSVN[1] = 3 }, "tdx-module"},
		"module that nobody knows":    {func(q *tdx.Quote) { q.Body.TEETCBSVN[1] = 2 }, "tdx-module"},
	} {
		q := &tdx.Quote{}
		q.QEReport.ISVProdID, q.QEReport.Attributes[0], q.Body.TEETCBSVN[1] = 2, 0x11, 1
		c.change(q)
		j := &judge{quote: q}
		got := objections(j, func() {
			j.qeReport(id)
			j.module(info, findModule(info, q.Body.TEETCBSVN), q.Body.TEETCBSVN)
		})
		if got != c.want {
			t.Errorf("%s: objections of %q, want %q", name, got, c.want)
		}
	}
}

// TestAttributeBits goes through all 64 bits: two may be set, one must be.
func TestAttributeBits(t *testing.T) {
	for bit := range 64 {
		want := "attributes"
		switch a := tdx.TDAttributes(1) << bit; {
		case a&0xff != 0:
			want = "debug"
		case a == tdx.SeptVEDisable:
			want = "sept-ve-disable"
		case a == tdx.Migratable:
			want = "migratable"
		case a == tdx.PKS || a == tdx.KeyLocker:
			want = ""
		case a == tdx.PerfMon:
			want = "perfmon"
		}
		q := &tdx.Quote{}
		q.Body.TDAttributes = tdx.SeptVEDisable ^ 1<<bit
		j := &judge{quote: q}
		if got := objections(j, j.attributes); got != want {
			t.Errorf("bit %d: objections of %q, want %q", bit, got, want)
		}
	}
}

func TestEvaluation(t *testing.T) {
	for _, c := range []struct {
		tcb, qe uint64
		want    string
	}{{17, 17, ""}, {18, 17, ""}, {16, 17, "evaluation"}, {17, 16, "evaluation"}, {0, 0, "evaluation"}} {
		j := &judge{tdx: &policy.TDX{MinEvaluation: 17}}
		got := objections(j, func() { j.evaluation(&tdx.TCBInfo{Evaluation: c.tcb}, &tdx.QEIdentity{Evaluation: c.qe}) })
		if got != c.want {
			t.Errorf("%d, %d: objections of %q, want %q", c.tcb, c.qe, got, c.want)
		}
	}
}

func TestInstance(t *testing.T) {
	j := &judge{tdx: &policy.TDX{PIIDs: []policy.Hex{make([]byte, 16), slices.Repeat([]byte{1}, 16)}}, sgx: &tdx.SGXExtension{}}
	if got := objections(j, j.instance); got != "platform-instance" {
		t.Errorf("a certificate without an instance id, zeros in the policy: objections of %q", got)
	}
	j.sgx.InstanceID = [16]byte(j.tdx.PIIDs[1])
	if got := objections(j, j.instance); got != "" {
		t.Errorf("the second of the policy: objections of %q", got)
	}
}

// TestLaunchBinding: all 48 bytes of MRCONFIGID count.
func TestLaunchBinding(t *testing.T) {
	zero := [48]byte{}
	bound := zero
	copy(bound[:], federation[:])
	tail := bound
	tail[47] = 1
	none := zero
	none[47] = 1
	for name, c := range map[string]struct {
		config [48]byte
		want   string
		strict string // where the policy demands a binding
	}{
		"bound":    {bound, "", ""},
		"none":     {zero, "", "mrconfigid"},
		"tail":     {tail, "mrconfigid", "mrconfigid"},
		"no zeros": {none, "mrconfigid", "mrconfigid"},
	} {
		j := &judge{quote: &tdx.Quote{}, want: check.Expect{Federation: federation}}
		j.quote.Body.MRConfigID = c.config
		for _, ref := range []*policy.TDX{nil, {}, {MRConfigID: true}} {
			want := c.want
			if ref != nil && ref.MRConfigID {
				want = c.strict
			}
			j.tdx = ref
			if got := objections(j, j.binding); got != want {
				t.Errorf("%s, %+v: objections of %q, want %q", name, ref, got, want)
			}
		}
	}
}

func TestOwner(t *testing.T) {
	ref := &policy.TDX{MRTD: []policy.Hex{make([]byte, 48)}, MRSignerSEAM: make([]byte, 48), AnyPlatform: true}
	for _, change := range []func(*tdx.Body){
		func(b *tdx.Body) { b.MROwner[47] = 1 },
		func(b *tdx.Body) { b.MROwnerConfig[0] = 1 },
	} {
		j := &judge{tdx: ref, quote: &tdx.Quote{BodyType: tdx.TDX10}, sgx: &tdx.SGXExtension{}}
		change(&j.quote.Body)
		if got := objections(j, j.measurements); got != "mrowner" {
			t.Errorf("objections of %q", got)
		}
	}
}

// TestFamily: collateral of another PCEID is of another family.
func TestFamily(t *testing.T) {
	j := &judge{sgx: &tdx.SGXExtension{FMSPC: [6]byte{1}, PCEID: [2]byte{2}}}
	for _, c := range []struct {
		fmspc, pceid []byte
		want         bool
	}{
		{[]byte{1, 0, 0, 0, 0, 0}, []byte{2, 0}, true},
		{[]byte{1, 0, 0, 0, 0, 1}, []byte{2, 0}, false},
		{[]byte{1, 0, 0, 0, 0, 0}, []byte{2, 1}, false},
	} {
		if got := j.family(&documents{tcb: &tdx.TCBInfo{FMSPC: c.fmspc, PCEID: c.pceid}}); got != c.want {
			t.Errorf("%x %x: %t", c.fmspc, c.pceid, got)
		}
	}
}

func TestVendorID(t *testing.T) {
	s := simulated(t)
	s.raw = slices.Clone(s.raw)
	s.raw[12] ^= 1
	if names, _ := problems(s.appraise()); !slices.Equal(names, []string{"qe-vendor", "td-signature"}) {
		t.Errorf("objections of %q", names)
	}
}
