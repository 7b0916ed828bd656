// Package source is the form of a policy that people write: YAML, to and from
// [policy.Policy], with the line and column of everything that is wrong.
//
// Start with [Parse] and [Render]. The YAML form is for editors and reviews only:
// what members sign is the policy's canonical form, and every program but the
// commands on policies takes the signed chain. Every field must be there; an
// unknown one is an error; lists that are sets may be written in any order. Of
// YAML it takes the plain part: no anchors, aliases, tags or multi-line text.
//
// One table, in fields.go, gives every field its name and its meaning. The
// parser, the rendered comments, the JSON Schema in schema.json and the reference
// page in docs/reference/policy.md all come from it.
package source
