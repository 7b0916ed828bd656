package rim

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/concordat/concordat/attestation/nvgpu"
)

// Match compares report with the manifests of its driver and of its VBIOS, or of
// its VBIOS alone where it is a switch's: every measurement of both must be in
// the report with one of its values. It returns how many were compared, and an
// error that names those that differ.
//
// Measurements that no manifest gives are not looked at, as NVIDIA's verifier
// does: they hold what differs from board to board. Measurement 35 does not count
// where the report says that the video decoder is off.
func Match(report *nvgpu.Report, manifests ...*Manifest) (int, error) {
	all := make(map[int]Measurement)
	for _, m := range manifests {
		for i, one := range m.Measurements {
			if _, twice := all[i]; twice {
				return 0, fmt.Errorf("measurement %d is in both manifests", i)
			}
			all[i] = one
		}
	}
	if report.SkipsNVDEC0() {
		delete(all, nvgpu.BlockNVDEC0-1)
	}
	if len(all) == 0 {
		return 0, fmt.Errorf("the manifests give nothing to compare")
	}
	values := make(map[int][nvgpu.MeasurementSize]byte)
	for _, b := range report.Blocks {
		values[int(b.Index)-1] = b.Value
	}
	var wrong []string
	for _, i := range slices.Sorted(maps.Keys(all)) {
		got, ok := values[i]
		switch {
		case !ok:
			wrong = append(wrong, fmt.Sprintf("%d (%.60s) is missing", i, all[i].Name))
		case !slices.Contains(all[i].Values, got):
			wrong = append(wrong, fmt.Sprintf("%d (%.60s) is %x…", i, all[i].Name, got[:8]))
		}
	}
	if len(wrong) > 0 {
		const most = 5 // named; the rest is counted
		text := strings.Join(wrong[:min(len(wrong), most)], ", ")
		if more := len(wrong) - most; more > 0 {
			text += fmt.Sprintf(" and %d more", more)
		}
		return 0, fmt.Errorf("%d of %d measurements are not in the manifests: %s", len(wrong), len(all), text)
	}
	return len(all), nil
}
