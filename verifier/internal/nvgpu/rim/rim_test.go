package rim

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/concordat/concordat/attestation/nvgpu"
	"github.com/concordat/concordat/verifier/internal/nvgpu/rim/xmldsig"
)

func attrs(pairs ...string) (out []xmldsig.Attr) {
	for i := 0; i < len(pairs); i += 2 {
		a := xmldsig.Attr{Local: pairs[i], Value: pairs[i+1]}
		if strings.HasPrefix(a.Local, "Hash") {
			a.Space = spaceHash
		}
		out = append(out, a)
	}
	return out
}

func swid(local string, a []xmldsig.Attr, children ...*xmldsig.Element) *xmldsig.Element {
	return &xmldsig.Element{Space: spaceSWID, Local: local, Attrs: a, Children: children}
}

func measured(i int, values ...byte) *xmldsig.Element {
	a := []string{"type", "Measurement", "index", fmt.Sprint(i), "active", "True", "size", "48", "alternatives", fmt.Sprint(len(values))}
	for k, v := range values {
		a = append(a, fmt.Sprintf("Hash%d", k), strings.Repeat(fmt.Sprintf("%02x", v), nvgpu.MeasurementSize))
	}
	return swid("Resource", attrs(a...))
}

// sample is a manifest with measurements 0 (1 or 2), 2 (3), 35 (4), and 1, which
// does not count.
func sample() *xmldsig.Element {
	off := measured(1, 9)
	off.Attrs[2].Value = "False"
	return swid("SoftwareIdentity", nil, swid("Entity", nil),
		swid("Meta", attrs("product", "GH100", "edition", "GPU", "colloquialVersion", "1.2")),
		swid("Payload", nil, measured(0, 1, 2), off, measured(2, 3), measured(35, 4)))
}

func TestRead(t *testing.T) {
	t.Parallel()
	m, err := read(sample())
	if err != nil || m.Product != "GH100" || m.Edition != "GPU" || m.Version != "1.2" || len(m.Measurements) != 3 || len(m.Measurements[0].Values) != 2 {
		t.Fatalf("%+v, %v", m, err)
	}
	set := func(path int, name, value string) func(*xmldsig.Element) {
		return func(e *xmldsig.Element) {
			r := e.Children[2].Children[path]
			for i := range r.Attrs {
				if r.Attrs[i].Local == name {
					r.Attrs[i].Value = value
				}
			}
		}
	}
	for name, change := range map[string]func(*xmldsig.Element){
		"another root":           func(e *xmldsig.Element) { e.Local = "Evidence" },
		"a root of no SWID":      func(e *xmldsig.Element) { e.Space = "urn:x" },
		"no Meta":                func(e *xmldsig.Element) { e.Children = append(e.Children[:1:1], e.Children[2]) },
		"two Metas":              func(e *xmldsig.Element) { e.Children = append(e.Children, e.Children[1]) },
		"two payloads":           func(e *xmldsig.Element) { e.Children = append(e.Children, e.Children[2]) },
		"a foreign payload":      func(e *xmldsig.Element) { e.Children[2].Space = "urn:x" },
		"no payload":             func(e *xmldsig.Element) { e.Children = e.Children[:2] },
		"a payload of files":     func(e *xmldsig.Element) { e.Children[2].Children[0].Local = "File" },
		"no version":             func(e *xmldsig.Element) { e.Children[1].Attrs = e.Children[1].Attrs[:2] },
		"nothing counts":         func(e *xmldsig.Element) { e.Children[2].Children = e.Children[2].Children[1:2] },
		"an index twice":         set(2, "index", "0"),
		"an index that is off":   set(2, "index", "1"),
		"a high index":           set(2, "index", "255"),
		"another spelling":       set(2, "index", "02"),
		"active yes":             set(2, "active", "yes"),
		"another type":           set(2, "type", "Other"),
		"another size":           set(2, "size", "32"),
		"fewer alternatives":     set(0, "alternatives", "1"),
		"more alternatives":      set(0, "alternatives", "3"),
		"no alternative":         set(0, "alternatives", "0"),
		"many alternatives":      set(0, "alternatives", "1000000000"),
		"a short value":          set(2, "Hash0", "00"),
		"a value that is no hex": set(2, "Hash0", strings.Repeat("z", 96)),
		"values of no namespace": func(e *xmldsig.Element) { r := e.Children[2].Children[2]; r.Attrs[len(r.Attrs)-1].Space = "" },
	} {
		e := sample()
		change(e)
		if m, err := read(e); err == nil {
			t.Errorf("%s: %+v", name, m)
		}
	}
}

