// Package data holds the Breast Cancer Wisconsin (Diagnostic) data set, with
// its source and licence in README.md.
package data

import _ "embed"

// CSV is the data set as it was published; see README.md for its form.
//
//go:embed breast_cancer.csv
var CSV []byte
