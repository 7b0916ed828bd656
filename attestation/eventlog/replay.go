package eventlog

import (
	"bytes"
	"fmt"
)

// Replay returns the value that register index has after the events of l, in the
// bank of a: H(… H(H(start || digest 1) || digest 2) …), where the start is zeros
// (TPM 2.0 Part 1, "Extend of a PCR"; Intel TDX Module ABI, TDG.MR.RTMR.EXTEND).
// A register that no event extends keeps its start. It is an error if l has no
// digests of a, or a is not replayed.
//
// PCR 0 starts with the locality that started the TPM, where the log's first
// such event says so (Firmware Profile, 10.4.5.3). That is no hole: the result is
// compared with what the TPM signed.
func (l *Log) Replay(a Alg, index uint32) ([]byte, error) {
	i, h := l.position(a), a.new()
	if i < 0 || h == nil {
		return nil, fmt.Errorf("event log: no bank of %s that can be replayed, the log has %v", a, l.Algs)
	}
	v := make([]byte, a.Size())
	if index == 0 {
		v[len(v)-1] = l.locality()
	}
	for _, e := range l.Events {
		if e.Index != index || e.Type == NoAction {
			continue
		}
		h.Reset()
		h.Write(v)
		h.Write(e.Digests[i])
		v = h.Sum(v[:0])
	}
	return v, nil
}

// startupLocality starts the data of the event that tells the first locality.
const startupLocality = "StartupLocality\x00"

func (l *Log) locality() byte {
	for _, e := range l.Events {
		if e.Index != 0 {
			continue
		}
		if e.Type != NoAction {
			return 0
		}
		if d, ok := bytes.CutPrefix(e.Data, []byte(startupLocality)); ok && len(d) == 1 {
			return d[0]
		}
	}
	return 0
}

// Digest returns the digest of e in the bank of a, or nil. The caller must not
// change it.
func (l *Log) Digest(e *Event, a Alg) []byte {
	if i := l.position(a); i >= 0 && i < len(e.Digests) {
		return e.Digests[i]
	}
	return nil
}

// IsDataOf reports whether the data of e is what its digest in the bank of a
// stands for: whether the digest is the hash of the data as a whole. For several
// types it is not, though the log is honest: the digest is then of a file, of a
// variable's value, or of a handed-off table. Such data is only a hint to people.
func (l *Log) IsDataOf(e *Event, a Alg) bool {
	d := l.Digest(e, a)
	return d != nil && bytes.Equal(a.Sum(e.Data), d)
}
