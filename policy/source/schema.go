package source

import (
	"encoding/json"
	"fmt"
	"reflect"

	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/policy"
)

// Schema returns the JSON Schema (2020-12) of the YAML form, for editors. It
// knows names and forms; what fields demand of each other only [Parse] knows.
func Schema() []byte {
	s := object(reflect.TypeFor[policy.Policy]())
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["title"] = "Concordat policy"
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		panic(fmt.Sprintf("source: internal error: %v", err)) // strings, numbers and maps always encode
	}
	return append(b, '\n')
}

type schema = map[string]any

func object(t reflect.Type) schema {
	properties, required := schema{}, []string{}
	for _, f := range fields[t] {
		s := f.schema(f.goType(t))
		s["description"] = f.doc
		properties[f.name] = s
		if !f.form.optional() {
			required = append(required, f.name)
		}
	}
	return schema{"type": "object", "properties": properties, "required": required, "additionalProperties": false}
}

// goType returns the type of the field in the struct t; of a pointer, what it
// points to.
func (f *field) goType(t reflect.Type) reflect.Type {
	sf, ok := t.FieldByName(f.goName)
	if !ok {
		panic("source: internal error: " + t.Name() + " has no field " + f.goName)
	}
	if sf.Type.Kind() == reflect.Pointer {
		return sf.Type.Elem()
	}
	return sf.Type
}

func (f *field) schema(t reflect.Type) schema {
	switch {
	case fields[t] != nil:
		return object(t)
	case isList(t):
		item := field{words: f.words}
		list := schema{"type": "array", "items": item.schema(t.Elem()), "uniqueItems": true}
		if f.form == formAny {
			return schema{"anyOf": []schema{{"const": anyWord}, list}}
		}
		return list
	case len(f.words) > 0:
		return schema{"enum": f.words}
	}
	return f.scalarForm(t).schema()
}

// scalarForm describes how a value is written.
type scalarForm struct {
	words    string // for people
	typ      string // of JSON Schema
	pattern  string
	min, max any
}

func (s scalarForm) schema() schema {
	out := schema{"type": s.typ}
	if s.pattern != "" {
		out["pattern"] = s.pattern
	}
	if s.min != nil {
		out["minimum"] = s.min
	}
	if s.max != nil {
		out["maximum"] = s.max
	}
	return out
}

func (f *field) scalarForm(t reflect.Type) scalarForm {
	switch t {
	case reflect.TypeFor[policy.Digest]():
		return scalarForm{words: "64 hex digits", typ: "string", pattern: "^[0-9a-fA-F]{64}$"}
	case reflect.TypeFor[policy.Hex]():
		return scalarForm{words: "hex digits", typ: "string", pattern: "^([0-9a-fA-F]{2})+$"}
	case reflect.TypeFor[cose.Key]():
		return scalarForm{words: "`" + keyPrefix + "` and 64 hex digits", typ: "string", pattern: "^" + keyPrefix + "[0-9a-fA-F]{64}$"}
	case reflect.TypeFor[policy.Seconds]():
		return scalarForm{words: "time: `30d`, `12h`, `10m`, `1d12h`", typ: "string", pattern: "^(?=.)([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?$"}
	}
	switch {
	case f.form == formShare:
		return scalarForm{words: "share of 1, up to three decimals", typ: "number", min: 0.001, max: 1}
	case f.form.mask():
		return scalarForm{words: "`0x` and hex digits", typ: "string", pattern: "^0x[0-9a-fA-F]{1,16}$"}
	}
	switch t.Kind() {
	case reflect.Bool:
		return scalarForm{words: "`true` or `false`", typ: "boolean"}
	case reflect.Uint8:
		return scalarForm{words: "0 to 255", typ: "integer", min: 0, max: 255}
	case reflect.Uint64:
		return scalarForm{words: "whole number", typ: "integer", min: 0}
	}
	return scalarForm{words: "text", typ: "string"}
}
