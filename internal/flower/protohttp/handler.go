package protohttp

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Media types of bodies.
const (
	unaryType  = "application/protobuf"
	streamType = "application/flower-protobuf-stream" // frames of a length in four bytes, big-endian, and a message
)

// Call is one call of an API. It is made by [Unary] and [Stream].
type Call func(ctx context.Context, body []byte, w *writer) error

// Unary is a call with one answer. Errors are gRPC statuses, so that one server answers
// in both of Flower's ways; any other is an internal error, whose text stays here.
func Unary[Q any, PQ interface {
	*Q
	proto.Message
}, R proto.Message](f func(context.Context, PQ) (R, error)) Call {
	return func(ctx context.Context, body []byte, w *writer) error {
		q := PQ(new(Q))
		if err := proto.Unmarshal(body, q); err != nil {
			return status.Error(codes.InvalidArgument, "the body is no message of this call")
		}
		answering := w.keepUp()
		r, err := f(ctx, q)
		answering()
		if err != nil {
			return err
		}
		return w.unary(r)
	}
}

// Stream is a call with several answers, which f gives to send.
func Stream[Q any, PQ interface {
	*Q
	proto.Message
}, R proto.Message](f func(ctx context.Context, q PQ, send func(R) error) error) Call {
	return func(ctx context.Context, body []byte, w *writer) error {
		q := PQ(new(Q))
		if err := proto.Unmarshal(body, q); err != nil {
			return status.Error(codes.InvalidArgument, "the body is no message of this call")
		}
		if err := f(ctx, q, func(r R) error { return w.frame(r) }); err != nil {
			return err
		}
		return w.begin(streamType) // there may have been no answer at all
	}
}

// API is some calls under one path.
type API struct {
	Path    string          // "/v1/control/"
	Calls   map[string]Call // by the last part of the path: "start-run"
	MaxBody int64           // bytes of a request
	// Guard says whether a request may make calls; nil allows all. Its errors are as a
	// call's.
	Guard func(*http.Request) error
	// Unknown is the error of a call that is not in Calls; nil: not found.
	Unknown func(call string) error
	Alive   time.Duration // between signs that a call goes on; 0: 10 s
	// AnyHost is set where callers come over TLS from elsewhere and show a secret: the
	// host then need not be an address of this machine.
	AnyHost bool
}

// Handler serves an API. Requests that a web page in a browser could make are refused:
// those with an Origin, and, without AnyHost, those for a host that is no address of this
// machine, which a name under somebody else's control may point to.
func Handler(a API) http.Handler {
	if a.Alive == 0 {
		a.Alive = 10 * time.Second
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := &writer{w: w, control: http.NewResponseController(w), alive: a.Alive}
		if err := a.serve(out, r); err != nil {
			out.fail(err)
		}
	})
}

// Fail answers a request with an error, as a call that returns it does.
func Fail(w http.ResponseWriter, err error) { (&writer{w: w}).fail(err) }

func (a *API) serve(w *writer, r *http.Request) error {
	if r.Header.Get("Origin") != "" || !a.AnyHost && !local(r.Host) {
		return status.Error(codes.PermissionDenied, "calls come from programs on this machine, for its own addresses")
	}
	name, ours := strings.CutPrefix(r.URL.Path, a.Path)
	if !ours || r.Method != http.MethodPost {
		return status.Errorf(codes.NotFound, "no call %.20s %.80s", r.Method, r.URL.Path)
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != unaryType {
		return errMedia
	}
	if a.Guard != nil {
		if err := a.Guard(r); err != nil {
			return err
		}
	}
	call, known := a.Calls[name]
	if !known {
		if a.Unknown != nil {
			return a.Unknown(name)
		}
		return status.Errorf(codes.Unimplemented, "no call %.80s", name)
	}
	_ = w.control.SetReadDeadline(time.Now().Add(bodyTime)) // not of a test's recorder
	body, err := io.ReadAll(http.MaxBytesReader(w.w, r.Body, a.MaxBody))
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return errLarge
	}
	if err != nil {
		return status.Error(codes.InvalidArgument, "the body did not come to its end")
	}
	_ = w.control.SetReadDeadline(time.Time{}) // a call may take its time
	return call(r.Context(), body, w)
}

