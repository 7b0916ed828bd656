// Package verifier decides whether an enclave may be trusted, from its evidence
// alone: no network, no clock, no one's help. The same arguments give the same
// answer, byte for byte, on a node, in an auditor's shell and in a browser.
//
// Start with [Appraise]: claims, hardware evidence, the vendors' documents and a
// consortium's policy go in; a [Result] comes out, with one [Check] a line that
// says what was demanded, what was found and what to do. [Result.Passed] turns a
// pass into a [Passed], without which no join can be made. [AppraiseItem] judges
// a single report or quote.
//
// It does not decide whether epoch, denials and checkpoint of the claims are the
// newest, whether an evidence statement is in a log, or whether vendor documents
// are older than ones seen before: that needs memory, which its callers have
// ([Passed.Claims], [Result.Seen]).
//
// Limits that no verifier can lift: attacks on the memory bus and stolen vendor
// keys make false evidence look genuine (a policy can list chips, and demand new
// generations), and nothing binds a GPU to the machine that shows its report.
package verifier
