package concordat_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// shape is a CBOR structure: of a Go type by its tags, or of a rule by its text.
type shape struct {
	where  string
	array  bool
	fields []field
}

type field struct {
	key      string // of a map; "" in an array
	name     string // in kebab-case
	optional bool
	typ      string // as written
}

// private are types that no other party ever sees, as of a node's own files, and the
// frames around COSE that its RFC describes.
var private = []string{"node/journal.", "node.mark", "internal/flower/control.", "verifier/receipt.Acked", "internal/cose.sign1", "internal/cose.ownProofs", "internal/cose.foreign", "link/endorse.cached", "ci/hostile."}

// TestCDDL compares the rules of docs/protocol.md with the types of the code: every
// type with CBOR tags has a rule, every rule that names a type has its fields, in
// its order, under its names.
func TestCDDL(t *testing.T) {
	t.Parallel()
	types, rules := goShapes(t), cddlShapes(t)
	for name, want := range types {
		if slices.ContainsFunc(private, func(p string) bool { return strings.HasPrefix(name, p) }) {
			continue
		}
		got, ok := rules[name]
		if !ok {
			t.Errorf("%s: %s has no rule in docs/protocol.md", want.where, name)
			continue
		}
		if got.array != want.array {
			t.Errorf("%s: %s is an array in one place and a map in the other", got.where, name)
		}
		if len(got.fields) != len(want.fields) {
			t.Errorf("%s: %s has %d fields, the type has %d", got.where, name, len(got.fields), len(want.fields))
			continue
		}
		for i, w := range want.fields {
			g := got.fields[i]
			if g.key != w.key || g.name != w.name || g.optional != w.optional {
				t.Errorf("%s: %s: field %d is %q %q, the type has %q %q", got.where, name, i+1, g.key, g.name, w.key, w.name)
			}
			if !agree(w.typ, g.typ) {
				t.Errorf("%s: %s: %s is %q, the type has %s", got.where, name, g.name, g.typ, w.typ)
			}
		}
	}
	for name, rule := range rules {
		if _, ok := types[name]; !ok {
			t.Errorf("%s: there is no type %s with CBOR tags", rule.where, name)
		}
	}
	if len(rules) < 40 {
		t.Errorf("found %d rules: the protocol has more", len(rules))
	}
}

// agree reports whether a Go type may be written as the CDDL: where it is clear.
func agree(goType, cddl string) bool {
	starts := func(prefixes ...string) bool {
		return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(cddl, p) })
	}
	switch goType {
	case "uint64", "uint32", "uint8", "Seconds", "int64", "Section", "Code":
		return starts("uint") || regexp.MustCompile(`^-?[0-9]`).MatchString(cddl)
	case "bool":
		return starts("bool")
	case "string", "Kind", "MemberID", "Exposure", "DenialKind":
		return starts("tstr", `"`, "endorsement-type")
	case "Digest", "object.ID":
		return starts("digest")
	case "[]byte", "Hex":
		return starts("bytes", "id", "digest")
	case "cose.Key", "Key":
		return starts("key")
	}
	if strings.HasPrefix(goType, "[]") {
		return starts("[", "bytes")
	}
	return true
}

// goShapes finds every struct with CBOR tags.
func goShapes(t *testing.T) map[string]*shape {
	t.Helper()
	out := make(map[string]*shape)
	files := token.NewFileSet()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (path == "api" || path == "internal/tools" || path == "bin" || path == "out" || strings.HasPrefix(path, ".git")) {
			return filepath.SkipDir
		}
		if filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range f.Decls {
			g, ok := decl.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, spec := range g.Specs {
				ts, ok := spec.(*ast.TypeSpec)
				if !ok {
					continue
				}
				st, ok := ts.Type.(*ast.StructType)
				if !ok {
					continue
				}
				if s := goShape(st); s != nil {
					s.where = files.Position(ts.Pos()).String()
					out[filepath.ToSlash(filepath.Dir(path))+"."+ts.Name.Name] = s
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// goShape returns nil for a struct without CBOR tags.
func goShape(st *ast.StructType) *shape {
	s, tagged := new(shape), false
	for _, f := range st.Fields.List {
		var tag string
		if f.Tag != nil {
			tag = reflect.StructTag(strings.Trim(f.Tag.Value, "`")).Get("cbor")
		}
		options := strings.Split(tag, ",")
		tagged = tagged || tag != ""
		if slices.Contains(options, "toarray") {
			s.array = true
			continue
		}
		for _, n := range f.Names {
			x := field{name: kebab(n.Name), optional: slices.Contains(options, "omitempty"), typ: types.ExprString(f.Type)}
			if slices.Contains(options, "keyasint") {
				x.key = options[0]
			}
			s.fields = append(s.fields, x)
		}
	}
	if !tagged {
		return nil
	}
	return s
}

// kebab writes a Go name as rules do: "MinTCB" is min-tcb, "TH1" is th1, "RTMRs" is
// rtmrs.
func kebab(name string) string {
	var b strings.Builder
	r := []rune(name)
	for i, c := range r {
		word := i+1 < len(r) && unicode.IsLower(r[i+1]) && string(r[i+1:]) != "s" // begins here
		if unicode.IsUpper(c) && i > 0 && (unicode.IsLower(r[i-1]) || word) {
			b.WriteByte('-')
		}
		b.WriteRune(unicode.ToLower(c))
	}
	return b.String()
}

var (
	ruleForm  = regexp.MustCompile(`^[a-z0-9-]+ = ([\[{]) ; go: (\S+)$`)
	mapForm   = regexp.MustCompile(`^  (\? )?(-?\d+): (.*), ; ([a-z0-9-]+)`)
	arrayForm = regexp.MustCompile(`^  ([a-z0-9-]+): (.*),(?: ;.*)?$`)
)

// cddlShapes reads the rules that name a type, and demands that no CDDL block is
// empty.
func cddlShapes(t *testing.T) map[string]*shape {
	t.Helper()
	const path = "docs/protocol.md"
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p := parsePage(path, string(b))
	out := make(map[string]*shape)
	for _, b := range p.blocks {
		if b.lang != "cddl" {
			continue
		}
		if len(strings.TrimSpace(strings.Join(b.lines, ""))) == 0 {
			t.Errorf("%s: empty CDDL block", p.at(b.line))
		}
		var open *shape
		for i, l := range b.lines {
			where := p.at(b.line + i)
			switch m := ruleForm.FindStringSubmatch(l); {
			case m != nil:
				open = &shape{where: where, array: m[1] == "["}
				if out[m[2]] != nil {
					t.Errorf("%s: a second rule for %s", where, m[2])
				}
				out[m[2]] = open
			case open == nil:
			case l == "]" || l == "}":
				open = nil
			default:
				f, ok := parseField(l, open.array)
				if !ok {
					t.Errorf("%s: not of the form \"N: type, ; name\" or \"name: type,\": %s", where, l)
				}
				open.fields = append(open.fields, f)
			}
		}
	}
	return out
}

func parseField(line string, array bool) (field, bool) {
	if array {
		m := arrayForm.FindStringSubmatch(line)
		if m == nil {
			return field{}, false
		}
		return field{name: m[1], typ: m[2]}, true
	}
	m := mapForm.FindStringSubmatch(line)
	if m == nil {
		return field{}, false
	}
	return field{key: m[2], name: m[4], optional: m[1] != "", typ: m[3]}, true
}
