// Package sim is a machine that does not exist: it makes the evidence that an
// AMD, Intel or NVIDIA machine would make, byte for byte in the vendors' formats,
// under vendor keys of its own. The same verifier code judges it, given the
// simulator's roots by a policy that says so; every certificate is marked as
// simulated, and no appraisal takes it for real hardware.
//
// Start with [New], which makes a [Machine], and [Machine.Describe], which says
// what a policy must hold to accept it. A Machine is an attestation.Collector.
// What a broken or hostile machine would do is data: [Config.Faults].
//
// Nothing that is released imports this package.
package sim
