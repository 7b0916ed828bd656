// Package ci runs a whole federation inside a test: a link, an enclave on a simulated
// machine and nodes of several members, over real TLS on loopback, in seconds and
// without hardware.
//
//	func TestMain(m *testing.M) { ci.Main(m, train, nil) }
//
//	func TestTraining(t *testing.T) {
//		f := ci.StartFederation(t, ci.Members(3))
//		run := f.Run(t, ci.RunOf(initial, 3))
//		...
//	}
//
// What it starts is the production code with one exception: the evidence is
// simulated, under a vendor made for the test, and everything that it touches says so.
// A policy of a real federation accepts none of it.
//
// Package [github.com/concordat/concordat/ci/tamper] mutates signed bytes.
package ci
