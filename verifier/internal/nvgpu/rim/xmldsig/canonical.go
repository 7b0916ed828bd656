package xmldsig

import (
	"slices"
	"strings"
)

// appendCanonical appends the Canonical XML 1.1 form (W3C, 2008) of e, without
// the subtree omit. As the root of what is canonicalised (top) it declares every
// namespace in scope, ancestors' too; below, only those that its parent does not
// already give the same meaning (2.3). Attributes come after declarations,
// sorted by namespace and local name. No text needs a reference: the parser lets
// none through that would.
func (e *Element) appendCanonical(b []byte, omit *Element, top bool) []byte {
	b = append(b, '<')
	b = appendName(b, e.prefix, e.Local)
	for _, d := range e.declarations(top) {
		b = append(b, " xmlns"...)
		if d.prefix != "" {
			b = append(append(b, ':'), d.prefix...)
		}
		b = append(append(append(b, `="`...), d.space...), '"')
	}
	attrs := slices.Clone(e.Attrs)
	slices.SortFunc(attrs, func(a, b Attr) int {
		if c := strings.Compare(a.Space, b.Space); c != 0 {
			return c
		}
		return strings.Compare(a.Local, b.Local)
	})
	for _, a := range attrs {
		b = appendName(append(b, ' '), a.prefix, a.Local)
		b = append(append(append(b, `="`...), a.Value...), '"')
	}
	b = append(b, '>')
	for _, n := range e.nodes {
		switch {
		case n.child == nil:
			b = append(b, n.text...)
		case n.child != omit:
			b = n.child.appendCanonical(b, omit, false)
		}
	}
	b = appendName(append(b, "</"...), e.prefix, e.Local)
	return append(b, '>')
}

func appendName(b []byte, prefix, local string) []byte {
	if prefix != "" {
		b = append(append(b, prefix...), ':')
	}
	return append(b, local...)
}

// declarations returns the namespaces that e declares in canonical form, sorted
// by prefix.
func (e *Element) declarations(top bool) []binding {
	var out []binding
	for at := e; at != nil; at = at.parent {
		for _, d := range at.scope {
			if slices.ContainsFunc(out, func(o binding) bool { return o.prefix == d.prefix }) {
				continue // hidden by a nearer one
			}
			if !top && e.parent != nil {
				if space, ok := e.parent.resolve(d.prefix); ok && space == d.space {
					continue
				}
			}
			out = append(out, d)
		}
		if !top {
			break
		}
	}
	slices.SortFunc(out, func(a, b binding) int { return strings.Compare(a.prefix, b.prefix) })
	return out
}
