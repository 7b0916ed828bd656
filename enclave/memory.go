package enclave

// What an enclave holds at once is chosen here: memory is what it has least of. "concordat
// bench memory" measures what it comes to, with the same numbers.
const (
	// FirstReadings is how many contributions, and stored initial models, are read for the
	// first time at once: each holds a sealed chunk, where all later readings hold segments.
	FirstReadings = 2
	// ReadWindow is how many bytes the link may send ahead of each array that is read. All
	// contributions to a step are read side by side, so that memory is as many windows.
	ReadWindow = 256 << 10
	// UploadWindow is how many bytes of a step's outputs wait for the link at once: a chunk
	// of 5 MiB. A node's window is larger, since it is further away and holds its whole model.
	UploadWindow = 6 << 20
	// CollectAt is at how many percent more than what is in use memory is collected
	// (runtime/debug.SetGCPercent). What is in use is few and large, so that collecting often
	// costs no time that shows.
	CollectAt = 10
)
