package object

import (
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// appendJSONString spells s as Python's json.dumps does by default: printable
// ASCII as it is, everything else escaped, UTF-16 surrogates for what lies
// beyond the first plane. s is valid UTF-8.
func appendJSONString(b []byte, s string) []byte {
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r >= ' ' && r <= '~':
			b = append(b, byte(r))
		case r == '\n':
			b = append(b, `\n`...)
		case r == '\r':
			b = append(b, `\r`...)
		case r == '\t':
			b = append(b, `\t`...)
		case r == '\f':
			b = append(b, `\f`...)
		case r == '\b':
			b = append(b, `\b`...)
		case r > 0xffff:
			hi, lo := utf16.EncodeRune(r)
			b = fmt.Appendf(b, `\u%04x\u%04x`, hi, lo)
		default:
			b = fmt.Appendf(b, `\u%04x`, r)
		}
	}
	return append(b, '"')
}

func appendJSONInts(b []byte, list []int) []byte {
	b = append(b, '[')
	for i, v := range list {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = strconv.AppendInt(b, int64(v), 10)
	}
	return append(b, ']')
}

// scanner reads that one spelling of JSON and no other. Its first failure
// sticks.
type scanner struct {
	b      []byte
	failed bool
}

func (s *scanner) fail() { s.failed, s.b = true, nil }

// try consumes lit if it comes next.
func (s *scanner) try(lit string) bool {
	if s.failed || len(s.b) < len(lit) || string(s.b[:len(lit)]) != lit {
		return false
	}
	s.b = s.b[len(lit):]
	return true
}

func (s *scanner) expect(lit string) {
	if !s.try(lit) {
		s.fail()
	}
}

// str reads a string. It takes any valid escape: the caller compares the
// spelling by encoding again.
func (s *scanner) str() string {
	s.expect(`"`)
	var out []byte
	for !s.failed {
		if len(s.b) == 0 {
			s.fail()
			break
		}
		c := s.b[0]
		s.b = s.b[1:]
		switch {
		case c == '"':
			return string(out)
		case c < ' ' || c > '~':
			s.fail()
		case c == '\\':
			out = s.escape(out)
		default:
			out = append(out, c)
		}
	}
	return ""
}

func (s *scanner) escape(out []byte) []byte {
	if len(s.b) == 0 {
		s.fail()
		return out
	}
	c := s.b[0]
	s.b = s.b[1:]
	switch c {
	case '"', '\\':
		return append(out, c)
	case 'n':
		return append(out, '\n')
	case 'r':
		return append(out, '\r')
	case 't':
		return append(out, '\t')
	case 'f':
		return append(out, '\f')
	case 'b':
		return append(out, '\b')
	case 'u':
		r := s.hex4()
		if utf16.IsSurrogate(r) {
			s.expect(`\u`)
			r = utf16.DecodeRune(r, s.hex4())
			if r == utf8.RuneError { // a surrogate alone is no text
				s.fail()
			}
		}
		return utf8.AppendRune(out, r)
	}
	s.fail()
	return out
}

func (s *scanner) hex4() rune {
	if len(s.b) < 4 {
		s.fail()
		return 0
	}
	v, err := strconv.ParseUint(string(s.b[:4]), 16, 16)
	if err != nil {
		s.fail()
		return 0
	}
	s.b = s.b[4:]
	return rune(v)
}

// ints reads a list of non-negative integers, at most limit of them.
func (s *scanner) ints(limit int) []int {
	s.expect("[")
	list := []int{}
	if s.try("]") {
		return list
	}
	for !s.failed {
		n := 0
		for n < len(s.b) && s.b[n] >= '0' && s.b[n] <= '9' {
			n++
		}
		v, err := strconv.ParseInt(string(s.b[:min(n, 20)]), 10, 0)
		if err != nil || len(list) == limit {
			s.fail()
			break
		}
		s.b = s.b[n:]
		list = append(list, int(v))
		if s.try("]") {
			break
		}
		s.expect(", ")
	}
	return list
}
