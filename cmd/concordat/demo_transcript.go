package main

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"unicode/utf8"
)

// transcript is what a person sees of the demo while it runs. It has colour only on
// a terminal.
type transcript struct {
	w      io.Writer
	colour bool
}

// newTranscript returns a transcript on w; a nil w shows nothing.
func newTranscript(w io.Writer) *transcript {
	t := &transcript{w: w}
	if w == nil {
		t.w = io.Discard
	}
	if f, ok := w.(*os.File); ok {
		info, err := f.Stat()
		t.colour = err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	}
	return t
}

// ANSI SGR codes (ECMA-48 8.3.117).
const (
	bold  = "1"
	faint = "2"
	green = "32"
)

func (t *transcript) paint(code, s string) string {
	if !t.colour {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// heading starts a part.
func (t *transcript) heading(s string) { fmt.Fprintf(t.w, "\n%s\n", t.paint(bold, s)) }

// row prints a name and what there is to say about it.
func (t *transcript) row(name, format string, args ...any) {
	fmt.Fprintf(t.w, "  %-12s  %s\n", name, fmt.Sprintf(format, args...))
}

// line prints a line as it is.
func (t *transcript) line(format string, args ...any) {
	fmt.Fprintf(t.w, "  %s\n", fmt.Sprintf(format, args...))
}

// longHex is a digest, of which a person compares the start.
var longHex = regexp.MustCompile("([0-9a-f]{8})[0-9a-f]{24,}")

// quote prints what a program said, wrapped and set off, with digests cut short.
func (t *transcript) quote(who, text string) {
	const width = 108
	indent := strings.Repeat(" ", 5)
	line := ""
	flush := func() {
		if line != "" {
			fmt.Fprintf(t.w, "%s%s\n", indent, t.paint(faint, line))
		}
		line = ""
	}
	for _, word := range strings.Fields(who + ": " + longHex.ReplaceAllString(text, "$1…")) {
		if line != "" && utf8.RuneCountInString(line+" "+word) > width {
			flush()
			indent = strings.Repeat(" ", 7)
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	flush()
}
