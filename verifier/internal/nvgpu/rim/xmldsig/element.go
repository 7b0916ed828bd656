package xmldsig

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// Limits of a document. NVIDIA's manifests have 20 to 26 kB, some 70 elements of
// at most 15 attributes, four levels deep.
const (
	MaxDocument = 128 << 10
	maxElements = 1024
	maxAttrs    = 80 // a manifest may give many alternatives of one measurement
	maxDepth    = 12
)

// ErrFormat is wrapped by every error about a document that is not XML of the
// accepted subset.
var ErrFormat = errors.New("xmldsig: not acceptable XML")

// Element is an element with its namespace resolved.
type Element struct {
	Space, Local string // namespace name, local name
	Attrs        []Attr // without namespace declarations, in the document's order
	Children     []*Element
	Text         string // all character data directly inside, joined

	prefix string
	parent *Element
	scope  []binding // namespace declarations of this element
	nodes  []node    // children and text in the document's order
}

// Attr is an attribute. Space is the empty string for a name without a prefix.
type Attr struct {
	Space, Local, Value string
	prefix              string
}

type binding struct{ prefix, space string }

// node is a child, or text if child is nil.
type node struct {
	child *Element
	text  string
}

// Attr returns the value of an attribute, and false if there is none.
func (e *Element) Attr(space, local string) (string, bool) {
	for _, a := range e.Attrs {
		if a.Space == space && a.Local == local {
			return a.Value, true
		}
	}
	return "", false
}

// resolve returns the namespace that prefix stands for inside e; the empty
// prefix stands for none where nothing declares it.
func (e *Element) resolve(prefix string) (string, bool) {
	for ; e != nil; e = e.parent {
		for _, b := range e.scope {
			if b.prefix == prefix {
				return b.space, true
			}
		}
	}
	return "", prefix == ""
}

