package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/concordat/concordat/enclave"
)

// plug is the machine's power plug, and when the host pulls it. It is a flag.Value;
// the zero value is never pulled.
type plug struct{ at *enclave.Event }

// events are the kinds of enclave.Event.
var events = []string{"evidence", "joined", "run", "step", "acked", "released", "ended"}

// Set reads "EVENT:SEQ".
func (p *plug) Set(s string) error {
	kind, number, ok := strings.Cut(s, ":")
	seq, err := strconv.ParseUint(number, 10, 64)
	if !ok || err != nil || !slices.Contains(events, kind) {
		return fmt.Errorf("want EVENT:SEQ, with one of %s", strings.Join(events, ", "))
	}
	p.at = &enclave.Event{Kind: kind, Seq: seq}
	return nil
}

// String returns what [plug.Set] reads.
func (p *plug) String() string {
	if p.at == nil {
		return ""
	}
	return fmt.Sprintf("%s:%d", p.at.Kind, p.at.Seq)
}

// observe kills this process, as a power cut would: nothing is flushed or closed.
func (p *plug) observe(e enclave.Event) {
	if p.at != nil && e == *p.at {
		if err := syscall.Kill(syscall.Getpid(), syscall.SIGKILL); err != nil {
			panic("concordat-enclave-sim: cannot kill itself: " + err.Error())
		}
		select {} // the signal comes any moment; nothing more happens here
	}
}
