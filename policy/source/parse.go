package source

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/concordat/concordat/policy"
)

// MaxSize bounds the YAML form, in bytes: more than the canonical form at its
// limit needs.
const MaxSize = 4 << 20

// Problem is one thing that is wrong with a policy file.
type Problem struct {
	Line   int    `json:"line"` // from 1; 0 where no line can be named
	Column int    `json:"column"`
	Field  string `json:"field"` // path such as "members[1].witness_key", with list entries in the file's order; "" for the file
	Text   string `json:"text"`
}

func (p Problem) String() string {
	s := p.Text
	if p.Field != "" {
		s = p.Field + ": " + s
	}
	if p.Line > 0 {
		s = fmt.Sprintf("%d:%d: %s", p.Line, p.Column, s)
	}
	return s
}

// Problems is everything that is wrong with a policy file, in the file's order.
type Problems []Problem

func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, x := range p {
		lines[i] = x.String()
	}
	return strings.Join(lines, "\n")
}

// Parse reads the YAML form and checks the policy. Its error is a [Problems]:
// every mistake in the form if there are some, else everything that
// [policy.Policy.Check] finds.
func Parse(src []byte) (*policy.Policy, error) {
	p := new(policy.Policy)
	r, m, err := read(src, reflect.ValueOf(p).Elem())
	if err != nil {
		return nil, err
	}
	found, ok := p.Check().(policy.Problems)
	if !ok {
		return p, nil
	}
	for _, x := range found {
		at, field := m.find(x.Field)
		r.problems = append(r.problems, Problem{at.line, at.column, field, x.Text})
	}
	return nil, r.err()
}

// ParseMember reads one member, as [RenderMember] writes it. What is missing in
// it is for the check of the whole policy to say.
func ParseMember(src []byte) (policy.Member, error) {
	var list struct{ Members []policy.Member }
	v := reflect.ValueOf(&list).Elem()
	r, _, err := readAs(src, v, []field{{goName: "Members", name: "members"}})
	if err != nil {
		return policy.Member{}, err
	}
	if len(list.Members) != 1 {
		r.problems = append(r.problems, Problem{Field: "members", Text: fmt.Sprintf("has %d entries, want one member", len(list.Members))})
		return policy.Member{}, r.err()
	}
	return list.Members[0], nil
}

// mark is where a value stands in the file, and where its parts do.
type mark struct {
	line, column int
	index        int // of a list's entry, in the file's order
	fields       map[string]*mark
	items        []*mark
}

// find follows a path of policy.Problem as far as the file has it. It returns
// the path with the file's own numbers.
func (m *mark) find(path string) (*mark, string) {
	out, lost := "", false
	for _, seg := range strings.Split(strings.ReplaceAll(path, "[", ".["), ".") {
		var next *mark
		if num, ok := strings.CutPrefix(seg, "["); ok {
			if i, err := strconv.Atoi(strings.TrimSuffix(num, "]")); err == nil && i < len(m.items) && !lost {
				next = m.items[i]
				seg = fmt.Sprintf("[%d]", next.index)
			}
			out += seg
		} else {
			if !lost {
				next = m.fields[seg]
			}
			out += "." + seg
		}
		if lost = next == nil; !lost {
			m = next
		}
	}
	return m, strings.TrimPrefix(out, ".")
}

// reader collects problems while it walks a file.
type reader struct{ problems Problems }

func (r *reader) add(n ast.Node, path, format string, args ...any) {
	at := position(n)
	r.problems = append(r.problems, Problem{at.line, at.column, path, fmt.Sprintf(format, args...)})
}

