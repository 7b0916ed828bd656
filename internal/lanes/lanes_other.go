//go:build !amd64

package lanes

const interleaves = false

func blocks(*[width][8]uint32, *[width]*byte, int) {
	panic("lanes: internal error: no such instructions")
}
