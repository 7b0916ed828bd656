// Package receipt holds what is signed about a run and how it is checked: the
// statements of enclaves and nodes ([Statement], [Sign], [Parse]), the rules that
// a run's steps obey ([StepChain]), the trees over what went in and came out
// ([Tree]), COSE receipts ([IssueReceipt], [VerifyReceipt]) and the bundle that
// carries all of it to an officer ([BundleWriter], [BundleReader]).
//
// Start with [Parse] and [Unverified.Verify] for bytes from outside, and with
// [NewStepChain] for a run: node, enclave and verifier ask the same StepChain, so
// that there is one place where the rules are.
//
// A statement is a COSE_Sign1 of the profile of internal/cose. Its typ names the
// kind, its issuer who speaks, its subject and external data the federation; its
// payload is the deterministic CBOR map
//
//	{1: 1, 2: kind, 3: federation, 4: run, 5: seq, 6: prev, 7: policy, 8: body}
//
// where a digest that is "none" is the byte string of length zero. seq and prev
// place it in the one chain of its (federation, issuer key). The identity of a
// statement is the SHA-256 of its bytes: ES256 with low S, one encoding, so one
// identity.
//
// What it does not do: it finds no keys and judges no evidence (package verifier
// does), it knows no policy (the rules come as plain values), it keeps no files
// and has no clock.
package receipt
