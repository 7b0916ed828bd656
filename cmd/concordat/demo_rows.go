package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/concordat/concordat/policy"
)

// dealRows gives each member its part of the data set, in a file of its own.
func (d *demo) dealRows() error {
	out, err := output(d.ctx, d.app, "partition", "--out", filepath.Join(d.state, "data"))
	if err != nil {
		return err
	}
	var parts []struct{ Name, File string }
	if err := json.Unmarshal(out, &parts); err != nil {
		return fmt.Errorf("partition: %w", err)
	}
	for i := range d.nodes {
		h := &hospital{id: policy.MemberID(fmt.Sprintf("hospital-%c", 'a'+i))}
		h.dir = filepath.Join(d.state, string(h.id))
		h.data = h.at("rows.csv")
		if err := os.MkdirAll(h.dir, 0o700); err != nil {
			return err
		}
		// With more members than parts, members share a part, row by row in turn.
		k := i % len(parts)
		sharers := (d.nodes - k + len(parts) - 1) / len(parts)
		b, err := os.ReadFile(parts[k].File)
		if err != nil {
			return err
		}
		if b, h.rows, err = everyNth(b, i/len(parts), sharers); err != nil {
			return fmt.Errorf("%s: %w", parts[k].File, err)
		}
		if err := os.WriteFile(h.data, b, 0o600); err != nil {
			return err
		}
		d.members = append(d.members, h)
	}
	return nil
}

// everyNth returns the part of a data file that holds row first and every n-th after
// it, with a first line that states how many.
func everyNth(csv []byte, first, n int) ([]byte, int, error) {
	lines := bytes.Split(bytes.TrimRight(csv, "\n"), []byte("\n"))
	_, names, ok := bytes.Cut(lines[0], []byte(","))
	if !ok {
		return nil, 0, errors.New("no first line")
	}
	var rows [][]byte
	for i := 1 + first; i < len(lines); i += n {
		rows = append(rows, lines[i])
	}
	head := fmt.Appendf(nil, "%d,%s", len(rows), names)
	return append(bytes.Join(append([][]byte{head}, rows...), []byte("\n")), '\n'), len(rows), nil
}
