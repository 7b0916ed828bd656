// Package aggregate turns the tensors of many contributions into one: tensors
// in, tensors out. It knows no messages, no members, no policy and no keys.
//
// Start with [New], which gives a [Strategy] with its arguments, [Strategy.Plan], which
// decides one step, and [Plan.Array], which computes one array of it from every
// contribution. Strategies that must know all contributions before they combine any
// begin with a [Survey]. Before that, every segment of a contribution goes through
// [Check] when it is admitted: no mean of what passed Check overflows, so that an error
// of Array after admission is a fault to repeat and never a reason to exclude anybody.
//
// A step is computed in stages, window by window: updates are clipped, the contributions
// combined, the server's optimizer moves the model, noise is added, and the result is
// rounded to the model's type. Most strategies have one or two of them.
//
// # Order and numbers
//
// Floating-point sums depend on their order. The order of contributions is the
// caller's, who sorts by node id; it is the same for every array, segment and
// repetition, and [Strategy.Profile] names it together with the arithmetic. Equal
// inputs give equal bytes on every machine: each product and each sum is rounded
// to the array's own type, and none is fused. (Noise and powers of losses are the
// math package's, which may differ between architectures in the last bit.)
//
// Means, medians and the servers' optimizers are Flower's byte for byte (numpy 2), in
// float32, float64 and, for FedAvg and the median, float16. What Flower leaves to the
// order that numpy or its BLAS choose (trimmed means, Bulyan's, lengths of updates) is
// within a few units of the last place: testdata/generate.py says for each. bfloat16,
// which numpy does not know, and the optimizers in float16 are computed in float32 and
// rounded once. Flower's FedAdam turns a float32 model into a float64 one; here it is
// rounded back.
//
// Memory is a window, not clients x model: one tile of [Tile] bytes for each
// contribution, and of the model and the strategy's state. Readers that lend what they
// have ([Lender]) save that tile, and the copy into it.
package aggregate
