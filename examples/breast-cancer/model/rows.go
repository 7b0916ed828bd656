package model

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Limits of a file, so that a wrong path is an error and not a full memory.
const (
	maxRows = 1 << 20
	maxLine = 4096
	// maxValue is far above every measurement and far below what could overflow.
	maxValue = 1e9
)

// Row is one sample: its features scaled by [Scale], and whether it is benign.
type Row struct {
	X      [Features]float64
	Benign bool
}

// Read reads samples in the form of the data set: a first line with the number
// of rows, the number of features and the names of the classes, then a line of
// comma-separated values a row, of which the last is the class (0 malignant, 1
// benign).
func Read(r io.Reader) ([]Row, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	if !lines.Scan() {
		return nil, errors.Join(errors.New("data: no first line"), lines.Err())
	}
	head := strings.Split(lines.Text(), ",")
	if len(head) != 4 || head[1] != strconv.Itoa(Features) {
		return nil, fmt.Errorf("data: first line %.80q, want rows,%d and two classes", lines.Text(), Features)
	}
	n, err := strconv.Atoi(head[0])
	if err != nil || n < 0 || n > maxRows {
		return nil, fmt.Errorf("data: %.40q rows, want at most %d", head[0], maxRows)
	}
	var rows []Row
	for lines.Scan() {
		row, err := parse(lines.Text())
		if err != nil {
			return nil, fmt.Errorf("data: row %d: %w", len(rows)+1, err)
		}
		if rows = append(rows, row); len(rows) > n {
			break
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("data: row %d: %w", len(rows)+1, err)
	}
	if len(rows) != n {
		return nil, fmt.Errorf("data: %d rows or more, first line says %d", len(rows), n)
	}
	return rows, nil
}

func parse(line string) (Row, error) {
	var row Row
	fields := strings.Split(line, ",")
	if len(fields) != Features+1 {
		return row, fmt.Errorf("%d values, want %d", len(fields), Features+1)
	}
	for i := range row.X {
		v, err := strconv.ParseFloat(fields[i], 64)
		if err != nil || !(math.Abs(v) <= maxValue) { // NaN too
			return row, fmt.Errorf("value %d is no number of a measurement", i+1)
		}
		row.X[i] = Scale(i, v)
	}
	switch fields[Features] {
	case "0":
	case "1":
		row.Benign = true
	default:
		return row, errors.New("class is neither 0 nor 1")
	}
	return row, nil
}

// Split parts the rows of one hospital into those it trains on and those it
// holds out: every fifth row of each class.
func Split(rows []Row) (train, held []Row) {
	var seen [2]int
	for _, r := range rows {
		class := &seen[0]
		if r.Benign {
			class = &seen[1]
		}
		if *class++; *class%5 == 0 {
			held = append(held, r)
		} else {
			train = append(train, r)
		}
	}
	return slices.Clip(train), slices.Clip(held)
}
