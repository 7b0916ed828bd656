package control

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	flwr "github.com/concordat/concordat/api/flwr/proto"
	"github.com/concordat/concordat/internal/flower/control/auth"
	"github.com/concordat/concordat/internal/flower/protohttp"
)

// Where the flwr command shows its tokens: that over gRPC in two headers, in which it also
// looks for new ones (flwr/common/constant.py, cli/cli_account_auth_interceptor.py); that
// over HTTP only the first, as a bearer (RFC 6750).
const (
	accessHeader  = "Flwr-Oidc-Access-Token"
	refreshHeader = "Flwr-Oidc-Refresh-Token"
	bearer        = "Bearer "
)

// Bounds of the body of a call that strangers may make.
const (
	maxLogin  = 64 << 10
	loginTime = 10 * time.Second
)

// open are the paths of the calls by which accounts log in.
var open = map[string]bool{
	flwr.Control_GetLoginDetails_FullMethodName: true, flwr.Control_GetAuthTokens_FullMethodName: true,
	path + "get-login-details": true, path + "get-auth-tokens": true, path + "refresh-auth-tokens": true,
}

type callerKey struct{}

// caller is the account that the gate found. There is no other way to one.
func caller(ctx context.Context) (auth.Account, error) {
	a, ok := ctx.Value(callerKey{}).(auth.Account)
	if !ok {
		return auth.Account{}, refusal(auth.ErrToken)
	}
	return a, nil
}

// gate lets requests through to h with the account that they are verified to be of, before
// a byte of their bodies is read.
func (l *Listener) gate(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if l.login == nil {
			h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, auth.Local())))
			return
		}
		if open[r.URL.Path] {
			if err := readAll(w, r); err != nil {
				deny(w, r, err)
				return
			}
			h.ServeHTTP(w, r)
			return
		}
		a, err := l.account(w, r)
		if err != nil {
			deny(w, r, refusal(err))
			return
		}
		h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, a)))
	})
}

// readAll reads a stranger's body, which is short and comes at once.
func readAll(w http.ResponseWriter, r *http.Request) error {
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(time.Now().Add(loginTime)) // net/http's writers have deadlines
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxLogin))
	if err != nil {
		return status.Error(codes.InvalidArgument, "the body is too large, or did not come to its end")
	}
	_ = c.SetReadDeadline(time.Time{})
	r.Body = io.NopCloser(bytes.NewReader(b))
	return nil
}

// account verifies what a request shows. That over gRPC is refreshed where it has to be,
// and the new tokens are in the response.
func (l *Listener) account(w http.ResponseWriter, r *http.Request) (auth.Account, error) {
	if r.ProtoMajor == 1 {
		token, ok := strings.CutPrefix(r.Header.Get("Authorization"), bearer)
		if !ok {
			return auth.Account{}, auth.ErrToken
		}
		return l.login.Verify(r.Context(), auth.Token(token))
	}
	a, err := l.login.Verify(r.Context(), auth.Token(r.Header.Get(accessHeader)))
	refresh := auth.Token(r.Header.Get(refreshHeader))
	if !errors.Is(err, auth.ErrToken) || refresh == "" {
		return a, err
	}
	t, a, err := l.login.Refresh(r.Context(), refresh)
	if err != nil {
		return auth.Account{}, err
	}
	w.Header().Set(accessHeader, string(t.Access))
	w.Header().Set(refreshHeader, string(t.Refresh))
	return a, nil
}

// refusal is what a caller is told. Flower's command answers Unauthenticated with the
// advice to log in.
func refusal(err error) error {
	for _, x := range []struct {
		is   error
		code codes.Code
	}{
		{auth.ErrToken, codes.Unauthenticated}, {auth.ErrDenied, codes.PermissionDenied}, {auth.ErrEnded, codes.FailedPrecondition},
		{auth.ErrBusy, codes.ResourceExhausted}, {auth.ErrProvider, codes.Unavailable},
	} {
		if errors.Is(err, x.is) {
			return status.Error(x.code, err.Error())
		}
	}
	return status.FromContextError(err).Err()
}

// deny answers a request that does not come through the gate.
func deny(w http.ResponseWriter, r *http.Request, err error) {
	s := status.Convert(err)
	if r.ProtoMajor == 1 {
		if s.Code() == codes.Unauthenticated {
			w.Header().Set("WWW-Authenticate", "Bearer") // word for word: the command then refreshes
		}
		protohttp.Fail(w, err)
		return
	}
	// A response of trailers alone (PROTOCOL-HTTP2.md of gRPC).
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Grpc-Status", strconv.Itoa(int(s.Code())))
	w.Header().Set("Grpc-Message", strings.ReplaceAll(url.QueryEscape(s.Message()), "+", "%20"))
	w.WriteHeader(http.StatusOK)
}

// GetLoginDetails begins a login.
func (v *server) GetLoginDetails(ctx context.Context, _ *flwr.GetLoginDetailsRequest) (*flwr.GetLoginDetailsResponse, error) {
	if v.login == nil {
		return nil, notServed("GetLoginDetails")
	}
	b, err := v.login.Begin(ctx)
	if err != nil {
		return nil, refusal(err)
	}
	return &flwr.GetLoginDetailsResponse{AuthnType: "oidc", DeviceCode: string(b.Handle), VerificationUriComplete: b.Address,
		ExpiresIn: int64(b.Expires.Seconds()), Interval: int64(b.Interval.Seconds())}, nil
}

// GetAuthTokens is empty until the user has approved the login.
func (v *server) GetAuthTokens(ctx context.Context, q *flwr.GetAuthTokensRequest) (*flwr.GetAuthTokensResponse, error) {
	if v.login == nil {
		return nil, notServed("GetAuthTokens")
	}
	t, err := v.login.Poll(ctx, auth.Token(q.GetDeviceCode()))
	if errors.Is(err, auth.ErrPending) {
		return &flwr.GetAuthTokensResponse{}, nil
	}
	if err != nil {
		return nil, refusal(err)
	}
	return &flwr.GetAuthTokensResponse{AccessToken: string(t.Access), RefreshToken: string(t.Refresh)}, nil
}

// RefreshAuthTokens is the way of the command over HTTP to new tokens.
func (v *server) RefreshAuthTokens(ctx context.Context, q *flwr.RefreshAuthTokensRequest) (*flwr.RefreshAuthTokensResponse, error) {
	if v.login == nil {
		return nil, notServed("RefreshAuthTokens")
	}
	t, _, err := v.login.Refresh(ctx, auth.Token(q.GetRefreshToken()))
	if err != nil {
		return nil, refusal(err)
	}
	return &flwr.RefreshAuthTokensResponse{AccessToken: string(t.Access), RefreshToken: string(t.Refresh)}, nil
}
