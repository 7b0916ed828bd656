// Package collect is the machine that an enclave runs on: it gets evidence from AMD
// SEV-SNP and Intel TDX through Linux's configfs-tsm, and of NVIDIA GPUs through a
// helper program.
//
// Start with [Open]. A [Machine] is what an enclave is given: an
// attestation.Collector with GPUs and the endorsements that lay beside the evidence.
//
// It fetches nothing from anywhere. Endorsements that the machine does not have, such
// as revocation lists, TCB info, OCSP responses, and on most hosts the chip's
// certificate, have to be brought by somebody who has a network: see
// [Machine.AddEndorsements].
//
// It judges no CPU evidence either, that is for those who need not trust this machine.
// It only checks that a report answers the question that was asked. GPUs are judged
// here too, before they may work: see [Machine.CollectGPU].
//
// The way to the CPU is configfs-tsm (Linux 6.7 and later). For SEV-SNP guests with an
// older kernel there is a build with the tag sevioctl: where configfs-tsm or the driver
// behind it is missing, and only there, it asks the ioctl of /dev/sev-guest. A guest
// under an SVSM is not supported: it is not at VMPL 0, and no policy accepts that.
package collect
