package rim

import (
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"

	"github.com/concordat/concordat/attestation/nvgpu"
	"github.com/concordat/concordat/verifier/internal/nvgpu/rim/xmldsig"
)

// Names in a SWID tag.
const (
	spaceSWID = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd"
	spaceHash = "http://www.w3.org/2001/04/xmlenc#sha384" // of Hash0, Hash1, …
)

// maxIndex is the highest index of a measurement: a report counts from 1 in one
// byte.
const maxIndex = 254

// ErrFormat is wrapped by errors about a document that is signed and yet no
// manifest.
var ErrFormat = errors.New("rim: not a reference manifest")

// Manifest is what one manifest says.
type Manifest struct {
	// Product is the chip, such as GH100, and Edition what it is in: GPU or SWITCH.
	Product, Edition string
	// Version is that of the driver or the VBIOS, as NVIDIA spells it. A manifest
	// does not say which of the two it is for, nor for which board: the form of the
	// version and the measurements do.
	Version string
	// Measurements are those that count, by index from 0; measurement i is block
	// i+1 of a report.
	Measurements map[int]Measurement
	// Chain are the signer's certificates, the signer's first, not judged.
	Chain []*x509.Certificate
}

// Measurement is one reference measurement.
type Measurement struct {
	Name   string
	Values [][nvgpu.MeasurementSize]byte // any of which is good; not empty
}

// Parse reads a manifest whose signature is good under its own first certificate.
// Errors wrap those of package xmldsig, or [ErrFormat].
func Parse(doc []byte) (*Manifest, error) {
	signed, err := xmldsig.Verify(doc)
	if err != nil {
		return nil, err
	}
	m, err := read(signed.Root)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	m.Chain = signed.Chain
	return m, nil
}

func read(root *xmldsig.Element) (*Manifest, error) {
	if root.Space != spaceSWID || root.Local != "SoftwareIdentity" {
		return nil, fmt.Errorf("the root is %.40q", root.Local)
	}
	meta, err := only(root, "Meta")
	if err != nil {
		return nil, err
	}
	payload, err := only(root, "Payload")
	if err != nil {
		return nil, err
	}
	m := &Manifest{Measurements: make(map[int]Measurement)}
	for name, to := range map[string]*string{"product": &m.Product, "edition": &m.Edition, "colloquialVersion": &m.Version} {
		var ok bool
		if *to, ok = meta.Attr("", name); !ok || *to == "" {
			return nil, fmt.Errorf("element Meta has no %s", name)
		}
	}
	seen := make(map[int]bool)
	for _, e := range payload.Children {
		if e.Space != spaceSWID || e.Local != "Resource" {
			return nil, fmt.Errorf("a %.40q in the payload", e.Local)
		}
		index, active, one, err := resource(e)
		if err != nil {
			return nil, err
		}
		if seen[index] {
			return nil, fmt.Errorf("measurement %d occurs twice", index)
		}
		seen[index] = true
		if active {
			m.Measurements[index] = one
		}
	}
	if len(m.Measurements) == 0 {
		return nil, errors.New("no active measurement")
	}
	return m, nil
}

// only returns the one child of that name; any deeper one is no part of a tag.
func only(root *xmldsig.Element, name string) (*xmldsig.Element, error) {
	var found *xmldsig.Element
	for _, c := range root.Children {
		if c.Local != name {
			continue
		}
		if found != nil || c.Space != spaceSWID {
			return nil, fmt.Errorf("a second or foreign %s", name)
		}
		found = c
	}
	if found == nil {
		return nil, fmt.Errorf("no %s", name)
	}
	return found, nil
}

// resource reads one Resource: its index, whether it counts, and its values.
func resource(e *xmldsig.Element) (index int, active bool, m Measurement, err error) {
	if typ, _ := e.Attr("", "type"); typ != "Measurement" || len(e.Children) > 0 {
		return 0, false, m, fmt.Errorf("a resource of type %.40q", typ)
	}
	if index, err = number(e, "index", 0, maxIndex); err != nil {
		return 0, false, m, err
	}
	switch word, _ := e.Attr("", "active"); word {
	case "True":
	case "False":
		return index, false, m, nil
	default:
		return 0, false, m, fmt.Errorf("measurement %d is active %.20q, want True or False", index, word)
	}
	if _, err := number(e, "size", nvgpu.MeasurementSize, nvgpu.MeasurementSize); err != nil {
		return 0, false, m, fmt.Errorf("measurement %d: %w", index, err)
	}
	n, err := number(e, "alternatives", 1, 64)
	if err != nil {
		return 0, false, m, fmt.Errorf("measurement %d: %w", index, err)
	}
	m.Name, _ = e.Attr("", "name")
	for i := range n {
		text, _ := e.Attr(spaceHash, "Hash"+strconv.Itoa(i))
		b, err := hex.DecodeString(text)
		if err != nil || len(b) != nvgpu.MeasurementSize {
			return 0, false, m, fmt.Errorf("measurement %d: value %d is not %d bytes in hex", index, i, nvgpu.MeasurementSize)
		}
		m.Values = append(m.Values, [nvgpu.MeasurementSize]byte(b))
	}
	if _, more := e.Attr(spaceHash, "Hash"+strconv.Itoa(n)); more {
		return 0, false, m, fmt.Errorf("measurement %d: more than %d values", index, n)
	}
	return index, true, m, nil
}

// number reads a decimal attribute between least and most.
func number(e *xmldsig.Element, name string, least, most int) (int, error) {
	s, _ := e.Attr("", name)
	n, err := strconv.Atoi(s)
	if err != nil || strconv.Itoa(n) != s || n < least || n > most {
		return 0, fmt.Errorf("%s is %.20q, want %d to %d", name, s, least, most)
	}
	return n, nil
}