func (r *reader) err() error {
	if len(r.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(r.problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return r.problems
}

func read(src []byte, v reflect.Value) (*reader, *mark, error) {
	return readAs(src, v, fields[v.Type()])
}

func readAs(src []byte, v reflect.Value, fs []field) (_ *reader, _ *mark, err error) {
	if err := bounded(src); err != nil {
		return nil, nil, Problems{{Text: err.Error()}}
	}
	defer func() { // the parser is not ours: its bugs end here
		if x := recover(); x != nil {
			err = Problems{{Text: fmt.Sprintf("not YAML: %v", x)}}
		}
	}()
	file, err := parser.ParseBytes(src, 0)
	if err != nil {
		p := Problem{Text: err.Error()}
		if y := yaml.Error(nil); errors.As(err, &y) {
			p.Text = "not YAML: " + y.GetMessage()
			if t := y.GetToken(); t != nil && t.Position != nil {
				p.Line, p.Column = t.Position.Line, t.Position.Column
			}
		}
		return nil, nil, Problems{p}
	}
	if len(file.Docs) != 1 || file.Docs[0].Body == nil {
		return nil, nil, Problems{{Text: "want one YAML document"}}
	}
	r := new(reader)
	m := r.fields(file.Docs[0].Body, v, fs, "")
	return r, m, r.err()
}

// bounded refuses what would cost the YAML parser more than its size suggests:
// deep nesting.
func bounded(src []byte) error {
	if len(src) > MaxSize {
		return fmt.Errorf("%d bytes, limit %d", len(src), MaxSize)
	}
	const limit = 64 // arbitrary; the deepest policy needs 12 columns and 2 brackets
	flow := 0
	for n, line := range strings.Split(string(src), "\n") {
		if lead := len(line) - len(strings.TrimLeft(line, " -?:\t")); lead > limit && strings.Trim(line, " -\t\r") != "" {
			return fmt.Errorf("line %d: nested too deep", n+1)
		}
		flow += strings.Count(line, "[") + strings.Count(line, "{")
		flow -= min(flow, strings.Count(line, "]")+strings.Count(line, "}"))
		if flow > limit {
			return fmt.Errorf("line %d: more than %d open brackets", n+1, limit)
		}
	}
	return nil
}

func position(n ast.Node) *mark {
	m := new(mark)
	if n == nil {
		return m
	}
	t := n.GetToken()
	if x, ok := n.(*ast.MappingNode); ok && len(x.Values) > 0 {
		t = x.Values[0].Key.GetToken() // the mapping's own token is its first colon
	} else if x, ok := n.(*ast.MappingValueNode); ok {
		t = x.Key.GetToken()
	}
	if t != nil && t.Position != nil {
		m.line, m.column = t.Position.Line, t.Position.Column
	}
	return m
}

// value reads one field's value.
func (r *reader) value(n ast.Node, v reflect.Value, parent reflect.Value, f *field, path string) *mark {
	if _, ok := n.(*ast.NullNode); ok || n == nil {
		r.add(n, path, "missing")
		return position(n)
	}
	if f.form == formAny {
		if s, ok := scalar(n); ok && s == anyWord {
			if f.flag != "" {
				parent.FieldByName(f.flag).SetBool(true)
			}
			return position(n)
		}
		if s, ok := n.(*ast.SequenceNode); ok && len(s.Values) == 0 && f.flag == "" {
			r.add(n, path, "is empty: write any, or list what is accepted")
			return position(n)
		}
	}
	switch {
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		return r.fields(n, v.Elem(), fields[v.Type().Elem()], path)
	case fields[v.Type()] != nil:
		return r.fields(n, v, fields[v.Type()], path)
	case isList(v.Type()):
		return r.list(n, v, f, path)
	}
	s, ok := scalar(n)
	if !ok {
		r.add(n, path, "is not a single value")
	} else if err := setText(v, f.form, s); err != nil {
		r.add(n, path, "%v", err)
	}
	return position(n)
}

const anyWord = "any"

// isList reports whether t is a list in YAML; Hex is bytes.
func isList(t reflect.Type) bool {
	return t.Kind() == reflect.Slice && t != reflect.TypeFor[policy.Hex]()
}

func (r *reader) list(n ast.Node, v reflect.Value, f *field, path string) *mark {
	m := position(n)
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		want := "a list"
		if f.form == formAny {
			want = "a list, or any"
		}
		r.add(n, path, "want %s", want)
		return m
	}
	v.Set(reflect.MakeSlice(v.Type(), len(seq.Values), len(seq.Values)))
	for i, e := range seq.Values {
		item := r.value(e, v.Index(i), v, &field{name: f.name}, fmt.Sprintf("%s[%d]", path, i))
		item.index = i
		m.items = append(m.items, item)
	}
	sortSet(v, m.items)
	return m
}

// fields reads a mapping into the struct v.
func (r *reader) fields(n ast.Node, v reflect.Value, fs []field, path string) *mark {
	m := position(n)
	m.fields = make(map[string]*mark)
	var entries []*ast.MappingValueNode
	switch x := n.(type) {
	case *ast.MappingNode:
		entries = x.Values
	case *ast.MappingValueNode:
		entries = []*ast.MappingValueNode{x}
	default:
		r.add(n, path, "want fields such as %s", fs[0].name)
		return m
	}
	join := func(name string) string { return strings.TrimPrefix(path+"."+name, ".") }
	for _, e := range entries {
		name := ""
		if k, ok := e.Key.(ast.ScalarNode); ok {
			name, _ = scalar(k)
		}
		i := slices.IndexFunc(fs, func(f field) bool { return f.name == name && name != "" })
		switch {
		case i < 0:
			r.add(e.Key, join(name), "unknown field; known here are %s", names(fs))
		case m.fields[name] != nil:
			r.add(e.Key, join(name), "is given twice")
		default:
			f := &fs[i]
			item := r.value(e.Value, f.of(v), v, f, join(name))
			key := position(e.Key)
			item.line, item.column = key.line, key.column // the field's name is what people look for
			m.fields[name] = item
		}
	}
	for _, f := range fs {
		if !f.form.optional() && m.fields[f.name] == nil {
			r.add(n, join(f.name), "missing")
		}
	}
	return m
}

func names(fs []field) string {
	var out []string
	for _, f := range fs {
		out = append(out, f.name)
	}
	return strings.Join(out, ", ")
}

// scalar returns the text of a plain or quoted value. The text is what stands in
// the file, so that no number or date is read into hex digits.
func scalar(n ast.Node) (string, bool) {
	switch x := n.(type) {
	case *ast.StringNode:
		return x.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	}
	return "", false
}