var (
	declaration = regexp.MustCompile(`^<\?xml version="1\.0"( encoding="(UTF|utf)-8")?\?>\n*`)
	nameForm    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`)
)

// screen refuses a document by its bytes, and returns it without an XML
// declaration, which is no part of its canonical form.
func screen(doc []byte) ([]byte, error) {
	if len(doc) > MaxDocument {
		return nil, fmt.Errorf("%w: %d bytes, limit %d", ErrFormat, len(doc), MaxDocument)
	}
	doc = doc[len(declaration.Find(doc)):]
	for i, c := range doc {
		if c != '\n' && (c < ' ' || c > '~') {
			return nil, fmt.Errorf("%w: byte %#02x at %d; only printable ASCII is read", ErrFormat, c, i)
		}
	}
	for _, bad := range []struct{ mark, what string }{
		{"&", "an entity or reference"}, {"<!", "a comment, CDATA or document type"}, {"<?", "a processing instruction"},
	} {
		if i := bytes.Index(doc, []byte(bad.mark)); i >= 0 {
			return nil, fmt.Errorf("%w: %s at %d", ErrFormat, bad.what, i)
		}
	}
	return doc, nil
}

// parse reads one document.
func parse(doc []byte) (*Element, error) {
	doc, err := screen(doc)
	if err != nil {
		return nil, err
	}
	d := xml.NewDecoder(bytes.NewReader(doc))
	var root, at *Element
	elements, depth := 0, 0
	for {
		t, err := d.RawToken()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrFormat, err)
		}
		switch t := t.(type) {
		case xml.StartElement:
			if elements, depth = elements+1, depth+1; elements > maxElements || depth > maxDepth {
				return nil, fmt.Errorf("%w: more than %d elements, or %d levels", ErrFormat, maxElements, maxDepth)
			}
			if at == nil && root != nil {
				return nil, fmt.Errorf("%w: a second root element", ErrFormat)
			}
			e, err := newElement(t, at)
			if err != nil {
				return nil, err
			}
			if at == nil {
				root = e
			} else {
				at.Children, at.nodes = append(at.Children, e), append(at.nodes, node{child: e})
			}
			at = e
		case xml.EndElement:
			if at == nil || t.Name.Space != at.prefix || t.Name.Local != at.Local {
				return nil, fmt.Errorf("%w: an end tag %.40q of nothing open", ErrFormat, t.Name.Local)
			}
			at, depth = at.parent, depth-1
		case xml.CharData:
			if err := at.addText(string(t)); err != nil {
				return nil, err
			}
		default:
			return nil, fmt.Errorf("%w: %T", ErrFormat, t)
		}
	}
	if root == nil || at != nil {
		return nil, fmt.Errorf("%w: the root element does not end", ErrFormat)
	}
	return root, nil
}

// addText adds character data to e; outside of the root element, where e is nil,
// only line ends and spaces may stand.
func (e *Element) addText(s string) error {
	switch {
	case e == nil && strings.Trim(s, " \n") != "":
		return fmt.Errorf("%w: text outside of the root element", ErrFormat)
	case e == nil:
		return nil
	case strings.Contains(s, ">"): // canonical form would write &gt;
		return fmt.Errorf("%w: %q in text", ErrFormat, ">")
	}
	e.Text += s
	e.nodes = append(e.nodes, node{text: s})
	return nil
}

func newElement(t xml.StartElement, parent *Element) (*Element, error) {
	e := &Element{Local: t.Name.Local, prefix: t.Name.Space, parent: parent}
	if len(t.Attr) > maxAttrs {
		return nil, fmt.Errorf("%w: %d attributes, limit %d", ErrFormat, len(t.Attr), maxAttrs)
	}
	for _, a := range t.Attr {
		if strings.ContainsAny(a.Value, "\n\"") { // canonical form would write references
			return nil, fmt.Errorf("%w: a line end or quotation mark in attribute %.40q", ErrFormat, a.Name.Local)
		}
		prefix, declares := a.Name.Local, a.Name.Space == "xmlns"
		if a.Name.Space == "" && a.Name.Local == "xmlns" {
			prefix, declares = "", true
		}
		if !declares {
			e.Attrs = append(e.Attrs, Attr{Local: a.Name.Local, Value: a.Value, prefix: a.Name.Space})
			continue
		}
		if err := e.declare(prefix, a.Value); err != nil {
			return nil, err
		}
	}
	return e, e.resolveNames()
}

func (e *Element) declare(prefix, space string) error {
	if prefix != "" && !nameForm.MatchString(prefix) || prefix == "xml" || prefix == "xmlns" || !strings.Contains(space, ":") {
		return fmt.Errorf("%w: namespace %.80q under prefix %.40q", ErrFormat, space, prefix)
	}
	for _, b := range e.scope {
		if b.prefix == prefix {
			return fmt.Errorf("%w: prefix %.40q is declared twice in one element", ErrFormat, prefix)
		}
	}
	e.scope = append(e.scope, binding{prefix, space})
	return nil
}

// resolveNames finds the namespaces of the element and of its attributes.
func (e *Element) resolveNames() error {
	var ok bool
	if e.Space, ok = e.resolve(e.prefix); !ok || !nameForm.MatchString(e.Local) {
		return fmt.Errorf("%w: element name %.40q with prefix %.40q", ErrFormat, e.Local, e.prefix)
	}
	for i := range e.Attrs {
		a := &e.Attrs[i]
		if a.prefix != "" { // the default namespace is not for attributes
			if a.Space, ok = e.resolve(a.prefix); !ok {
				return fmt.Errorf("%w: attribute %.40q with prefix %.40q, which is not declared", ErrFormat, a.Local, a.prefix)
			}
		}
		if !nameForm.MatchString(a.Local) {
			return fmt.Errorf("%w: attribute name %.40q", ErrFormat, a.Local)
		}
		for _, b := range e.Attrs[:i] {
			if a.Space == b.Space && a.Local == b.Local {
				return fmt.Errorf("%w: attribute %.40q occurs twice", ErrFormat, a.Local)
			}
		}
	}
	return nil
}
