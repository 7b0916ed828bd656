// Package policy is the consortium's policy: what the members agreed on, in
// fixed typed fields, in one canonical encoding, approved by N of them.
//
// Start with [ParseChain], which reads the signed chain that every program takes
// as its policy and checks every approval in it, and [Chain.Head], the version in
// force. A [Policy] by itself says what was proposed; only a [Chain] says what
// was adopted. [Policy.Check] names everything that is wrong with a version,
// [Policy.VerifyCredential] tells whose node is speaking, [Policy.AllowRun] judges
// a run.
//
// A field that is missing means refuse; one that is unknown makes the policy
// invalid; nothing has a default. Times are parameters: this package has no
// clock. It reads no YAML: see policy/source.
//
// What it does not do: it does not know the transparency log, so it cannot say
// which of two valid successors of one version came first. The rule N > M/2 makes
// two such successors share a signer, [Chain] keeps the first that it was given
// and refuses the second, and the log gives the order that all agree on.
package policy
