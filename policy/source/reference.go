package source

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"

	"github.com/concordat/concordat/policy"
)

// Reference returns docs/reference/policy.md.
func Reference() []byte {
	var b bytes.Buffer
	b.WriteString(`# The policy file

<!-- Generated from policy/source/fields.go: run "go test ./policy/source -update". -->

Every field must be there unless it says *may be left out*; an unknown field makes the file invalid. Lists
are sets: their order does not matter. "concordat policy check FILE" names everything that is wrong, with
line and column, and warns of what is legal and wide. An editor that knows JSON Schema can use
[schema.json](../../policy/source/schema.json).

What members sign is not this file but its canonical form: deterministic CBOR, in which lists are sorted,
times are seconds and shares are parts per thousand. Comments and layout are for people and are not signed.

A key has one job: no key may stand in the policy twice, in whatever role.
`)
	section(&b, "The file", "", reflect.TypeFor[policy.Policy]())
	return b.Bytes()
}

func section(b *bytes.Buffer, title, path string, t reflect.Type) {
	fmt.Fprintf(b, "\n## %s\n\n| field | form | meaning |\n| --- | --- | --- |\n", title)
	var below []field
	for _, f := range fields[t] {
		ft := f.goType(t)
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", f.name, f.formWords(ft), strings.ReplaceAll(f.doc, "|", `\|`))
		if elem(ft) != nil {
			below = append(below, f)
		}
	}
	for _, f := range below {
		ft := f.goType(t)
		name := path + f.name
		if isList(ft) {
			name += "[]"
		}
		section(b, "`"+name+"`", name+".", elem(ft))
	}
}

// elem returns the struct that a field holds, one or a list of them, or nil.
func elem(t reflect.Type) reflect.Type {
	if isList(t) {
		t = t.Elem()
	}
	if fields[t] == nil {
		return nil
	}
	return t
}

func (f *field) formWords(t reflect.Type) string {
	var s string
	switch {
	case isList(t) && fields[t.Elem()] != nil:
		s = "list of fields"
	case fields[t] != nil:
		s = "fields"
	case isList(t) && len(f.words) > 0:
		s = "list of `" + strings.Join(f.words, "`, `") + "`"
	case isList(t):
		s = "list: " + (&field{}).scalarForm(t.Elem()).words
	case len(f.words) > 0:
		s = "`" + strings.Join(f.words, "`, `") + "`"
	default:
		s = f.scalarForm(t).words
	}
	if f.form == formAny {
		s += ", or `any`"
	}
	if f.form.optional() {
		s += "; may be left out"
	}
	return s
}
