package worker

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"testing"
	"time"
)

const testTimeout = 20 * time.Second

// site is a server in this process whose drain is the test's.
type site struct {
	t    *testing.T
	w    *Worker
	addr string
	done chan error // what ServeHTTP returned
}

func serve(t *testing.T, linger time.Duration, srv *http.Server, secure bool) *site {
	t.Helper()
	s := &site{t: t, w: &Worker{linger: linger, draining: make(chan struct{})}, done: make(chan error, 1)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	if secure {
		ts := httptest.NewUnstartedServer(nil) // for its certificate
		ts.StartTLS()
		ts.Close()
		srv.TLSConfig = &tls.Config{Certificates: ts.TLS.Certificates, NextProtos: []string{"h2", "http/1.1"}}
		go func() { s.done <- s.w.ServeHTTPS(srv, l, "", "") }()
	} else {
		go func() { s.done <- s.w.ServeHTTP(srv, l) }()
	}
	return s
}

func (s *site) drain() { close(s.w.draining) }

func (s *site) ended() {
	s.t.Helper()
	select {
	case err := <-s.done:
		if err != nil {
			s.t.Error(err)
		}
	case <-time.After(testTimeout):
		s.t.Fatal("ServeHTTP does not return")
	}
}

// wire is a client's connection, byte by byte.
type wire struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

func (s *site) dial() *wire {
	s.t.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(testTimeout))
	return &wire{s.t, c, bufio.NewReader(c)}
}

func (c *wire) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		c.t.Fatal(err)
	}
}

func (c *wire) answer() *http.Response {
	c.t.Helper()
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	io.Copy(io.Discard, resp.Body)
	return resp
}

func (c *wire) closed() {
	c.t.Helper()
	if b, err := c.r.ReadByte(); err != io.EOF {
		c.t.Errorf("read %q, %v; want the end", b, err)
	}
}

const get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

func ok(rw http.ResponseWriter, _ *http.Request) { io.WriteString(rw, "ok") }

// A connection that is idle when the drain begins may still send a request; it
// is answered, and told that it was the last.
func TestRequestAfterTheDrain(t *testing.T) {
	s := serve(t, time.Hour, &http.Server{Handler: http.HandlerFunc(ok)}, false)
	kept, fresh, half := s.dial(), s.dial(), s.dial()
	kept.send(get)
	if resp := kept.answer(); resp.Close {
		t.Error("closed before the drain")
	}
	half.send("GET / HT") // accepted and half read
	probe := s.dial()
	probe.send(get)
	probe.answer()
	s.drain()
	for {
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			break // the listener is closed
		}
		c.Close()
	}
	half.send("TP/1.1\r\nHost: a\r\n\r\n")
	kept.send(get)
	fresh.send(get) // accepted, and nothing sent until now
	probe.send(get)
	for _, c := range []*wire{kept, fresh, half, probe} {
		if resp := c.answer(); !resp.Close || resp.StatusCode != 200 {
			t.Errorf("%+v", resp)
		}
		c.closed()
	}
	s.ended()
}

// One that sends nothing is closed after the linger, and not before.
func TestIdleIsClosedAfterTheLinger(t *testing.T) {
	s := serve(t, 300*time.Millisecond, &http.Server{Handler: http.HandlerFunc(ok)}, false)
	kept, fresh := s.dial(), s.dial()
	kept.send(get)
	kept.answer()
	began := time.Now()
	s.drain()
	kept.closed()
	fresh.closed()
	if took := time.Since(began); took < 300*time.Millisecond {
		t.Errorf("closed after %v, the linger is 300 ms", took)
	}
	s.ended()
}

// What was under way when the drain began is finished; its connection, which
// was not told, may send one more.
func TestUnderWay(t *testing.T) {
	in, out := make(chan struct{}), make(chan struct{})
	s := serve(t, time.Hour, &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			rw.(http.Flusher).Flush() // its headers are out before the drain
			close(in)
			<-out
		}
		io.WriteString(rw, "ok")
	})}, false)
	c := s.dial()
	c.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
	<-in
	s.drain()
	close(out)
	c.answer()
	c.send(get)
	if resp := c.answer(); !resp.Close {
		t.Error("not told to go")
	}
	c.closed()
	s.ended()
}

// A hijacked connection is awaited, and told by the hooks of the server and by
// Draining.
func TestHijacked(t *testing.T) {
	hooked := make(chan struct{})
	var s *site
	ready := make(chan struct{})
	srv := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		c, _, err := rw.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		<-ready
		io.WriteString(c, "up\n")
		go func() {
			defer c.Close()
			<-s.w.Draining()
			<-hooked
			io.WriteString(c, "bye\n")
		}()
	})}
	srv.RegisterOnShutdown(func() { close(hooked) })
	s = serve(t, time.Millisecond, srv, false)
	close(ready)
	c := s.dial()
	c.send(get)
	if line, _ := c.r.ReadString('\n'); line != "up\n" {
		t.Fatalf("%q", line)
	}
	s.drain()
	if line, _ := c.r.ReadString('\n'); line != "bye\n" {
		t.Fatalf("%q", line)
	}
	c.closed()
	s.ended()
}

// In HTTP/2 the answer to the first request of the drain is followed by a GOAWAY:
// the client's next request makes a new connection.
func TestHTTP2(t *testing.T) {
	in, out := make(chan struct{}), make(chan struct{})
	s := serve(t, time.Hour, &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(in)
			<-out
		}
		fmt.Fprint(rw, r.Proto)
	})}, true)
	client := &http.Client{Timeout: testTimeout, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}}
	reused := func(path string) (body string, was bool, err error) {
		ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { was = i.Reused }})
		req, _ := http.NewRequestWithContext(ctx, "GET", "https://"+s.addr+path, nil)
		resp, err := client.Do(req)
		if err != nil {
			return "", was, err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return string(b), was, err
	}
	slow := make(chan error, 1)
	if body, _, err := reused("/"); err != nil || body != "HTTP/2.0" {
		t.Fatalf("%q, %v", body, err)
	}
	go func() {
		_, _, err := reused("/slow")
		slow <- err
	}()
	<-in
	s.drain()
	for { // until the listener is closed, so that a new connection is refused
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			break
		}
		c.Close()
	}
	if body, was, err := reused("/"); err != nil || !was || body != "HTTP/2.0" {
		t.Fatalf("after the drain: %q, reused %v, %v", body, was, err)
	}
	var refused *net.OpError
	for deadline := time.Now().Add(testTimeout); ; {
		_, _, err := reused("/")
		if errors.As(err, &refused) && strings.Contains(err.Error(), "refused") {
			break
		}
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("want the client to make a new connection after GOAWAY, got %v", err)
		}
	}
	close(out)
	if err := <-slow; err != nil {
		t.Errorf("what was under way: %v", err)
	}
	s.ended()
}

// A server that cannot serve says so, and is not drained.
func TestServeFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	w := &Worker{draining: make(chan struct{})}
	if err := w.ServeHTTP(&http.Server{}, l); err == nil {
		t.Error("no error")
	}
}
