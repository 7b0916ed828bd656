package model

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
)

// Hospital is one hospital's disjoint part of the data set, as a file of its
// own in the data set's form.
type Hospital struct {
	Name      string
	CSV       []byte
	Malignant int
	Benign    int
}

// shares say which part of each class goes to which hospital, in percent. They
// are unequal in size and in balance on purpose: that is what hospitals are.
var shares = []struct {
	name              string
	malignant, benign int
}{
	{"hospital-a", 35, 55}, // large, screens many healthy people
	{"hospital-b", 25, 35},
	{"hospital-c", 40, 10}, // a specialised centre: small, and most cases are malignant
}

// Hospitals deals the rows of the data set (csv, in its published form) to
// three hospitals: every row to exactly one, the same way every time.
func Hospitals(csv []byte) ([]Hospital, error) {
	rows, err := Read(bytes.NewReader(csv))
	if err != nil {
		return nil, err
	}
	head, body, _ := bytes.Cut(bytes.TrimRight(csv, "\r\n"), []byte("\n"))
	lines := bytes.Split(body, []byte("\n"))
	if len(lines) != len(rows) {
		return nil, fmt.Errorf("data: %d lines for %d rows", len(lines), len(rows))
	}
	byClass := map[bool][]int{}
	for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(len(rows)) {
		byClass[rows[i].Benign] = append(byClass[rows[i].Benign], i)
	}
	names := bytes.SplitN(head, []byte(","), 3)[2]
	var hospitals []Hospital
	left := map[bool][]int{false: byClass[false], true: byClass[true]}
	deal := func(benign bool, percent int, all bool) []int {
		n := len(byClass[benign]) * percent / 100
		if all {
			n = len(left[benign])
		}
		part := left[benign][:n]
		left[benign] = left[benign][n:]
		return part
	}
	for k, s := range shares {
		last := k == len(shares)-1 // takes what rounding left
		m, b := deal(false, s.malignant, last), deal(true, s.benign, last)
		h := Hospital{Name: s.name, Malignant: len(m), Benign: len(b)}
		mine := slices.Concat(m, b)
		h.CSV = fmt.Appendf(nil, "%d,%d,%s\n", len(mine), Features, bytes.TrimRight(names, "\r"))
		for _, i := range mine {
			h.CSV = append(append(h.CSV, bytes.TrimRight(lines[i], "\r")...), '\n')
		}
		hospitals = append(hospitals, h)
	}
	return hospitals, nil
}
