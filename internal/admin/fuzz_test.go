package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"handoff/internal/api"
	"handoff/internal/logging"
)

// Whatever is asked of the control socket, the answer is JSON (or lines) with a status that
// the API has, the master is called at most once, by a request that may change something,
// and with numbers that were said.
func FuzzControl(f *testing.F) {
	for _, r := range api.Routes() {
		method, path, _ := strings.Cut(r.Pattern, " ")
		path = strings.NewReplacer("{slot}", "1", "{worker}", "2").Replace(path)
		f.Add(method, path, "last=5&now=1&workers=4&by=-1&to=sticky&name=TERM&after=1", []byte(`{"a": 1}`))
	}
	f.Add("GET", "/v1/status", "", []byte{})
	f.Add("POST", "/v1/slots/-1/restart", "a=%zz", []byte("{"))
	f.Add("POST", "/v1/workers/99999999999999999999/message", ";", []byte("1"))
	f.Add("POST", "/v1/../v1//stop", "now=1", []byte{})
	f.Add("POST", "/v1/scale", "workers=-9223372036854775808", []byte("workers=5"))
	f.Fuzz(func(t *testing.T, method, path, query string, body []byte) {
		c := &script{}
		s := &server{control: c, id: "1-x", ending: make(chan struct{}), about: About{Events: &logging.Events{}, Output: &logging.Events{},
			Config: func() any { return map[string]any{"schema": 1} }, Log: slog.New(slog.DiscardHandler)}}
		close(s.ending) // streams end
		s.about.Events.Write([]byte("{}\n"))
		req := &http.Request{Method: method, URL: &url.URL{Path: path, RawQuery: query}, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)), Host: "handoff"}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		rw := httptest.NewRecorder()
		s.mux().ServeHTTP(rw, req.WithContext(ctx))
		calls := c.took()
		if strings.Contains(calls, ";") || calls != "" && calls != "status" && method != "POST" {
			t.Errorf("%s %q?%q: called %q", method, path, query, calls)
		}
		if calls != "" && !strings.HasPrefix(path, "/v1/") {
			t.Errorf("%q: called %q", path, calls)
		}
		known := []int{200, 301, 307, 400, 404, 405, 409, 500, 503}
		if !slices.Contains(known, rw.Code) || rw.Code == 500 {
			t.Errorf("%s %q?%q: %d %s", method, path, query, rw.Code, rw.Body)
		}
		if rw.Header().Get("Content-Type") == "application/json" && !json.Valid(rw.Body.Bytes()) {
			t.Errorf("%s %q?%q: %q", method, path, query, rw.Body)
		}
	})
}

// Bytes that a stranger sends to --admin: the connection ends, or waits for more; what is
// answered is HTTP, nothing is called without the token, and nothing but the metrics.
func FuzzAdmin(f *testing.F) {
	for _, s := range []string{"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", "GET /metrics HTTP/1.0\r\nAuthorization: Bearer 0123456789abcdef\r\n\r\n", "POST /readyz HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabcde",
		"GET http://evil/livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "GET /../livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /readyz HTTP/1.1\r\nHost: x\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\x16\x03\x01\x00\xa5\x01", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n"} {
		f.Add([]byte(s), "0123456789abcdef")
		f.Add([]byte(s), "")
	}
	f.Fuzz(func(t *testing.T, request []byte, token string) {
		if len(request) > 64<<10 {
			return
		}
		c := &script{}
		l := &one{conns: make(chan net.Conn, 1), closed: make(chan struct{})}
		ours, theirs := net.Pipe()
		l.conns <- theirs
		stop := Public{Token: token}.Serve(l, c, slog.New(slog.DiscardHandler))
		answer := make(chan []byte, 1)
		go func() { // ends with the connection
			b, _ := io.ReadAll(ours)
			answer <- b
		}()
		ours.SetWriteDeadline(time.Now().Add(10 * time.Second))
		ours.Write(request)
		// What follows ends the last request, or is one that cannot be.
		fmt.Fprint(ours, "\r\n\r\n\x00\r\n\r\n")
		ours.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		b := <-answer
		ours.Close()
		stop()
		for call := range strings.SplitSeq(c.took(), "; ") {
			if call != "" && call != "metrics" {
				t.Errorf("%q: called %q", request, call)
			}
			if call != "" && token != "" && !bytes.Contains(request, []byte(token)) {
				t.Errorf("%q: without the token: %q", request, b)
			}
		}
		if len(b) > 0 && !bytes.HasPrefix(b, []byte("HTTP/1.")) {
			t.Errorf("%q: %q", request, b)
		}
	})
}

// one is a listener with one connection.
type one struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (l *one) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
func (l *one) Close() error   { close(l.closed); return nil }
func (l *one) Addr() net.Addr { return &net.TCPAddr{} }

// A service's name is a file in the folder of sockets, and no option.
func FuzzName(f *testing.F) {
	for _, s := range []string{"web", "../web", "-f", ".", "a/b", "x.sock", "a\x00", "é"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if CheckName(name) == nil && (filepath.Base(name) != name || !filepath.IsLocal(name) || strings.ContainsAny(name, "/\x00 \n*?[") || len(name) > 64) {
			t.Errorf("%q", name)
		}
	})
}

func FuzzCheckAddr(f *testing.F) {
	for _, s := range []string{"127.0.0.1:9100", "localhost:1", "[::1]:1", "0.0.0.0:1", ":1", "[::ffff:127.0.0.1]:1", "127.1:80", "[::ffff:10.0.0.1]:1", "localhost.evil:1", "0:1", "[::1%lo]:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, addr string) {
		if CheckAddr(addr, false) != nil {
			return
		}
		host, _, err := net.SplitHostPort(addr)
		if ip := net.ParseIP(host); err != nil || host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			t.Errorf("%q is taken for loopback", addr)
		}
	})
}
