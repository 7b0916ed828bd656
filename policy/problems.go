package policy

import (
	"fmt"
	"strings"
)

// Problem is one thing that is wrong with a policy.
type Problem struct {
	Field string // path as in the YAML form, such as "members[1].witness_key"
	Text  string // what is wrong and what is wanted instead
}

func (p Problem) String() string { return p.Field + ": " + p.Text }

// Problems is everything that is wrong with a policy, in the order of its
// fields. It is an error if and only if it is not empty.
type Problems []Problem

func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, x := range p {
		lines[i] = x.String()
	}
	return fmt.Sprintf("policy: invalid: %s", strings.Join(lines, "; "))
}

func (p *Problems) add(field, format string, args ...any) {
	*p = append(*p, Problem{field, fmt.Sprintf(format, args...)})
}

func (p Problems) err() error {
	if len(p) == 0 {
		return nil
	}
	return p
}
