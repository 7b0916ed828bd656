package aggregate

import "golang.org/x/sys/cpu"

var (
	// vectors: AVX2, which every processor has that runs confidential VMs.
	vectors = cpu.X86.HasAVX2
	// wideVectors: AVX-512, which many of them have.
	wideVectors = vectors && cpu.X86.HasAVX512
	// halfVectors: float16 is converted, as it is wherever AVX2 is.
	halfVectors = vectors && cpu.X86.HasF16C
)
