package nvgpu

import (
	"bytes"
	"encoding/hex"
	"fmt"

	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/internal/check"
)

// AppraiseSet judges the GPUs of one machine together: devices are what
// [Appraise] returned for each, nil included. No device may be there twice, or
// one GPU could stand for many, and there are at least as many as the policy
// demands. Call it with no devices too: a policy that demands GPUs is then not
// satisfied, and where none are demanded it records nothing. r is a recorder of
// its own.
func AppraiseSet(devices [][]byte, p *policy.Policy, r *check.Recorder) {
	var least uint64
	if p != nil && p.Platforms.GPU != nil {
		least = max(1, p.Platforms.GPU.MinCount)
	}
	if len(devices) == 0 && least == 0 {
		return
	}
	distinct(devices, r)
	got := fmt.Sprintf("%d GPUs", len(devices))
	r.That(uint64(len(devices)) >= least, "count", fmt.Sprintf("at least %d", least), got, "evidence of every GPU of the machine is needed")
}

func distinct(devices [][]byte, r *check.Recorder) {
	const name = "distinct"
	if len(devices) == 0 {
		return
	}
	for i, d := range devices {
		if d == nil {
			r.Fail(name, "authentic reports of different devices", fmt.Sprintf("report %d is not authentic", i), "")
			return
		}
		for j, e := range devices[:i] {
			if bytes.Equal(d, e) {
				r.Fail(name, "a device each", fmt.Sprintf("reports %d and %d are of device %s", j, i, hex.EncodeToString(d)), "one GPU was counted twice")
				return
			}
		}
	}
	r.Pass(name, "")
}
