package main

import (
	"bytes"
	"io"

	"github.com/spf13/cobra"
)

const (
	outputHuman = "human"
	outputJSON  = "json"
)

func checkOutput(cmd *cobra.Command) error {
	switch out, _ := cmd.Flags().GetString("output"); out {
	case outputHuman, outputJSON:
		return nil
	default:
		return usagef("--output is %q, want %q or %q", out, outputHuman, outputJSON)
	}
}

// emit prints a command's result: v as JSON, whose fields are stable, or what
// human writes.
func emit(cmd *cobra.Command, v any, human func(io.Writer)) error {
	if out, _ := cmd.Flags().GetString("output"); out == outputJSON {
		return writeJSON(cmd.OutOrStdout(), v)
	}
	var b bytes.Buffer
	human(&b)
	_, err := cmd.OutOrStdout().Write(b.Bytes())
	return err
}
