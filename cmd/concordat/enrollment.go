package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/policy/source"
)

// enrollmentFormat names the request's form; another form is another name.
const enrollmentFormat = "concordat/enroll/1"

// enrollment is a node's request to its member. Nothing in it is secret and
// nothing is signed: the member compares the node id.
type enrollment struct {
	Format  string          `json:"format"`
	Member  policy.MemberID `json:"member"`
	NodeKey string          `json:"node_key"`
	Witness string          `json:"witness,omitempty"`

	key cose.Key
}

func (e *enrollment) encode() []byte {
	var b bytes.Buffer
	must(writeJSON(&b, e))
	return b.Bytes()
}

// readEnrollment reads a request and refuses fields that it does not know.
func readEnrollment(path string) (*enrollment, error) {
	b, err := readFile(path, 4096)
	if err != nil {
		return nil, err
	}
	e := new(enrollment)
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(e); err != nil {
		return nil, fmt.Errorf("%s: not a request of \"concordat node enroll\": %w", path, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) || e.Format != enrollmentFormat {
		return nil, fmt.Errorf("%s: not a request of \"concordat node enroll\"", path)
	}
	if err := e.Member.Check(); err != nil {
		return nil, fmt.Errorf("%s: member %w", path, err)
	}
	if e.key, err = source.ParseKey(e.NodeKey); err != nil {
		return nil, fmt.Errorf("%s: node_key %w", path, err)
	}
	return e, nil
}