// report has blocks 1 to 36: block n holds values[n], else 0.
func report(decoder byte, values map[int]byte) *nvgpu.Report {
	r := &nvgpu.Report{Opaque: []nvgpu.Field{{Type: nvgpu.FieldNVDEC0, Data: []byte{decoder}}}}
	for n := 1; n <= 36; n++ {
		b := nvgpu.Block{Index: byte(n)}
		for i := range b.Value {
			b.Value[i] = values[n]
		}
		r.Blocks = append(r.Blocks, b)
	}
	return r
}

func TestMatch(t *testing.T) {
	t.Parallel()
	m, err := read(sample())
	if err != nil {
		t.Fatal(err)
	}
	one := func(i int, v byte) *Manifest {
		return &Manifest{Measurements: map[int]Measurement{i: {Values: [][48]byte{[48]byte(report(0, map[int]byte{1: v}).Blocks[0].Value)}}}}
	}
	for name, c := range map[string]struct {
		report *nvgpu.Report
		with   []*Manifest
		n      int
		say    string
	}{
		"first value":             {report(nvgpu.NVDEC0On, map[int]byte{1: 1, 3: 3, 36: 4}), []*Manifest{m}, 3, ""},
		"second value":            {report(nvgpu.NVDEC0On, map[int]byte{1: 2, 3: 3, 36: 4}), []*Manifest{m}, 3, ""},
		"what does not count":     {report(nvgpu.NVDEC0On, map[int]byte{1: 2, 2: 77, 3: 3, 36: 4}), []*Manifest{m}, 3, ""},
		"two manifests":           {report(nvgpu.NVDEC0On, map[int]byte{1: 2, 3: 3, 5: 5, 36: 4}), []*Manifest{m, one(4, 5)}, 4, ""},
		"decoder off":             {report(nvgpu.NVDEC0Off, map[int]byte{1: 1, 3: 3}), []*Manifest{m}, 2, ""},
		"decoder on, not running": {report(nvgpu.NVDEC0On, map[int]byte{1: 1, 3: 3}), []*Manifest{m}, 0, "1 of 3 measurements are not in the manifests: 35"},
		"another value":           {report(nvgpu.NVDEC0Off, map[int]byte{1: 1, 3: 4}), []*Manifest{m}, 0, "2 () is 0404040404040404"},
		"in both":                 {report(nvgpu.NVDEC0Off, map[int]byte{1: 1, 3: 3}), []*Manifest{m, one(2, 3)}, 0, "measurement 2 is in both"},
		"not in the report":       {report(nvgpu.NVDEC0Off, map[int]byte{1: 1, 3: 3}), []*Manifest{m, one(60, 0)}, 0, "60 () is missing"},
		"nothing to compare":      {report(nvgpu.NVDEC0Off, nil), []*Manifest{one(35, 0)}, 0, "nothing to compare"},
		"no manifest":             {report(nvgpu.NVDEC0Off, nil), nil, 0, "nothing to compare"},
	} {
		n, err := Match(c.report, c.with...)
		if n != c.n || (err == nil) != (c.say == "") || err != nil && !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s: %d, %v", name, n, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`<SoftwareIdentity/>`))
	if dir := os.Getenv("CONCORDAT_VECTORS"); dir != "" {
		if doc, err := os.ReadFile(filepath.Join(dir, "nvidia", "1010_0200_882_96005E0001_PROD.swidtag")); err == nil {
			f.Add(doc)
		}
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		m, err := Parse(doc)
		if err != nil {
			if !errors.Is(err, ErrFormat) && !errors.Is(err, xmldsig.ErrFormat) && !errors.Is(err, xmldsig.ErrSignature) {
				t.Errorf("untyped error %v", err)
			}
			return
		}
		if len(m.Chain) == 0 || len(m.Measurements) == 0 {
			t.Error("a manifest of nobody or of nothing")
		}
	})
}
