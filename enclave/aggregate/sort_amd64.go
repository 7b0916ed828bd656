package aggregate

import "golang.org/x/sys/cpu"

// vectors: AVX2, which every processor has that runs confidential VMs.
var vectors = cpu.X86.HasAVX2
