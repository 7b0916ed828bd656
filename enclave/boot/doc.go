// Package boot starts an enclave from a command line: all that concordat-enclave and
// concordat-enclave-sim do alike. They differ in their [Program] and in nothing else.
//
// What the host chooses on the command line and in the file of [Config] is where the
// link is and how much is logged. It can choose nothing that matters (protocol F19):
// the signed policy chain decides, and nodes accept no enclave whose policy or
// measurement is another than theirs. The environment is not read.
package boot
