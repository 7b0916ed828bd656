// Package link is the relay between the parties of federations: it moves their
// sealed payloads, stores their encrypted chunks and their public objects, and
// writes their transparency logs. Nobody needs to trust it with anything but
// availability.
//
// Start with [New] and [Link.Run]. A federation is hosted because its signed
// policy chain lies in the data directory or is named in [Config]; its policy says
// which nodes may attach, who witnesses its log and under which key that log is
// signed ([LogKey]).
//
// Federations share nothing but the process: every call is for one federation, is
// answered only on a connection that a party of it has attached, and reaches only
// rows, files and logs of it.
//
// The link dials nobody. It verifies what keeps parties apart (credentials, the
// ids of chunks, cosignatures) and believes and decides nothing else, but for one
// thing: which chunks nobody needs any more. Those of a run go some time after its
// log had the run's end, signed by an enclave whose evidence passes, and nobody used
// them since ([Config].Retain); those of what never ends, after a longer time
// ([Config].Abandoned).
package link
