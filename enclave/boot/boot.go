package boot

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"time"

	"github.com/concordat/concordat/enclave"
	"github.com/concordat/concordat/internal/daemon"
	"github.com/concordat/concordat/internal/daemon/dial"
	"github.com/concordat/concordat/policy"
)

// Program is what makes one enclave binary differ from another.
type Program struct {
	Name string
	// Flags adds the program's own flags; nil: it has none.
	Flags func(*flag.FlagSet)
	// Machine returns the hardware to attest with, after flags were parsed. An error
	// that wraps [errors.ErrUnsupported] exits with status 4.
	Machine func(*policy.Chain) (enclave.Machine, error)
	// Apps returns what runs ServerApps, nil where the image has nothing to run them in;
	// it may be nil itself.
	Apps func() (enclave.ServerApps, error)
	// Observe is [enclave.Config.Observe]; it may be nil.
	Observe func(enclave.Event)
}

// The exit statuses: those of every command of this project.
const (
	exitPass        = 0
	exitFail        = 1
	exitUsage       = 2
	exitUnsupported = 4
)

// usageError is the caller's misuse of the command line.
type usageError struct{ error }

// Main runs an enclave until ctx ends, and returns the process's exit status. It logs
// JSON lines to stderr. args is the command line without the program's name.
func Main(ctx context.Context, p Program, args []string, stderr io.Writer) int {
	debug.SetGCPercent(enclave.CollectAt)
	err := run(ctx, p, args, stderr)
	var misuse usageError
	switch {
	case err == nil:
		return exitPass
	case errors.Is(err, flag.ErrHelp):
		return exitUsage // flag printed the usage
	case errors.As(err, &misuse):
		fmt.Fprintf(stderr, "%s: %v\n", p.Name, err)
		return exitUsage
	}
	fmt.Fprintf(stderr, "%s: %v\n", p.Name, err)
	if errors.Is(err, errors.ErrUnsupported) {
		return exitUnsupported
	}
	return exitFail
}

func run(ctx context.Context, p Program, args []string, stderr io.Writer) error {
	link, policyPath, configPath, err := p.parse(args, stderr)
	if err != nil {
		return err
	}
	c, err := readConfig(configPath)
	if err != nil {
		return err
	}
	if link == "" {
		link = c.Link
	}
	if link == "" {
		return usageError{errors.New("no --link, and no link in the config")}
	}
	log, err := daemon.Logger(stderr, daemon.LogConfig{Format: "json", Level: c.LogLevel})
	if err != nil {
		return err
	}
	raw, err := readFile(policyPath, policy.MaxChain)
	if err != nil {
		return err
	}
	chain, err := policy.ParseChain(raw)
	if err != nil {
		return fmt.Errorf("%s: %w", policyPath, err)
	}
	machine, err := p.Machine(chain)
	if err != nil {
		return err
	}
	image, err := imageDigest(imageFile, os.Executable)
	if err != nil {
		return err
	}
	var serverApps enclave.ServerApps
	if p.Apps != nil {
		if serverApps, err = p.Apps(); err != nil {
			return err
		}
	}
	return serve(ctx, link, enclave.Config{
		Policy: raw, Machine: machine, Apps: serverApps, Image: image, Config: c.digest, Log: log, Now: time.Now, Observe: p.Observe,
	})
}

// serve dials and runs.
func serve(ctx context.Context, link string, c enclave.Config) error {
	conn, err := dial.Dial(link, dial.Options{Window: enclave.ReadWindow})
	if err != nil {
		return usageError{err}
	}
	c.Conn = conn
	e, err := enclave.New(c)
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	err = e.Run(ctx)
	if errors.Is(err, enclave.ErrSpent) { // as it should: whoever started it starts the next
		c.Log.LogAttrs(ctx, slog.LevelInfo, "enclave ended", slog.String("reason", err.Error()))
		err = nil
	}
	if err != nil {
		c.Log.LogAttrs(ctx, slog.LevelError, "enclave ended", slog.String("reason", err.Error()))
	}
	return errors.Join(err, conn.Close())
}

// parse reads the flags that every enclave has, and the program's own.
func (p Program) parse(args []string, stderr io.Writer) (link, policyPath, configPath string, err error) {
	fs := flag.NewFlagSet(p.Name, flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&link, "link", "", `address of the link: "host:port" or "host:port#sha256:<hex>"`)
	fs.StringVar(&policyPath, "policy", "", "the federation's signed policy chain")
	fs.StringVar(&configPath, "config", "", "JSON file: link and log_level, and nothing else")
	if p.Flags != nil {
		p.Flags(fs)
	}
	if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
		return "", "", "", err
	} else if err != nil {
		return "", "", "", usageError{err}
	}
	if fs.NArg() > 0 {
		return "", "", "", usageError{fmt.Errorf("unexpected argument %q", fs.Arg(0))}
	}
	if policyPath == "" {
		return "", "", "", usageError{errors.New("no --policy")}
	}
	return link, policyPath, configPath, nil
}
