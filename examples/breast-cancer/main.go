// Command breast-cancer is a ClientApp in Go: it trains a classifier of tumours
// on one hospital's rows, which never leave that hospital. A node starts it with
// Flower's flags:
//
//	breast-cancer --insecure --clientappio-api-address unix:///run/app.sock --token T --data rows.csv
//
// Where --data is not given, the node's config names the file under "data".
//
// Two more commands prepare and judge the example:
//
//	breast-cancer partition --out DIR   deal the published data set to three hospitals
//	breast-cancer central   FILE...     train on all files in one place, as the yardstick
//
// and both print JSON. One is for measurements:
//
//	breast-cancer echo FLAGS            as with Flower's flags, but it returns every model as it came
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/concordat/concordat/examples/breast-cancer/data"
	"github.com/concordat/concordat/examples/breast-cancer/model"
	"github.com/concordat/concordat/internal/flower/clientapp"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			os.Exit(2)
		}
		fmt.Fprintln(os.Stderr, "breast-cancer:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	var echo bool
	if len(args) > 0 {
		switch args[0] {
		case "echo":
			echo, args = true, args[1:]
		case "partition":
			return partition(args[1:], out)
		case "central":
			return central(args[1:], out)
		}
	}
	fs := flag.NewFlagSet("breast-cancer", flag.ContinueOnError)
	var c clientapp.Config
	fs.StringVar(&c.Address, "clientappio-api-address", "", "address of the node's app API, such as unix:///path")
	fs.StringVar(&c.Token, "token", "", "token that the node gave")
	fs.Bool("insecure", false, "the API has no TLS: it is a Unix socket; accepted as Flower's")
	fs.Int("parent-pid", 0, "accepted as Flower's and ignored")
	file := fs.String("data", "", "rows of this hospital; default: the node's config value \"data\"")
	once := fs.Bool("once", false, "end after one message")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if c.Address == "" || c.Token == "" || fs.NArg() > 0 {
		return errors.New("want --clientappio-api-address and --token, and no more arguments")
	}
	c.Once = *once
	if echo {
		return clientapp.Run(ctx, c, echoed)
	}
	a := app{file: *file}
	return clientapp.Run(ctx, c, a.handle)
}

// partition writes each hospital's rows to a file of its own.
func partition(args []string, out io.Writer) error {
	fs := flag.NewFlagSet("partition", flag.ContinueOnError)
	dir := fs.String("out", "", "folder for the hospitals' files; made if it is not there")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *dir == "" || fs.NArg() > 0 {
		return errors.New("partition: want --out DIR and no more arguments")
	}
	hospitals, err := model.Hospitals(data.CSV)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(*dir, 0o700); err != nil {
		return err
	}
	type part struct {
		Name      string `json:"name"`
		File      string `json:"file"`
		Malignant int    `json:"malignant"`
		Benign    int    `json:"benign"`
	}
	var parts []part
	for _, h := range hospitals {
		p := part{h.Name, filepath.Join(*dir, h.Name+".csv"), h.Malignant, h.Benign}
		if err := os.WriteFile(p.File, h.CSV, 0o600); err != nil {
			return err
		}
		parts = append(parts, p)
	}
	return printJSON(out, parts)
}

// central trains on the union of the training rows of all files and evaluates on
// the union of those held out: the same rows that the federation uses.
func central(args []string, out io.Writer) error {
	fs := flag.NewFlagSet("central", flag.ContinueOnError)
	c := model.DefaultConfig
	rounds := fs.Int("rounds", 10, "rounds of the federation that this is compared with")
	fs.IntVar(&c.Epochs, "epochs", c.Epochs, "epochs of each round")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() == 0 || *rounds < 1 || c.Epochs < 1 {
		return errors.New("central: want files of rows, and at least one round of one epoch")
	}
	var train, held []model.Row
	for _, name := range fs.Args() {
		rows, err := read(name)
		if err != nil {
			return err
		}
		t, h := model.Split(rows)
		train, held = append(train, t...), append(held, h...)
	}
	var m model.Model
	c.Epochs *= *rounds
	m.Train(train, c)
	loss, accuracy := m.Evaluate(held)
	return printJSON(out, struct {
		Train    int     `json:"train"`
		HeldOut  int     `json:"held_out"`
		Loss     float64 `json:"loss"`
		Accuracy float64 `json:"accuracy"`
	}{len(train), len(held), loss, accuracy})
}

func read(name string) ([]model.Row, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	rows, err := model.Read(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return rows, nil
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
