package admin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"handoff/internal/api"
)

// request asks the control socket, and returns the answer's status and body.
func (s *service) request(t *testing.T, method, path, body string) (int, string) {
	t.Helper()
	resp := s.open(t, method, path, body)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, strings.TrimSpace(string(b))
}

func (s *service) open(t *testing.T, method, path, body string) *http.Response {
	t.Helper()
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", s.path)
	}}
	req, err := http.NewRequest(method, "http://handoff"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// What each request asks of the master, and what is answered.
func TestRequests(t *testing.T) {
	runtimeDir(t)
	s := start(t, "web")
	for _, c := range []struct {
		method, path, body string
		call               string // of the master; "": it is not asked
		status             int
		answer             string
	}{
		{"GET", "/v1/config", "", "", 200, `{"file":"/srv/web/handoff.toml","schema":1}`},
		{"POST", "/v1/reload", "", "reload", 200, `{"generation":7}`},
		{"POST", "/v1/upgrade", "", "upgrade", 200, `{"upgraded":true}`},
		{"POST", "/v1/scale?workers=4", "", "scale 4 relative=false", 200, `{"workers":9}`},
		{"POST", "/v1/scale?by=%2B1", "", "scale 1 relative=true", 200, `{"workers":9}`},
		{"POST", "/v1/scale?by=-2", "", "scale -2 relative=true", 200, `{"workers":9}`},
		{"POST", "/v1/scale?workers=many", "", "", 400, `{"error":"invalid request: want ?workers=4, ?by=+1 or ?by=-1","code":"bad_request"}`},
		{"POST", "/v1/scale", "", "", 400, `{"error":"invalid request: want ?workers=4, ?by=+1 or ?by=-1","code":"bad_request"}`},
		{"POST", "/v1/stop", "", "stop now=false", 200, `{"stopping":true}`},
		{"POST", "/v1/stop?now=1", "", "stop now=true", 200, `{"stopping":true}`},
		{"POST", "/v1/slots/3/restart", "", "restart 3", 200, `{"worker":12}`},
		{"POST", "/v1/slots/x/restart", "", "", 400, `{"error":"invalid request: \"x\" is not a slot number","code":"bad_request"}`},
		{"POST", "/v1/balance?to=sticky", "", "balance sticky", 200, `{"balance":"sticky"}`},
		{"POST", "/v1/balance?to=shared", "", "", 400, `{"error":"invalid request: want ?to=even or ?to=sticky","code":"bad_request"}`},
		{"POST", "/v1/freeze", "", "freeze", 200, `{"frozen":true}`},
		{"POST", "/v1/workers/5/message", `{"a":1}`, `send 5 {"a":1}`, 200, `{"sent":true}`},
		{"POST", "/v1/workers/x/message", `{"a":1}`, "", 400, `{"error":"invalid request: \"x\" is not a worker number","code":"bad_request"}`},
		{"POST", "/v1/workers/5/message", `{"a":`, "", 400, `{"error":"invalid request: want a message as JSON, of at most 1048576 bytes","code":"bad_request"}`},
		{"POST", "/v1/workers/5/message", `"` + strings.Repeat("a", maxMessage-2) + `"`, `send 5 "aaaaaaaaaaaaaaaaaaa`, 200, `{"sent":true}`},
		{"POST", "/v1/workers/5/message", `"` + strings.Repeat("a", maxMessage-1) + `"`, "", 400, `{"error":"invalid request: want a message as JSON, of at most 1048576 bytes","code":"bad_request"}`},
		{"POST", "/v1/workers/5/signal?name=USR1", "", "signal 5 USR1", 200, `{"sent":true}`},
		{"POST", "/v1/workers/-/signal", "", "", 400, `{"error":"invalid request: \"-\" is not a worker number","code":"bad_request"}`},
		{"POST", "/v1/worker-events/status", "", "publish status", 200, `{"told":true}`},
		{"POST", "/v1/told/status", "", "publish status", 200, `{"told":true}`},
		{"GET", "/v1/nonsense", "", "", 404, `{"error":"unknown request GET /v1/nonsense; see /v1/status","code":"unknown_route"}`},
		{"GET", "/v1/reload", "", "", 404, `{"error":"unknown request GET /v1/reload; see /v1/status","code":"unknown_route"}`},
	} {
		status, answer := s.request(t, c.method, c.path, c.body)
		if call := s.took(); status != c.status || answer != c.answer || call != c.call {
			t.Errorf("%s %s: %d %s, called %q; want %d %s, %q", c.method, c.path, status, answer, call, c.status, c.answer, c.call)
		}
	}
}

// Every route that is documented is served, and no other.
func TestRoutes(t *testing.T) {
	handlers := (&server{}).handlers()
	for _, r := range api.Routes() {
		if handlers[r.Pattern] == nil || r.Text == "" {
			t.Errorf("%s is documented, and not served, or the other way round", r.Pattern)
		}
		delete(handlers, r.Pattern)
	}
	for pattern := range handlers {
		t.Errorf("%s is not documented", pattern)
	}
}

// The status has the memory and processor time of the workers' process groups.
func TestStatus(t *testing.T) {
	runtimeDir(t)
	s := start(t, "web")
	group := unix.Getpgrp()
	s.answers(nil, api.Status{Schema: 1, Workers: []api.WorkerStatus{{PID: group}, {Slot: 1, PID: -1}}})
	client, err := Find("web")
	if err != nil {
		t.Fatal(err)
	}
	got, err := client.Status()
	if err != nil || len(got.Workers) != 2 || got.Workers[0].RSS < 1<<20 || got.Workers[1].RSS != 0 {
		t.Errorf("%+v, %v", got, err)
	}
}

// What the master refuses has its code and text, and a status that says whether to ask
// again.
func TestRefusals(t *testing.T) {
	runtimeDir(t)
	s := start(t, "web")
	for _, c := range []struct {
		err    error
		status int
		answer string
	}{
		{api.Errorf(api.CodeUnknownSlot, "there is no slot 9"), 409, `{"error":"there is no slot 9","code":"unknown_slot"}`},
		{fmt.Errorf("cannot restart: %w", api.Errorf(api.CodeStopping, "the service is stopping")), 409, `{"error":"the service is stopping","code":"stopping"}`},
		{errors.New("something else"), 409, `{"error":"something else","code":"failed"}`},
		{api.Error{Code: api.CodeEnded, Message: "the master has ended"}, 503, `{"error":"the master has ended","code":"ended"}`},
		{context.DeadlineExceeded, 503, `{"error":"context deadline exceeded","code":"timeout"}`},
	} {
		s.answers(c.err, api.Status{})
		for _, path := range []string{"/v1/reload", "/v1/upgrade", "/v1/stop", "/v1/slots/9/restart"} {
			if status, answer := s.request(t, "POST", path, ""); status != c.status || answer != c.answer {
				t.Errorf("%v: %d %s, want %d %s", c.err, status, answer, c.status, c.answer)
			}
		}
	}
}

// lines reads n lines of an answer.
func lines(t *testing.T, r *bufio.Reader, n int) []string {
	t.Helper()
	var got []string
	for range n {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("%v, after %q", err, got)
		}
		got = append(got, strings.TrimSuffix(line, "\n"))
	}
	return got
}

