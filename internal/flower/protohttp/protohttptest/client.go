// Package protohttptest is a caller of protohttp for tests, as Flower's own are: with the
// headers that they send, and errors as the gRPC statuses that they stand for.
package protohttptest

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Client calls a server.
type Client struct {
	Base  string // such as "http://127.0.0.1:8000/v1/control/"
	Token string // of an app process; empty: none is sent
	HTTP  http.Client
}

var fromHTTP = map[int]codes.Code{
	400: codes.InvalidArgument, 401: codes.Unauthenticated, 403: codes.PermissionDenied, 404: codes.NotFound, 412: codes.FailedPrecondition,
	429: codes.ResourceExhausted, 500: codes.Internal, 501: codes.Unimplemented, 503: codes.Unavailable, 504: codes.DeadlineExceeded,
}

// Post sends a request and returns the answer, or the error that it holds.
func (c *Client) Post(ctx context.Context, path string, q proto.Message) (*http.Response, error) {
	b, err := proto.Marshal(q)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.Base+path, bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/protobuf")
	r.Header.Set("flwr-package-version", "1.42.0")
	if c.Token != "" {
		r.Header.Set("flwr-task-token", c.Token)
	}
	a, err := c.HTTP.Do(r)
	if err != nil || a.StatusCode < 400 {
		return a, err
	}
	defer a.Body.Close()
	var said struct{ Detail *string }
	if err := json.NewDecoder(a.Body).Decode(&said); err != nil || said.Detail == nil {
		return nil, fmt.Errorf("status %d without a detail: %w", a.StatusCode, err)
	}
	code, ok := fromHTTP[a.StatusCode]
	if !ok {
		code = codes.Unknown
	}
	return nil, status.Error(code, *said.Detail)
}

// Call makes a unary call and reads its answer into r.
func (c *Client) Call(ctx context.Context, path string, q, r proto.Message) error {
	a, err := c.Post(ctx, path, q)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	if err != nil {
		return err
	}
	if t := a.Header.Get("Content-Type"); t != "application/protobuf" {
		return fmt.Errorf("answer of type %q", t)
	}
	return proto.Unmarshal(b, r)
}

// Frames returns the next message of a streamed answer, or io.EOF.
func Frames(body io.Reader) func(r proto.Message) error {
	return func(r proto.Message) error {
		var n [4]byte
		if _, err := io.ReadFull(body, n[:]); err != nil {
			return err
		}
		b := make([]byte, binary.BigEndian.Uint32(n[:]))
		if _, err := io.ReadFull(body, b); err != nil {
			return fmt.Errorf("frame of %d bytes: %w", len(b), err)
		}
		return proto.Unmarshal(b, r)
	}
}
