//go:build js && wasm

// Command concordat-wasm is the verifier for a web page: it makes one global
// function,
//
//	verifyBundle(bundle: Uint8Array, trust: string): string
//
// which returns the JSON of a verifier.Report with two more fields, "word" (the
// verdict for people) and "text" (the whole report), or {"error": "…"}. It has no
// network and keeps nothing.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"syscall/js"
	"time"

	"github.com/concordat/concordat/verifier"
)

func main() {
	js.Global().Set("verifyBundle", js.FuncOf(func(_ js.Value, args []js.Value) any {
		out, err := verifyBundle(args)
		if err != nil {
			out, _ = json.Marshal(struct { // strings always marshal
				Error string `json:"error"`
			}{err.Error()})
		}
		return string(out)
	}))
	select {} // the page calls
}

func verifyBundle(args []js.Value) (out []byte, err error) {
	defer func() {
		if r := recover(); r != nil { // arguments of other types
			err = fmt.Errorf("verifyBundle: %v", r)
		}
	}()
	if len(args) != 2 || args[1].Type() != js.TypeString || !args[0].InstanceOf(js.Global().Get("Uint8Array")) {
		return nil, errors.New("verifyBundle: want a Uint8Array and a string")
	}
	trust, err := verifier.ParseTrust([]byte(args[1].String()))
	if err != nil {
		return nil, err
	}
	bundle := make([]byte, args[0].Length())
	js.CopyBytesToGo(bundle, args[0])
	r, err := verifier.VerifyBundle(context.Background(), bytes.NewReader(bundle), trust, time.Time{}, nil)
	if err != nil {
		return nil, err
	}
	return json.Marshal(struct {
		*verifier.Report
		Word string `json:"word"`
		Text string `json:"text"`
	}{r, r.Word(), r.Text()})
}
