// Package model is what the example learns: logistic regression on the Breast
// Cancer Wisconsin (Diagnostic) data, trained by plain gradient descent.
//
// Start with [Read], [Hospitals] and [Model.Train]. Everything is
// deterministic: the same rows and the same numbers give the same model. It
// does no I/O beyond the reader it is given.
package model
