package flower

// NodeNumber is Flower's id of a node with that identity (SHA-256 of its key). 0 and 1 are
// Flower's own. Two nodes of a run may not have one number; of honest ones none have.
func NodeNumber(id [32]byte) uint64 {
	var n uint64
	for _, b := range id[:8] {
		n = n<<8 | uint64(b)
	}
	return max(n, Server+1)
}

// RunConfig gives a config that was decoded the types that Flower knows.
func RunConfig(c map[string]any) map[string]any {
	out := map[string]any{}
	for k, v := range c {
		switch v := v.(type) {
		case uint64:
			out[k] = int64(v)
		default:
			out[k] = v
		}
	}
	return out
}
