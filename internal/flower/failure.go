package flower

import (
	"fmt"
	"regexp"
)

// Code is one of Flower's error codes in a reply (flwr.common.constant.ErrorCode).
type Code int64

const (
	CodeUnknown       Code = 0
	CodeLoad          Code = 1 // the app could not be loaded
	CodeRaised        Code = 2 // the app raised an exception
	CodeUnavailable   Code = 3 // the instruction is gone
	CodeReplyGone     Code = 4
	CodeNodeGone      Code = 5
	CodeMod           Code = 6
	CodeInvalidBundle Code = 7
	CodeCrashed       Code = 8 // the process ended without a reply
)

// String names the code for people.
func (c Code) String() string {
	names := [...]string{"unknown error", "app not loadable", "app raised an exception", "message unavailable",
		"reply unavailable", "node unavailable", "mod precondition failed", "invalid app bundle", "app crashed"}
	if c < 0 || int(c) >= len(names) {
		return fmt.Sprintf("error code %d", int64(c))
	}
	return names[c]
}

// Failure is what an app replies instead of records. Code and Type may leave the
// node. What the app said beside them may quote a patient's data: it is reachable
// only by [Failure.LocalText].
type Failure struct {
	Code Code
	Type string // name of the exception's type, such as "ValueError"; may be empty
	text string
}

// Error returns code and type, without the app's text.
func (f *Failure) Error() string {
	if f.Type == "" {
		return "flower: " + f.Code.String()
	}
	return "flower: " + f.Code.String() + ": " + f.Type
}

// LocalText returns the app's own text, cut to 4 KiB. It is for the log on this
// node and for nothing else.
func (f *Failure) LocalText() string { return f.text }

// maxText bounds what is kept of an app's error text.
const maxText = 4 << 10

// pythonType is how flwr-clientapp begins a reason: str(type(ex)) + ":<'" + text.
var pythonType = regexp.MustCompile(`^<class '([A-Za-z_][A-Za-z0-9_.]{0,63})'>`)

// NewFailure parses the error of a reply. Only a name that is a Python type's
// becomes the type; all else stays in the text.
func NewFailure(code int64, reason string) *Failure {
	f := &Failure{Code: Code(code), text: reason[:min(len(reason), maxText)]}
	if f.Code < CodeUnknown || f.Code > CodeCrashed {
		f.Code = CodeUnknown
	}
	if m := pythonType.FindStringSubmatch(reason); m != nil {
		f.Type = m[1]
	}
	return f
}
