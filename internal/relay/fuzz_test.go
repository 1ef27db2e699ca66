package relay

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"testing"
)

// What looks like a request at once looks like one byte by byte, and never goes back on it.
func FuzzLooks(f *testing.F) {
	for _, s := range []string{"GET / HTTP/1.1\r\n", "\r\nPOST http://a/ HTTP/1.0\n", "PRI * HTTP/2.0\r\n", "\x16\x03\x01", "PING\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		b = b[:min(len(b), PeekSize)]
		before := More
		for n := range len(b) + 1 {
			v := Looks(b[:n])
			if before != More && v != before {
				t.Fatalf("%q: %s after %s", b[:n], v, before)
			}
			before = v
		}
	})
}

// Where both this package and net/http see the end of a request, they see it at the same byte;
// and in whatever pieces the bytes come.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcdef",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nT: 1\r\n\r\nrest",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"POST / HTTP/1.0\nContent-Length: 1\n\nab",
	} {
		f.Add([]byte(s), 1)
	}
	f.Fuzz(func(t *testing.T, b []byte, piece int) {
		n, ends := requestEnd(b, len(b))
		if m, ends2 := requestEnd(b, max(1, piece)); ends != ends2 || n != m {
			t.Fatalf("%q: %d %v at once, %d %v in pieces of %d", b, n, ends, m, ends2, piece)
		}
		r := bufio.NewReaderSize(bytes.NewReader(b), 16)
		whole := bytes.NewReader(b)
		r.Reset(whole)
		req, err := http.ReadRequest(r)
		if err != nil || !ends {
			return
		}
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return
		}
		// net/http counts no empty lines before a request, and reads trailers with its body.
		if at := len(b) - whole.Len() - r.Buffered(); at != n && len(bytes.TrimLeft(b, "\r\n")) == len(b) {
			t.Fatalf("%q: ends at %d, net/http says %d", b, n, at)
		}
	})
}

// requestEnd is where the first request ends, if its bytes come in pieces of this size.
func requestEnd(b []byte, piece int) (n int, ends bool) {
	size, scanned := 0, 0
	for have := 0; size == 0; {
		if have == len(b) {
			return 0, false
		}
		have = min(len(b), have+piece)
		size, scanned = headEnd(b[:have], scanned)
	}
	r := parseRequest(b[:size], true)
	for n = size; ; {
		m, end := r.body.take(b[n:min(len(b), n+piece)])
		if n += m; end {
			return n, true
		}
		if r.body.kind == untilEnd || n == len(b) {
			return 0, false
		}
	}
}

// The last answer's head differs in Connection and Keep-Alive alone, and says close.
func FuzzClosing(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nConnection: keep-alive, X\r\nKeep-Alive: timeout=5\r\nA: b\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 200 OK\nA: b\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, _ := headEnd(b, 0)
		a, ok := parseAnswer(b[:n], "GET")
		if n == 0 || !ok {
			return
		}
		closed := a.head.closing()
		if m, _ := headEnd(closed, 0); m != len(closed) {
			t.Fatalf("%q: the head ends at %d of %q", b[:n], m, closed)
		}
		h, _ := parseHead(closed)
		if !h.says("close") || h.says("keep-alive") {
			t.Fatalf("%q does not close", closed)
		}
		if got, want := others(&h), others(&a.head); !bytes.Equal(got, want) {
			t.Fatalf("%q\nwas %q", got, want)
		}
	})
}

func others(h *head) []byte {
	var b []byte
	b = append(b, h.first...)
	for _, f := range h.fields {
		if !bytes.EqualFold(f.name, []byte("connection")) && !bytes.EqualFold(f.name, []byte("keep-alive")) {
			b = append(b, h.lines[f.line]...)
		}
	}
	return b
}