// bodyTime is how long the body of a request may take: the largest hold a few dozen MiB.
const bodyTime = 5 * time.Minute

// local reports whether a Host header names this machine as such.
func local(host string) bool {
	name, _, _ := strings.Cut(host, ":")
	if rest, v6 := strings.CutPrefix(host, "["); v6 {
		name, _, _ = strings.Cut(rest, "]")
	}
	return name == "127.0.0.1" || name == "localhost" || name == "::1"
}

// What has no code of gRPC's.
var (
	errMedia = errors.New("content type is not " + unaryType)
	errLarge = errors.New("request is too large")
)

// httpStatus is what Flower's clients understand (flwr/supercore/error/catalog.py,
// flwr/supercore/retry/http_retry.py: 503 and 504 are tried again, 403 of a runtime call
// is the end of the run).
func httpStatus(err error) (int, string) {
	switch {
	case errors.Is(err, errMedia):
		return http.StatusUnsupportedMediaType, err.Error()
	case errors.Is(err, errLarge):
		return http.StatusRequestEntityTooLarge, err.Error()
	}
	s, ok := status.FromError(err)
	if !ok {
		return http.StatusInternalServerError, "internal error"
	}
	code, known := map[codes.Code]int{
		codes.InvalidArgument: http.StatusBadRequest, codes.Unauthenticated: http.StatusUnauthorized, codes.PermissionDenied: http.StatusForbidden,
		codes.NotFound: http.StatusNotFound, codes.FailedPrecondition: http.StatusPreconditionFailed, codes.ResourceExhausted: http.StatusTooManyRequests,
		codes.Unimplemented: http.StatusNotImplemented, codes.Unavailable: http.StatusServiceUnavailable, codes.DeadlineExceeded: http.StatusGatewayTimeout,
		codes.Canceled: http.StatusServiceUnavailable,
	}[s.Code()]
	if !known {
		code = http.StatusInternalServerError
	}
	return code, s.Message()
}

// writer writes one response.
type writer struct {
	w       http.ResponseWriter
	control *http.ResponseController
	alive   time.Duration
	begun   bool
}

// begin writes the header, once.
func (w *writer) begin(kind string) error {
	if w.begun {
		return nil
	}
	w.begun = true
	w.w.Header().Set("Content-Type", kind)
	w.w.WriteHeader(http.StatusOK)
	return nil
}

func (w *writer) unary(m proto.Message) error {
	b, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	if err := w.begin(unaryType); err != nil {
		return err
	}
	_, err = w.w.Write(b)
	return err
}

func (w *writer) frame(m proto.Message) error {
	b := make([]byte, 4, 512)
	b, err := proto.MarshalOptions{}.MarshalAppend(b, m)
	if err != nil {
		return err
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	if err := w.begin(streamType); err != nil {
		return err
	}
	if _, err := w.w.Write(b); err != nil {
		return err
	}
	return w.control.Flush()
}

// fail answers with an error. What has begun is cut off: the caller tries again, and gets
// the error then.
func (w *writer) fail(err error) {
	if w.begun {
		panic(http.ErrAbortHandler) // net/http's way to break a connection
	}
	code, text := httpStatus(err)
	b, _ := json.Marshal(map[string]string{"detail": text}) // a string always is JSON
	w.w.Header().Set("Content-Type", "application/json")
	w.w.WriteHeader(code)
	_, _ = w.w.Write(b) // the caller may be gone
}

// keepUp tells the caller now and then, by an interim response (RFC 9110, section 15.2),
// that its call goes on: Flower's clients give up after 30 s without a byte. It ends with
// the function that it returns, before which nobody else writes.
func (w *writer) keepUp() (end func()) {
	over, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(w.alive)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				w.w.WriteHeader(http.StatusProcessing)
			case <-over:
				return
			}
		}
	}()
	return func() { close(over); <-ended }
}
