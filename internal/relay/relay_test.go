package relay

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// patience is for failure only.
const patience = 20 * time.Second

func listen(t *testing.T, serve func(c *net.TCPConn)) *net.TCPListener {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.AcceptTCP()
			if err != nil {
				return
			}
			c.SetDeadline(time.Now().Add(patience))
			go serve(c)
		}
	}()
	return l
}

// relayed is a listener whose connections a Server answers by asking l.
func relayed(t *testing.T, l net.Listener) (*net.TCPListener, chan Outcome) {
	t.Helper()
	outcomes := make(chan Outcome, 64)
	s := &Server{Dial: func(ctx context.Context, c net.Conn) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	}}
	return listen(t, func(c *net.TCPConn) { outcomes <- s.Serve(c) }), outcomes
}

func dial(t *testing.T, l net.Listener) *net.TCPConn {
	t.Helper()
	c, err := net.DialTCP("tcp", nil, l.Addr().(*net.TCPAddr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

// talk sends and returns everything that comes back. It does not end its side: the server
// closes, or is told to (Connection: close).
func talk(t *testing.T, l net.Listener, send string) string {
	t.Helper()
	c := dial(t, l)
	if _, err := io.WriteString(c, send); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatalf("%q, %v", b, err)
	}
	c.Close()
	return string(b)
}

// script answers each request that it reads (by net/http's parser) with the next of these
// answers, and closes after the last, or when the client does.
func script(t *testing.T, answers ...string) *net.TCPListener {
	return listen(t, func(c *net.TCPConn) {
		defer c.Close()
		r := bufio.NewReader(c)
		for _, a := range answers {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			io.Copy(io.Discard, req.Body)
			io.WriteString(c, a)
		}
		io.Copy(io.Discard, r)
	})
}

func TestLastAnswerCloses(t *testing.T) {
	const get = "GET / HTTP/1.1\r\nhost: a\r\n\r\n"
	for name, row := range map[string]struct {
		send    string
		answers []string
		want    string
	}{
		"nothing said":        {get, []string{"HTTP/1.1 200 OK\r\ncontent-LENGTH: 2\r\n\r\nok"}, "HTTP/1.1 200 OK\r\ncontent-LENGTH: 2\r\nConnection: close\r\n\r\nok"},
		"keep-alive":          {get, []string{"HTTP/1.1 200 OK\r\nconnection: keep-alive\r\nKeep-Alive: timeout=5\r\nContent-Length: 2\r\n\r\nok"}, "HTTP/1.1 200 OK\r\nconnection: close\r\nContent-Length: 2\r\n\r\nok"},
		"other options":       {get, []string{"HTTP/1.1 200 OK\r\nConnection: X-A, keep-alive\r\nX-A: 1\r\nContent-Length: 0\r\n\r\n"}, "HTTP/1.1 200 OK\r\nConnection: X-A, close\r\nX-A: 1\r\nContent-Length: 0\r\n\r\n"},
		"closes itself":       {get, []string{"HTTP/1.1 200 OK\r\nConnection: Close\r\nKeep-Alive: x\r\nContent-Length: 2\r\n\r\nok"}, "HTTP/1.1 200 OK\r\nConnection: Close\r\nKeep-Alive: x\r\nContent-Length: 2\r\n\r\nok"},
		"HTTP/1.0 keep-alive": {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", []string{"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok"}, "HTTP/1.0 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"},
		"HTTP/1.0":            {"GET / HTTP/1.0\r\n\r\n", []string{"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"}, "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"},
		"HEAD":                {"HEAD / HTTP/1.1\r\nhost: a\r\n\r\n", []string{"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n"}, "HTTP/1.1 200 OK\r\nContent-Length: 2000\r\nConnection: close\r\n\r\n"},
		"304":                 {get, []string{"HTTP/1.1 304 Not Modified\r\nContent-Length: 2000\r\n\r\n"}, "HTTP/1.1 304 Not Modified\r\nContent-Length: 2000\r\nConnection: close\r\n\r\n"},
		"chunks and trailers": {get, []string{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n0002;a=b\r\nok\r\n00\r\nX-Sum: 1\r\n\r\n"}, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\nConnection: close\r\n\r\n0002;a=b\r\nok\r\n00\r\nX-Sum: 1\r\n\r\n"},
		"interim":             {get, []string{"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"}, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"},
		"lines of LF":         {get, []string{"HTTP/1.1 200 OK\nContent-Length: 2\n\nok"}, "HTTP/1.1 200 OK\nContent-Length: 2\nConnection: close\n\nok"},
		"duplicates":          {get, []string{"HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nset-cookie: b\r\nX-Empty:\r\nContent-Length:  0 \r\n\r\n"}, "HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nset-cookie: b\r\nX-Empty:\r\nContent-Length:  0 \r\nConnection: close\r\n\r\n"},
		"pipelined":           {get + get + get, []string{"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n2", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n3"}, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n2HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\n3"},
	} {
		t.Run(name, func(t *testing.T) {
			l, outcomes := relayed(t, script(t, row.answers...))
			if got := talk(t, l, row.send); got != row.want {
				t.Errorf("%q\nwant %q", got, row.want)
			}
			if o := <-outcomes; o.Err != nil || o.Answered != len(row.answers) {
				t.Errorf("%+v", o)
			}
		})
	}
}

// The program sees what the client has sent, and nothing else.
func TestRequestsAsTheyAre(t *testing.T) {
	large := strings.Repeat("0123456789", 1<<17)
	for name, send := range map[string]string{
		"names, order, empty":       "GET /a?b HTTP/1.1\r\nhOST: a\r\nX-B: 2\r\nx-a:\r\nx-a: 1  \r\nX-A:0\r\n\r\n",
		"a body":                    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: " + strconv.Itoa(len(large)) + "\r\n\r\n" + large,
		"chunks and trailers":       "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n3;x=\"1\"\r\nabc\r\n0A\r\n0123456789\r\n0\r\nX-T: 1\r\nY: 2\r\n\r\n",
		"absolute":                  "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
		"the server itself":         "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
		"empty line before":         "\r\nGET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
		"both lengths and chunks":   "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n",
		"space before the colon":    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n",
		"a chunk that is none":      "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\n0\n\n",
		"two pipelined with bodies": "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n1POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n22",
		"a large head":              "GET / HTTP/1.1\r\nX: " + large[:300<<10] + "\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			heard := make(chan []byte, 1)
			l, _ := relayed(t, listen(t, func(c *net.TCPConn) {
				defer c.Close()
				b := make([]byte, len(send))
				n, _ := io.ReadFull(c, b)
				heard <- b[:n]
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			}))
			c := dial(t, l)
			go io.WriteString(c, send)
			if got := <-heard; !bytes.Equal(got, []byte(send)) {
				t.Errorf("%d bytes of %d: %.300q", len(got), len(send), got)
			}
			got, err := io.ReadAll(c)
			if err != nil || !strings.HasSuffix(string(got), "Connection: close\r\n\r\n") {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}
