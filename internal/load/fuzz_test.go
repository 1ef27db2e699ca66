package load

import (
	"bufio"
	"bytes"
	"io"
	"testing"
)

// What a server answers, which may be any: an answer, or an error, and no more is read than
// there is.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775807\r\n\r\nx", "HTTP/1.1 099 x\r\n\r\n", "HTTP/1.1 -1 x\r\n\r\n"} {
		f.Add([]byte(s), "GET")
	}
	f.Fuzz(func(t *testing.T, b []byte, method string) {
		resp, err := final(bufio.NewReader(bytes.NewReader(b)), method)
		if err != nil {
			if classify(err) == "" {
				t.Errorf("%q: %v has no class", b, err)
			}
			return
		}
		if n, _ := io.Copy(io.Discard, resp.Body); n > int64(len(b)) || resp.StatusCode < 200 && resp.StatusCode != 101 {
			t.Errorf("%q: %d, %d bytes", b, resp.StatusCode, n)
		}
	})
}
