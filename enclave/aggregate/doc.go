// Package aggregate turns the tensors of many contributions into one: tensors
// in, tensors out. It knows no messages, no members, no policy and no keys.
//
// Start with [Plan], which gives a [Strategy] for one step, and [Array], which
// runs it over one array of every contribution. Before that, every segment of a
// contribution goes through [Check] when it is admitted: what passed Check can
// be aggregated by every strategy without overflow, so that an error of Array
// after admission is a fault to repeat and never a reason to exclude anybody.
//
// # Order and numbers
//
// Floating-point sums depend on their order. The order of contributions is the
// caller's, who sorts by node id; it is the same for every array, segment and
// repetition, and [Strategy.Profile] names it together with the arithmetic. Equal
// inputs give equal bytes on every machine: each product and each sum is rounded
// to the array's own type, and none is fused.
//
// Memory is a window, not clients x model: one tile of [Tile] bytes for each
// contribution.
package aggregate
