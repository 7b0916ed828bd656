package source

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	"github.com/concordat/concordat/policy"
)

// Render returns the YAML form of p with a comment on every field. [Parse] reads
// it back to the same policy, if p passes [policy.Policy.Check]; a policy that
// does not may be rendered too, as a draft to fill in.
func Render(p *policy.Policy) []byte {
	r := renderer{said: make(map[reflect.Type]bool)}
	r.comment("", "A Concordat policy. What members sign is its canonical form, not this file: see \"concordat policy sign --help\".")
	v := reflect.ValueOf(p).Elem()
	r.fields(v, fields[v.Type()], "")
	return r.Bytes()
}

// RenderMember returns one member as it stands in a policy, to be pasted there.
func RenderMember(m policy.Member) []byte {
	r := renderer{said: make(map[reflect.Type]bool)}
	r.WriteString("members:\n")
	r.entries(reflect.ValueOf([]policy.Member{m}), "  ")
	return r.Bytes()
}

type renderer struct {
	bytes.Buffer
	said map[reflect.Type]bool // structs of lists whose fields were commented once
}

func (r *renderer) comment(indent, text string) {
	line := indent + "#"
	for word := range strings.FieldsSeq(text) {
		if len(line)+1+len(word) > 100 {
			r.WriteString(line + "\n")
			line = indent + "#"
		}
		line += " " + word
	}
	r.WriteString(line + "\n")
}

func (r *renderer) fields(v reflect.Value, fs []field, indent string) {
	explain := !r.said[v.Type()]
	for _, f := range fs {
		x := f.of(v)
		if f.omits(x) {
			continue
		}
		if indent == "" {
			r.WriteString("\n")
		}
		if explain {
			r.comment(indent, f.comment())
		}
		r.WriteString(indent + f.name + ":")
		r.value(x, v, &f, indent)
	}
	r.said[v.Type()] = true
}

// comment is what stands above the field.
func (f *field) comment() string {
	if len(f.words) > 1 {
		return f.doc + " (" + strings.Join(f.words, ", ") + ")"
	}
	return f.doc
}

// value writes a field's value after its colon.
func (r *renderer) value(x, parent reflect.Value, f *field, indent string) {
	if x.Kind() == reflect.Pointer {
		x = x.Elem()
	}
	switch {
	case fields[x.Type()] != nil:
		r.WriteString("\n")
		r.fields(x, fields[x.Type()], indent+"  ")
	case f.form == formAny && (f.flag != "" && parent.FieldByName(f.flag).Bool() || f.flag == "" && x.Len() == 0):
		r.WriteString(" " + anyWord + "\n")
	case isList(x.Type()) && x.Len() == 0:
		r.WriteString(" []\n")
	case isList(x.Type()):
		r.WriteString("\n")
		r.entries(x, indent+"  ")
	default:
		r.WriteString(" " + scalarText(x, f.form) + "\n")
	}
}

func (r *renderer) entries(list reflect.Value, indent string) {
	for i := range list.Len() {
		x := list.Index(i)
		fs := fields[x.Type()]
		if fs == nil {
			r.WriteString(indent + "- " + scalarText(x, formPlain) + "\n")
			continue
		}
		r.WriteString(indent + "-\n")
		r.fields(x, fs, indent+"  ")
	}
}

func scalarText(v reflect.Value, f form) string {
	s, quoted := text(v, f)
	if !quoted {
		return s
	}
	return quote(s)
}

// quote writes s in double quotes: JSON's escapes are YAML's.
func quote(s string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		panic(fmt.Sprintf("source: internal error: %v", err)) // a string always encodes
	}
	return strings.TrimSuffix(b.String(), "\n")
}
