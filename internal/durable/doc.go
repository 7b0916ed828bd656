// Package durable writes files so that a crash at any moment leaves each of
// them complete or invisible, and what a call confirmed is there after the next
// start.
//
// Start with [WriteFile] for a small file that is replaced as a whole, [Temp]
// for one that is written bit by bit and appears when it is complete, and [Log]
// for records that are appended one by one. All of them work on an [FS]: [OS] in programs, the
// scripted faultfs.FS in tests.
//
// The rule behind every function: data is synced before the name that leads to
// it exists, and a directory is synced after its entry changed. After a failed
// sync nothing is assumed about the file: the kernel may have dropped the pages
// (Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC
// 2020), so the write is reported as failed and a [Log] stops for good.
//
// The package keeps no secrets safe: permissions are the caller's argument, and
// nothing is encrypted or wiped.
package durable
