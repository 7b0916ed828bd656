package process

import (
	"fmt"
	"math"
	"os"
	"path/filepath"

	"github.com/concordat/concordat/internal/flower"
)

// Environment is a Python environment with a version of Flower in it. It is not changed
// after [Open].
type Environment struct {
	dir     string
	python  []string // what it needs of its interpreter, outside of it
	dialect Dialect
}

// Open looks at the environment in a folder, whose path is absolute and clean. Versions of
// Flower that are not served are refused.
func Open(dir string) (*Environment, error) {
	// Its scripts name their interpreter by the path that the environment was made at.
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, err
	}
	e := &Environment{dir: real}
	for _, name := range []string{"flwr-clientapp", "flwr-serverapp"} {
		if _, err := os.Stat(filepath.Join(real, "bin", name)); err != nil {
			return nil, fmt.Errorf("it has no %s; make one with: python3 -m venv %s && %s/bin/pip install flwr==1.42.0: %w", name, real, real, err)
		}
	}
	if e.python, err = interpreterOf(real); err != nil {
		return nil, err
	}
	version, err := flower.VersionOf(real)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", real, err)
	}
	if e.dialect, err = dialectOf(version); err != nil {
		return nil, fmt.Errorf("%s: %w", real, err)
	}
	return e, nil
}

// Dialect is that of its processes.
func (e *Environment) Dialect() Dialect { return e.dialect }

// Program is one of Flower's: [ClientApp] or [ServerApp]. It reports nothing to anybody:
// there is no network either.
func (e *Environment) Program(part Part) Program {
	return Program{
		Command:  []string{filepath.Join(e.dir, "bin", "flwr-"+string(part))},
		ReadOnly: append([]string{e.dir}, e.python...),
		Env:      []string{"FLWR_TELEMETRY_ENABLED=0", "FLWR_DISABLE_UPDATE_CHECK=1", "PYTHONDONTWRITEBYTECODE=1", "PYTHONUNBUFFERED=1"},
		Dialect:  e.dialect, Part: part,
	}
}

// Dialect is how the processes of a version of Flower are started and served. The zero
// value is dialect A, also that of programs that are no Python.
type Dialect struct {
	Runtime bool // they speak the Runtime API over HTTP (dialect C), not the gRPC services before it (A)
	oneFlag bool // both parts take their address by one flag
}

// dialectOf returns the dialect of a version. Those of 1.30 to 1.34 spoke gRPC of another
// kind.
func dialectOf(v flower.Version) (Dialect, error) {
	switch {
	case v.Between(26, 29):
		return Dialect{}, nil
	case v.Between(35, math.MaxInt):
		return Dialect{Runtime: true, oneFlag: v.Minor >= 36}, nil
	}
	return Dialect{}, fmt.Errorf("it has flwr %.40s; 1.26 to 1.29, and 1.35 and later, are served", v)
}

// Part is one half of a Flower app.
type Part string

// The parts, as Flower's programs are named.
const (
	ClientApp Part = "clientapp"
	ServerApp Part = "serverapp"
)

// flag is how a part takes the address that it is served at.
func (d Dialect) flag(p Part) string {
	if d.oneFlag {
		return "--runtime-api-address"
	}
	return "--" + string(p) + "io-api-address"
}

// interpreterOf returns the interpreter that a virtual environment links to, by every
// name on the way, and its library: an environment holds neither.
func interpreterOf(environment string) (out []string, err error) {
	python := filepath.Join(environment, "bin", "python3")
	for range maxLinks {
		to, err := os.Readlink(python)
		if err != nil { // no link: this is it
			break
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(python), to)
		}
		python = to
		out = append(out, python)
	}
	if _, err := os.Stat(python); err != nil {
		return nil, err
	}
	if lib := filepath.Join(filepath.Dir(filepath.Dir(python)), "lib"); lib != "/lib" && lib != "/usr/lib" { // those any app sees
		if _, err := os.Stat(lib); err == nil {
			out = append(out, lib)
		}
	}
	return out, nil
}

// maxLinks is as many links as Linux follows.
const maxLinks = 40
