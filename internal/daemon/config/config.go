// Package config reads a daemon's YAML file into its Config struct: strictly, so
// that a misspelt line is an error and not a silent default. There is no
// layering: the file is read over the struct's defaults, and flags over the file.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/goccy/go-yaml"
)

// maxFile bounds a configuration file; a real one has a few hundred bytes.
const maxFile = 1 << 20

// Load reads the file into v, a pointer to a struct with yaml tags that holds the
// defaults. A key that v does not have, a key that comes twice, and more than one
// document are errors, with line and column. An error never quotes the file: it
// may hold a proxy's password.
func Load(path string, v any) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("config: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return fmt.Errorf("config: %s: %w", path, err)
	}
	if len(b) > maxFile {
		return fmt.Errorf("config: %s: more than %d bytes", path, maxFile)
	}
	if err := Decode(b, v); err != nil {
		return fmt.Errorf("config: %s: %w", path, err)
	}
	return nil
}

// Decode is [Load] for bytes. An empty file changes nothing.
func Decode(b []byte, v any) error {
	// The decoder zeroes v for a document of nothing but comments.
	var content any
	if err := yaml.Unmarshal(b, &content); err != nil {
		return position(err)
	} else if content == nil {
		return nil
	}
	d := yaml.NewDecoder(bytes.NewReader(b), yaml.Strict())
	if err := d.Decode(v); err != nil {
		return position(err)
	}
	var more any
	if err := d.Decode(&more); !errors.Is(err, io.EOF) {
		return errors.New("more than one document")
	}
	return nil
}

// position words a decoder's error by place and message, without the excerpt of
// the file that it carries.
func position(err error) error {
	var y yaml.Error
	if !errors.As(err, &y) {
		return err
	}
	if t := y.GetToken(); t != nil && t.Position != nil {
		return fmt.Errorf("line %d, column %d: %s", t.Position.Line, t.Position.Column, y.GetMessage())
	}
	return errors.New(y.GetMessage())
}

// Print writes v as the YAML that [Decode] reads: what --print-config shows.
func Print(w io.Writer, v any) error {
	b, err := yaml.Marshal(v)
	if err != nil {
		return fmt.Errorf("config: %w", err)
	}
	_, err = w.Write(b)
	return err
}