func TestStreams(t *testing.T) {
	runtimeDir(t)
	s := start(t, "web")
	for i := range 5 {
		fmt.Fprintf(s.Events, "{\"n\":%d}\n", i)
	}
	fmt.Fprintf(s.Output, "{\"line\":\"hello\"}\n")
	for _, c := range []struct{ path, answer string }{
		{"/v1/events", "{\"n\":0}\n{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n{\"n\":4}"},
		{"/v1/events?last=2", "{\"n\":3}\n{\"n\":4}"},
		{"/v1/events?last=0", ""},
		{"/v1/events?last=x", `{"error":"invalid request: last: want a number of lines","code":"bad_request"}`},
		{"/v1/events?last=-1", `{"error":"invalid request: last: want a number of lines","code":"bad_request"}`},
		{"/v1/logs", `{"line":"hello"}`},
	} {
		if _, answer := s.request(t, "GET", c.path, ""); answer != c.answer {
			t.Errorf("%s: %s, want %s", c.path, answer, c.answer)
		}
	}
	resp := s.open(t, "GET", "/v1/events?follow=1&last=1", "")
	defer resp.Body.Close()
	r := bufio.NewReader(resp.Body)
	got := lines(t, r, 1) // it follows
	fmt.Fprintf(s.Events, "{\"n\":5}\n")
	if got = append(got, lines(t, r, 1)...); !slices.Equal(got, []string{`{"n":4}`, `{"n":5}`}) || resp.Header.Get("Content-Type") != "application/jsonl" {
		t.Errorf("%v %q", resp.Header, got)
	}
	s.stop(false)
	if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
		t.Errorf("a stream does not end well with its master: %v, %q", err, rest)
	}
}

func TestNotRecorded(t *testing.T) {
	runtimeDir(t)
	s := start(t, "web", func(a *About) { a.Output, a.WorkerEvents = nil, nil })
	for _, c := range []struct{ path, code string }{{"/v1/logs", "not_captured"}, {"/v1/worker-events", "not_embedded"}, {"/v1/told", "not_embedded"}} {
		if status, answer := s.request(t, "GET", c.path, ""); status != 409 || !strings.Contains(answer, `"code":"`+c.code+`"`) {
			t.Errorf("%s: %d %s", c.path, status, answer)
		}
	}
}

// Worker events go on where the reader was, if the numbers are this master's.
func TestWorkerEvents(t *testing.T) {
	runtimeDir(t)
	s := start(t, "web")
	fmt.Fprintln(s.WorkerEvents, "a")
	fmt.Fprintln(s.WorkerEvents, "b")
	resp := s.open(t, "GET", "/v1/worker-events", "")
	defer resp.Body.Close()
	id := resp.Header.Get("Handoff-Master")
	r := bufio.NewReader(resp.Body)
	got := lines(t, r, 2)
	fmt.Fprintln(s.WorkerEvents, "c")
	if got = append(got, lines(t, r, 1)...); !slices.Equal(got, []string{"1 a", "2 b", "3 c"}) || id == "" {
		t.Errorf("%v %q", resp.Header, got)
	}
	for _, c := range []struct {
		path, want string
	}{
		{"/v1/worker-events?after=2&of=" + id, "3 c"},
		{"/v1/told?after=2&of=" + id, "3 c"},
		{"/v1/worker-events?after=2&of=another", "1 a"},
	} {
		resp := s.open(t, "GET", c.path, "")
		defer resp.Body.Close()
		if got := lines(t, bufio.NewReader(resp.Body), 1); got[0] != c.want {
			t.Errorf("%s: %q, want %q", c.path, got, c.want)
		}
	}
	s.stop(false)
	if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
		t.Errorf("%v, %q", err, rest)
	}
}

// The socket's file goes with the service, and stays for the next master.
func TestStop(t *testing.T) {
	dir := runtimeDir(t)
	for _, follows := range []bool{true, false} {
		s := start(t, "web")
		s.stop(follows)
		_, err := os.Stat(filepath.Join(dir, "web.sock"))
		if left := err == nil; left != follows {
			t.Errorf("follows=%v: %v", follows, err)
		}
	}
}
