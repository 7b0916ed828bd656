package policy

// Check returns nil, or a [Problems] that names everything wrong with p.
func (p *Policy) Check() error {
	var ps Problems
	if p.Schema != Schema {
		ps.add("schema", "is %d, want %d", p.Schema, Schema)
	}
	return ps.err()
}
