package relay

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"
)

// server is net/http with what a program may do in an answer.
func server(t *testing.T) net.Listener {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprintln(w, n, err, r.Method, r.RequestURI, r.Proto, r.TransferEncoding, r.ContentLength, r.Trailer, r.Header)
	})
	mux.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		for i := range 3 {
			fmt.Fprintln(w, i)
			w.(http.Flusher).Flush()
		}
		w.Header().Set("X-Sum", "3")
	})
	mux.HandleFunc("/hints", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusProcessing)
		io.WriteString(w, "then")
	})
	mux.HandleFunc("/none", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("/unread", func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no", http.StatusRequestEntityTooLarge) })
	mux.HandleFunc("/large", func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, 3<<20)) })
	mux.HandleFunc("/close", func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Connection", "close") })
	mux.HandleFunc("/abort", func(w http.ResponseWriter, r *http.Request) {
		w.Write(make([]byte, 100))
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	mux.HandleFunc("/upgrade", func(w http.ResponseWriter, r *http.Request) {
		c, b, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		io.Copy(c, b)
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: mux}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return l
}

// exchanged sends all of it, ends its side after the last byte, and returns what came back.
func exchanged(t *testing.T, l net.Listener, send string) string {
	t.Helper()
	c := dial(t, l)
	go func() {
		io.WriteString(c, send)
		c.CloseWrite()
	}()
	b, err := io.ReadAll(c)
	c.Close()
	if err != nil {
		b = append(b, err.Error()...)
	}
	return regexp.MustCompile(`Date: [^\r]*`).ReplaceAllString(string(b), "Date: D")
}

// What comes back through the relay is what comes back without it, but for Connection: close.
func TestAsBare(t *testing.T) {
	bare := server(t)
	through, _ := relayed(t, bare)
	large := strings.Repeat("x", 1<<20)
	for _, send := range []string{
		"GET /echo HTTP/1.1\r\nhost: a\r\nuser-agent:\r\nx-a: 1\r\nX-A: 2\r\n\r\n",
		"HEAD /large HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /large HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /stream HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n",
		"GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
		"GET /stream HTTP/1.0\r\n\r\n",
		"GET /hints HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /none HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /close HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /missing HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
		"GET http://other/echo HTTP/1.1\r\nHost: a\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
		"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1048576\r\n\r\n" + large,
		"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n100000\r\n" + large + "\r\n0\r\nX-T: 1\r\n\r\n",
		"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc",
		"POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc",
		"POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n" + large[:1000],
		"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab", // and no more
		"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
		"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc",
		"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\nabc",
		"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nno\r\n",
		"GET /echo HTTP/1.1\r\nHost : a\r\n\r\n",
		"GET /echo HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
		"GET /echo HTTP/1.1\r\n\r\n",
		"GET /echo HTTP/3.7\r\nHost: a\r\n\r\n",
		"GET /echo\r\n\r\n",
		"GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nto and fro",
		"GET /echo HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\nGET /echo HTTP/1.1\r\nHost: b\r\n\r\n",
		strings.Repeat("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab", 40),
		"GET /abort HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /echo HTTP/1.1\r\nHost: a\r\nCookie: " + large + "\r\n\r\n",
		"\r\nGET /echo HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /echo HTTP/1.1\nHost: a\n\n",
	} {
		want, got := exchanged(t, bare, send), exchanged(t, through, send)
		if without(got) != without(want) {
			t.Errorf("%.200q:\n%d %.4000q\nbare %d %.4000q", send, len(got), got, len(want), want)
		}
	}
}

// without leaves out what a relay changes.
func without(answers string) string {
	return strings.NewReplacer("Connection: close\r\n", "", "Connection: keep-alive\r\n", "").Replace(answers)
}

// The body of a request is sent when the program has asked for it, and not before.
func TestContinue(t *testing.T) {
	l, _ := relayed(t, server(t))
	c := dial(t, l)
	io.WriteString(c, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
	r := bufio.NewReader(c)
	if line, err := r.ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" {
		t.Fatal(line, err)
	}
	io.WriteString(c, "abc")
	b, err := io.ReadAll(r)
	if err != nil || !strings.Contains(string(b), "Connection: close\r\n") || !strings.Contains(string(b), "\n3 <nil> POST") {
		t.Errorf("%q, %v", b, err)
	}
}

// A websocket asked for on such a connection lasts as long as both sides want it.
func TestUpgrade(t *testing.T) {
	l, outcomes := relayed(t, server(t))
	c := dial(t, l)
	io.WriteString(c, "GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	r := bufio.NewReader(c)
	for line := ""; line != "\r\n"; {
		var err error
		if line, err = r.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 100 {
		want := strings.Repeat("m", i*997) + "\n"
		go io.WriteString(c, want)
		if got, err := r.ReadString('\n'); err != nil || got != want {
			t.Fatalf("%q, %v", got, err)
		}
	}
	c.CloseWrite()
	if b, err := io.ReadAll(r); err != nil || len(b) > 0 {
		t.Errorf("%q, %v", b, err)
	}
	if o := <-outcomes; o.Err != nil || o.Answered != 1 {
		t.Errorf("%+v", o)
	}
}

// Bytes pass as they come, in both directions at once.
func TestStreams(t *testing.T) {
	l, _ := relayed(t, listen(t, func(c *net.TCPConn) {
		defer c.Close()
		r := bufio.NewReader(c)
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		b := make([]byte, 1)
		for {
			if _, err := req.Body.Read(b); err != nil {
				break
			}
			fmt.Fprintf(c, "1\r\n%s\r\n", b)
		}
		io.WriteString(c, "0\r\n\r\n")
		io.Copy(io.Discard, r)
	}))
	c := dial(t, l)
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || !res.Close {
		t.Fatal(res, err)
	}
	for i := range 50 {
		fmt.Fprintf(c, "1\r\n%c\r\n", 'a'+i%26)
		b := make([]byte, 1)
		if _, err := io.ReadFull(res.Body, b); err != nil || b[0] != byte('a'+i%26) {
			t.Fatal(b, err)
		}
	}
	io.WriteString(c, "0\r\n\r\n")
	if b, err := io.ReadAll(res.Body); err != nil || len(b) > 0 {
		t.Errorf("%q, %v", b, err)
	}
}

// Neither side's end is hidden from the other: the program hears of a client that leaves, and
// a client of a program that dies.
func TestEndsAreSeen(t *testing.T) {
	left := make(chan error, 1)
	began := make(chan bool, 1)
	l, outcomes := relayed(t, listen(t, func(c *net.TCPConn) {
		defer c.Close()
		r := bufio.NewReader(c)
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		switch req.URL.Path {
		case "/wait":
			began <- true
			_, err := r.ReadByte()
			left <- err
		case "/reset":
			io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\nup to the end")
			c.SetLinger(0)
		case "/die":
		}
	}))
	c := dial(t, l)
	io.WriteString(c, "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
	<-began
	c.Close()
	if err := <-left; err != io.EOF {
		t.Error(err)
	}
	if o := <-outcomes; o.Err == nil || o.Answered != 0 {
		t.Errorf("%+v", o)
	}
	c = dial(t, l)
	io.WriteString(c, "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
	<-began
	reset(c)
	if err := <-left; !isReset(err) {
		t.Error(err)
	}
	<-outcomes
	c = dial(t, l)
	io.WriteString(c, "GET /reset HTTP/1.1\r\nHost: a\r\n\r\n")
	if b, err := io.ReadAll(c); !isReset(err) {
		t.Errorf("%q, %v", b, err)
	}
	<-outcomes
	c = dial(t, l)
	io.WriteString(c, "GET /die HTTP/1.1\r\nHost: a\r\n\r\n")
	if b, err := io.ReadAll(c); len(b) > 0 || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	if o := <-outcomes; o.Err == nil {
		t.Errorf("%+v", o)
	}
}

// A program may answer before the body has come, and read the rest of it all the same.
func TestEarlyAnswer(t *testing.T) {
	const size = 8 << 20
	read := make(chan int64, 1)
	l, outcomes := relayed(t, listen(t, func(c *net.TCPConn) {
		defer c.Close()
		r := bufio.NewReader(c)
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
		n, _ := io.Copy(io.Discard, req.Body)
		read <- n
		io.Copy(io.Discard, r)
	}))
	c := dial(t, l)
	fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", size)
	r := bufio.NewReader(c)
	if line, err := r.ReadString('\n'); err != nil || line != "HTTP/1.1 413 Too Large\r\n" {
		t.Fatal(line, err)
	}
	if _, err := c.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	if n := <-read; n != size {
		t.Errorf("%d bytes of %d", n, size)
	}
	if _, err := io.ReadAll(r); err != nil {
		t.Error(err)
	}
	c.Close()
	if o := <-outcomes; o.Err != nil || o.Answered != 1 {
		t.Errorf("%+v", o)
	}
}

// A client that sends one byte and waits is left after a while, and no worker has heard of it.
func TestOneByteAndWait(t *testing.T) {
	dialled := false
	s := &Server{HeadTimeout: time.Millisecond, Dial: func(context.Context, net.Conn) (net.Conn, error) {
		dialled = true
		return nil, io.EOF
	}}
	outcomes := make(chan Outcome, 1)
	l := listen(t, func(c *net.TCPConn) { outcomes <- s.Serve(c) })
	c := dial(t, l)
	io.WriteString(c, "G")
	if b, err := io.ReadAll(c); len(b) > 0 || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	if o := <-outcomes; !errors.Is(o.Err, errHead) || dialled {
		t.Errorf("%+v, %v", o, dialled)
	}
}

// Nobody serves: no answer is made up.
func TestNobodyServes(t *testing.T) {
	s := &Server{Dial: func(context.Context, net.Conn) (net.Conn, error) { return nil, ErrNotLocal }}
	l := listen(t, func(c *net.TCPConn) { s.Serve(c) })
	c := dial(t, l)
	io.WriteString(c, "GET / HTTP/1.1\r\n\r\n")
	if b, err := io.ReadAll(c); len(b) > 0 || err != nil {
		t.Errorf("%q, %v", b, err)
	}
}

func TestSplice(t *testing.T) {
	far := listen(t, func(c *net.TCPConn) {
		defer c.Close()
		b, _ := io.ReadAll(c)
		c.Write(b)
	})
	l := listen(t, func(c *net.TCPConn) { Splice(c, dial(t, far)) })
	c := dial(t, l)
	want := strings.Repeat("any protocol", 1<<18)
	go func() {
		io.WriteString(c, want)
		c.CloseWrite()
	}()
	if b, err := io.ReadAll(c); err != nil || string(b) != want {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}
