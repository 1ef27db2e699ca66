package load

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestParseRequests(t *testing.T) {
	got, err := ParseRequests([]byte(`# a remark
GET /one HTTP/1.1
Accept: text/plain

### the second
// by URL
POST http://example.test:81/two?x=1
Content-Type: application/json
X-Twice: a
X-Twice: b

{"a":
 1}

###
/three
`))
	if err != nil || len(got) != 3 {
		t.Fatalf("%v, %v", got, err)
	}
	if r := got[0]; r.Method != "GET" || r.Target != "/one" || r.Header.Get("Host") != "localhost" || r.Header.Get("Accept") != "text/plain" {
		t.Errorf("%+v", r)
	}
	if r := got[1]; r.Method != "POST" || r.Target != "/two?x=1" || r.Header.Get("Host") != "example.test:81" ||
		len(r.Header["X-Twice"]) != 2 || string(r.Body) != "{\"a\":\n 1}" {
		t.Errorf("%+v", r)
	}
	if r := got[2]; r.Method != "GET" || r.Target != "/three" {
		t.Errorf("%+v", r)
	}
	for text, want := range map[string]string{
		"":                                 "no request",
		"### nothing\n###\n":               "no request",
		"GET / HTTP/2\n":                   "want METHOD TARGET",
		"get /\n":                          "is not a method",
		"GET relative\n":                   "is not a target",
		"GET /\nnonsense\n":                "line 1 on: invalid header",
		"GET /\n###\nGET /\nno header\n":   "line 3 on",
		"GET /\nTransfer-Encoding: x\n":    "not supported",
		"POST /\nContent-Length: 5\n\nabc": "leave it out",
	} {
		if _, err := ParseRequests([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// What has been parsed is one request on the wire, and nothing behind it.
func FuzzRequests(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\nHost: x\n\n"))
	f.Add([]byte("POST http://a/b\nX: y\r\n\nbody\n###\n/c\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		all, err := ParseRequests(text)
		if err != nil {
			return
		}
		for _, r := range all {
			r.wire()
			in := bufio.NewReader(bytes.NewReader(r.keep))
			req, err := http.ReadRequest(in)
			if err != nil {
				t.Fatalf("%q of %q: %v", r.keep, text, err)
			}
			body, err := io.ReadAll(req.Body)
			if err != nil || !bytes.Equal(body, r.Body) || req.Method != r.Method {
				t.Fatalf("%q of %q: %q, %v", r.keep, text, body, err)
			}
			if rest, _ := io.ReadAll(in); len(rest) > 0 {
				t.Fatalf("%q of %q: %q is behind it", r.keep, text, rest)
			}
		}
	})
}
