// Package eventlog reads the TCG's crypto-agile event log: the list of what
// firmware, boot loader and kernel measured into the PCRs of a TPM, or, as the
// CCEL of a confidential guest, into Intel's RTMRs. Start with [Parse], then
// [Log.Replay].
//
// A log is a story that nobody signed. It is worth something only where
// [Log.Replay] gives the value of a register that a quote vouches for, and then
// only its digests are: neither an event's type nor its data was measured. Data
// may be shown or believed only where [Event.IsDataOf] says that it is what the
// digest stands for.
//
// Source: TCG PC Client Platform Firmware Profile 1.06, part 10 ("Event
// Logging"); the CCEL is the same format (UEFI 2.10, part 38). The older log with
// SHA-1 alone is refused.
package eventlog

// Limits, checked before anything is allocated.
const (
	MaxSize   = 1 << 20   // bytes of a log, padding included
	MaxEvents = 1 << 14   // events of a log; machines write some hundred
	MaxData   = 256 << 10 // bytes of one event's data: the largest are variables of UEFI's key databases
	maxAlgs   = 5         // SHA-1, SHA-256, SHA-384, SHA-512, SM3
)
