package aggregate

import "golang.org/x/sys/cpu"

var (
	// vectors: AVX2, which every processor has that runs confidential VMs.
	vectors = cpu.X86.HasAVX2
	// wideVectors: AVX-512, which many of them have.
	wideVectors = vectors && cpu.X86.HasAVX512
)
