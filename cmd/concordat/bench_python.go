package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// python is a Python process that says a word when it is ready, and then answers each
// expression that it reads with "done" and a value, or no value.
type python struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startPython(cmd *exec.Cmd) (*python, error) {
	n := &python{cmd: cmd}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	n.in, n.out = in, bufio.NewReader(out)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	if _, err := n.out.ReadString('\n'); err != nil {
		return nil, errors.Join(fmt.Errorf("bench: python: %w", err), n.end())
	}
	return n, nil
}

// ask has an expression computed once, and returns the value as it is printed.
func (n *python) ask(expression string) (string, error) {
	if _, err := fmt.Fprintln(n.in, expression); err != nil {
		return "", fmt.Errorf("bench: python: %w", err)
	}
	line, err := n.out.ReadString('\n')
	value, done := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "done")
	if err == nil && !done {
		err = errors.New("no answer to the question")
	}
	if err != nil {
		return "", fmt.Errorf("bench: python: %s: %q: %w", expression, line, err)
	}
	return strings.TrimSpace(value), nil
}

// end ends the process and waits for it.
func (n *python) end() error {
	return errors.Join(n.in.Close(), n.cmd.Wait())
}
