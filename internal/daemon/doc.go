// Package daemon is what every long-running program of this project does the
// same way: logging without secrets, signals, and an orderly end.
//
// Start with [Logger], [Signals] and [Run]. Reading a configuration file is in
// config, exporting counters in metrics and dialling a link in dial: packages of
// their own, so that the measured enclave links no YAML, no HTTP server and no
// exporter.
//
// It keeps no global state and decides nothing about security but one thing: the
// names of attributes whose values never reach a log line.
package daemon
