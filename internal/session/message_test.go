package session

import (
	"bytes"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/concordat/concordat/internal/cose"
)

// fill puts something other than zero into every exported field of v.
func fill(v reflect.Value, n *byte) {
	*n++
	switch v.Kind() {
	case reflect.Pointer:
		fill(v.Elem(), n)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i), n)
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fallthrough
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i), n)
		}
	case reflect.String:
		v.SetString("text" + string('a'+rune(*n%26)))
	case reflect.Uint8, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(*n%255) + 1)
	default:
		panic("fill: " + v.Type().String())
	}
}

// everyMessage returns one message of each kind, with every field set.
func everyMessage() (out []Message) {
	var kinds []string
	for k := range messages {
		kinds = append(kinds, k)
	}
	slices.Sort(kinds)
	n := byte(0)
	for _, k := range kinds {
		m := messages[k]()
		fill(reflect.ValueOf(m), &n)
		out = append(out, m)
	}
	return out
}

func TestMessageRoundTrip(t *testing.T) {
	t.Parallel()
	all := everyMessage()
	if len(all) != 18 {
		t.Errorf("%d kinds of message, want 18", len(all))
	}
	for kind, make := range messages {
		if got := make().kind(); got != kind {
			t.Errorf("kind %q makes a %q", kind, got)
		}
	}
	for _, m := range all {
		b := EncodeMessage(m)
		got, err := ParseMessage(b)
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%s: %+v, %v, want %+v", m.kind(), got, err, m)
		}
		if got != nil && !bytes.Equal(EncodeMessage(got), b) {
			t.Errorf("%s encodes to other bytes", m.kind())
		}
		// Of no kind is another kind's body, nor less or more of it.
		for _, other := range all {
			if reflect.TypeOf(other) == reflect.TypeOf(m) || shape(other) == shape(m) {
				continue
			}
			_, err := ParseMessage(cose.Marshal(envelope{Kind: m.kind(), Body: cose.Marshal(other)}))
			mustRefuse(t, m.kind()+" with the body of "+other.kind(), err, ErrFrame)
		}
		body := cose.Marshal(m)
		for name, bad := range map[string][]byte{"cut": body[:len(body)-1], "longer": append(bytes.Clone(body), 0), "empty": nil} {
			_, err := ParseMessage(cose.Marshal(envelope{Kind: m.kind(), Body: bad}))
			mustRefuse(t, m.kind()+", "+name, err, ErrFrame)
		}
	}
}

// shape returns the types of a message's fields: kinds of the same shape decode
// each other's bodies, and differ by their name alone.
func shape(m Message) string {
	var s []string
	t := reflect.TypeOf(m).Elem()
	for i := range t.NumField() {
		// A 32-byte secret or statement and a digest are all byte strings.
		n := strings.ReplaceAll(t.Field(i).Type.String(), "[]uint8", "bytes")
		s = append(s, strings.ReplaceAll(n, "cose.Digest", "bytes"))
	}
	return strings.Join(s, " ")
}

func TestParseMessageRefused(t *testing.T) {
	t.Parallel()
	for name, b := range map[string][]byte{
		"nothing":                nil,
		"no envelope":            cose.Marshal("leave"),
		"unknown kind":           cose.Marshal(envelope{Kind: "reset", Body: cose.Marshal(&Leave{Code: "x"})}),
		"empty kind":             cose.Marshal(envelope{Body: cose.Marshal(&Leave{Code: "x"})}),
		"one element":            cose.Marshal([]string{"leave"}),
		"too long":               EncodeMessage(&Ack{Statement: make([]byte, MaxMessage)}),
		"too many tasks":         EncodeMessage(&Resume{Tasks: make([]Task, MaxResume+1)}),
		"too many contributions": EncodeMessage(&Resume{Contributions: make([]Contribution, MaxResume+1)}),
	} {
		_, err := ParseMessage(b)
		mustRefuse(t, name, err, ErrFrame)
	}
	if _, err := ParseMessage(EncodeMessage(&Resume{Tasks: make([]Task, MaxResume), Contributions: make([]Contribution, MaxResume)})); err != nil {
		t.Errorf("a resume of the most tasks: %v", err)
	}
}
