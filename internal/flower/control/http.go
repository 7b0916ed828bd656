package control

import (
	"net/http"
	"strings"

	"google.golang.org/grpc"

	flwr "github.com/concordat/concordat/api/flwr/proto"
	"github.com/concordat/concordat/internal/flower/protohttp"
)

// path is where dialect C has its calls (flwr/supercore/control/control_http_client.py).
const path = "/v1/control/"

// handler answers both dialects: gRPC is HTTP/2, which its clients begin with at once, and
// the commands of flwr 1.37 and later speak HTTP/1.1.
func handler(v *server) http.Handler {
	g := grpc.NewServer(grpc.MaxRecvMsgSize(maxRequest), grpc.UnknownServiceHandler(unknown))
	flwr.RegisterControlServer(g, v)
	c := protohttp.Handler(protohttp.API{Path: path, MaxBody: maxRequest, Calls: v.calls(), AnyHost: v.login != nil,
		Unknown: func(call string) error { return notServed(camel(call)) }})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 {
			g.ServeHTTP(w, r) // which refuses what is not gRPC
			return
		}
		c.ServeHTTP(w, r)
	})
}

// calls are those of dialect C: their messages are the other's, with fields added.
func (v *server) calls() map[string]protohttp.Call {
	return map[string]protohttp.Call{
		"start-run":        protohttp.Unary(v.StartRun),
		"stop-run":         protohttp.Unary(v.StopRun),
		"stream-logs":      protohttp.Stream(v.streamLogs),
		"list-runs":        protohttp.Unary(v.ListRuns),
		"pull-artifacts":   protohttp.Unary(v.PullArtifacts),
		"list-nodes":       protohttp.Unary(v.ListNodes),
		"list-federations": protohttp.Unary(v.ListFederations),
		"show-federation":  protohttp.Unary(v.ShowFederation),

		"get-login-details":   protohttp.Unary(v.GetLoginDetails),
		"get-auth-tokens":     protohttp.Unary(v.GetAuthTokens),
		"refresh-auth-tokens": protohttp.Unary(v.RefreshAuthTokens),
	}
}

// camel gives a call of dialect C the name that it has in the other: "start-run" is
// StartRun.
func camel(call string) string {
	var b strings.Builder
	for _, word := range strings.Split(call, "-") {
		if word != "" {
			b.WriteString(strings.ToUpper(word[:1]) + word[1:])
		}
	}
	return b.String()
}
