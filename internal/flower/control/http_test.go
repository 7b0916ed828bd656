package control

import (
	"bytes"
	"encoding/binary"
	"io"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	flwr "github.com/concordat/concordat/api/flwr/proto"
)

// asCommand makes calls as the flwr command of 1.37 and later does.
type asCommand struct {
	t    *testing.T
	base string
}

func (c asCommand) post(call string, q proto.Message) (int, []byte) {
	c.t.Helper()
	b, err := proto.Marshal(q)
	if err != nil {
		c.t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(c.t.Context(), http.MethodPost, c.base+"/v1/control/"+call, bytes.NewReader(b))
	if err != nil {
		c.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/protobuf")
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return res.StatusCode, body
}

func (c asCommand) call(call string, q, into proto.Message) {
	c.t.Helper()
	code, body := c.post(call, q)
	if code != http.StatusOK {
		c.t.Fatalf("%s: %d: %s", call, code, body)
	}
	if err := proto.Unmarshal(body, into); err != nil {
		c.t.Fatal(err)
	}
}

// TestBothDialects: one address answers the commands of both, and they see the same runs.
func TestBothDialects(t *testing.T) {
	t.Parallel()
	s, old, conn := serve(t)
	c := asCommand{t, "http://" + conn.Target()}
	var started flwr.StartRunResponse
	c.call("start-run", request(t), &started)
	j := <-s.jobs
	j.Running()
	j.Print("one\ntwo")
	if r, err := old.ListRuns(t.Context(), &flwr.ListRunsRequest{}); err != nil || len(r.RunDict) != 1 || r.RunDict[started.GetRunId()].GetStatus().GetStatus() != "running" {
		t.Errorf("over gRPC: %v, %v", r, err)
	}
	var runs flwr.ListRunsResponse
	if c.call("list-runs", &flwr.ListRunsRequest{}, &runs); len(runs.RunDict) != 1 || runs.RunDict[started.GetRunId()].GetFabId() != "concordat/quickstart" {
		t.Errorf("over HTTP: %v", &runs)
	}
	s.end <- nil
	code, body := c.post("stream-logs", &flwr.StreamLogsRequest{RunId: started.GetRunId()})
	var text string
	for len(body) >= 4 {
		n := binary.BigEndian.Uint32(body)
		var m flwr.StreamLogsResponse
		if err := proto.Unmarshal(body[4:4+n], &m); err != nil {
			t.Fatal(err)
		}
		text, body = text+m.LogOutput, body[4+n:]
	}
	if code != 200 || len(body) != 0 || text != "one\ntwo\nRun completed.\n" {
		t.Errorf("log: %d, %q, %d bytes more", code, text, len(body))
	}
	var stopped flwr.StopRunResponse
	second := &flwr.StartRunResponse{}
	c.call("start-run", request(t), second)
	<-s.jobs
	if c.call("stop-run", &flwr.StopRunRequest{RunId: second.GetRunId()}, &stopped); !stopped.Success {
		t.Error("not stopped")
	}
	for call, x := range map[string]struct {
		q    proto.Message
		code int
		text string
	}{
		"stop-run":          {&flwr.StopRunRequest{RunId: 5}, 404, "Run ID not found"},
		"start-run":         {&flwr.StartRunRequest{AppSpec: "@a/b"}, 501, "hub"},
		"stream-logs":       {&flwr.StreamLogsRequest{RunId: 5}, 404, "Run ID not found"},
		"pull-artifacts":    {&flwr.PullArtifactsRequest{RunId: started.GetRunId()}, 404, "flwr log"},
		"show-federation":   {&flwr.ShowFederationRequest{FederationName: "@x/y"}, 404, "@concordat/test"},
		"get-login-details": {&flwr.ListNodesRequest{}, 501, "one local account"},
		"create-federation": {&flwr.ListNodesRequest{}, 501, "signatures"},
		"list-run-series":   {&flwr.ListNodesRequest{}, 501, "does not serve ListRunSeries: not a call of flwr"},
	} {
		if code, body := c.post(call, x.q); code != x.code || !strings.Contains(string(body), x.text) {
			t.Errorf("%s: %d, %s; want %d with %q", call, code, body, x.code, x.text)
		}
	}
}
