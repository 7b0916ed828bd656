package lanes

// interleaves: the SHA extensions (leaf 7, EBX bit 29), and SSSE3 and SSE4.1 (leaf 1, ECX
// bits 9 and 19) for the shuffles around them (Intel SDM, volume 2, CPUID).
var interleaves = func() bool {
	highest, _, _, _ := cpuid(0, 0)
	if highest < 7 {
		return false
	}
	_, _, features, _ := cpuid(1, 0)
	_, extended, _, _ := cpuid(7, 0)
	return extended&(1<<29) != 0 && features&(1<<9) != 0 && features&(1<<19) != 0
}()
