package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/concordat/concordat/policy/source"
)

// The exit statuses; they are stable.
const (
	exitPass        = 0
	exitFail        = 1
	exitUsage       = 2
	exitIncomplete  = 3 // something needed is missing: more of the same kind may help
	exitUnsupported = 4
)

// exitError is an error with an exit status of its own and, optionally, what to
// do next. Any other error exits with exitFail.
type exitError struct {
	code int
	err  error
	hint string
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// usage marks err, if there is one, as the caller's misuse of the command line.
func usage(err error) error {
	if err == nil {
		return nil
	}
	return &exitError{code: exitUsage, err: err}
}

func usagef(format string, args ...any) error { return usage(fmt.Errorf(format, args...)) }

// hinted is err, which exits with code, with a sentence on what to do next.
func hinted(code int, err error, format string, args ...any) error {
	return &exitError{code: code, err: err, hint: fmt.Sprintf(format, args...)}
}

// report prints err where the caller looks for it and returns the exit status.
func report(cmd *cobra.Command, err error) int {
	if err == nil {
		return exitPass
	}
	code, hint := exitFail, ""
	var e *exitError
	if errors.As(err, &e) {
		code, hint = e.code, e.hint
	} else if strings.HasPrefix(err.Error(), "required flag(s)") || strings.Contains(err.Error(), "in the group [") {
		code = exitUsage // cobra has no type for these
	}
	if code == exitUsage && hint == "" {
		hint = fmt.Sprintf("see %q", cmd.CommandPath()+" --help")
	}
	var problems source.Problems
	errors.As(err, &problems)
	if out, _ := cmd.Flags().GetString("output"); out == outputJSON {
		v := struct {
			Error    string          `json:"error"`
			Hint     string          `json:"hint,omitempty"`
			Problems source.Problems `json:"problems,omitempty"`
			Status   int             `json:"status"`
		}{err.Error(), hint, problems, code}
		if writeJSON(cmd.OutOrStdout(), v) == nil {
			return code
		}
	}
	complain(cmd.ErrOrStderr(), err, hint)
	return code
}

func complain(w io.Writer, err error, hint string) {
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(w, "concordat: %s\n", strings.TrimSuffix(line, "\n"))
	}
	if hint != "" {
		fmt.Fprintf(w, "next: %s\n", hint)
	}
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
