package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
)

func newRunBundleCommand() *cobra.Command {
	cmd := newRunFetchCommand("bundle", "bundle.cbor", "next: \"concordat verify %s --trust trust.json\"\n",
		func(ctx context.Context, c concordatv1.ControlClient, run []byte) (receiver, error) {
			s, err := c.GetBundle(ctx, &concordatv1.GetBundleRequest{Run: run})
			return receive(s, err)
		})
	cmd.Short = "Write the bundle of an ended run, for offline verification"
	cmd.Long = `Bundle writes everything that an officer needs to verify a run offline: policy, evidence, statements,
receipts and cosigned checkpoints. It holds no data, no model and no key. RUN is the run or its request, or
the first digits of either.`
	cmd.Example = "  concordat run bundle 3f9a12c0 -o bundle.cbor"
	return cmd
}

func newRunModelCommand() *cobra.Command {
	cmd := newRunFetchCommand("model", "model.npz", "",
		func(ctx context.Context, c concordatv1.ControlClient, run []byte) (receiver, error) {
			s, err := c.GetModel(ctx, &concordatv1.GetModelRequest{Run: run})
			return receive(s, err)
		})
	cmd.Short = "Write the final model of a completed run"
	cmd.Long = `Model writes the final arrays of a completed run as NumPy's .npz. The node opened them with the run's key;
the file is as confidential as the model. RUN is the run or its request, or the first digits of either.`
	cmd.Example = "  concordat run model 3f9a12c0 -o model.npz"
	return cmd
}

// receiver returns the next piece of a file, and io.EOF after the last.
type receiver func() ([]byte, error)

// receive makes a receiver of a stream of messages with data.
func receive[M interface{ GetData() []byte }](s interface{ Recv() (M, error) }, err error) (receiver, error) {
	if err != nil {
		return nil, said(err)
	}
	return func() ([]byte, error) {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil, io.EOF
		}
		if err != nil {
			return nil, said(err)
		}
		return m.GetData(), nil
	}, nil
}

func newRunFetchCommand(what, file, next string, open func(context.Context, concordatv1.ControlClient, []byte) (receiver, error)) *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:  what + " RUN",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withControl(cmd, func(c concordatv1.ControlClient) error {
				p, err := findRun(cmd.Context(), c, args[0])
				if err != nil {
					return err
				}
				run, err := hex.DecodeString(p.Run)
				if err != nil || len(run) == 0 {
					return fmt.Errorf("no enclave has started the run of request %s", p.Request)
				}
				r, err := open(cmd.Context(), c, run)
				if err != nil {
					return err
				}
				size, err := writeStream(out, r)
				if err != nil {
					return err
				}
				v := struct {
					File  string `json:"file"`
					Bytes int64  `json:"bytes"`
				}{out, size}
				return emit(cmd, v, func(w io.Writer) {
					fmt.Fprintf(w, "wrote %s (%s)\n", out, bytesText(uint64(size)))
					if next != "" {
						fmt.Fprintf(w, next, out)
					}
				})
			})
		},
	}
	cmd.Flags().StringVarP(&out, "out", "o", file, "file to write; one that is there is replaced")
	return cmd
}

// writeStream writes what r returns to a file, whole or not at all.
func writeStream(path string, r receiver) (size int64, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return 0, err
	}
	for {
		b, readErr := r()
		if errors.Is(readErr, io.EOF) {
			break
		}
		if err = readErr; err == nil {
			_, err = f.Write(b)
		}
		if err != nil {
			break
		}
		size += int64(len(b))
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return 0, errors.Join(fmt.Errorf("%s: %w", path, err), os.Remove(f.Name()))
	}
	return size, nil
}
