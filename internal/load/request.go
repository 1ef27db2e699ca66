package load

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Request is one HTTP/1.1 request.
type Request struct {
	Method string
	Target string
	Header http.Header // Host among it
	Body   []byte
	Want   int // status

	keep, close []byte // on the wire
}

// wire makes what is sent.
func (r *Request) wire() {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\n", r.Method, r.Target)
	r.Header.WriteSubset(&b, map[string]bool{"Connection": true, "Content-Length": true})
	if len(r.Body) > 0 || r.Method == http.MethodPost || r.Method == http.MethodPut || r.Method == http.MethodPatch {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(r.Body))
	}
	end := func(connection string) []byte {
		return slices.Concat(b.Bytes(), []byte("Connection: "+connection+"\r\n\r\n"), r.Body)
	}
	r.keep, r.close = end("keep-alive"), end("close")
}

// ParseRequests reads requests as editors keep them (.http): a line METHOD TARGET,
// headers, an empty line, a body; a line that begins with ### ends one, and lines with
// # or // before the first of one are remarks. A target may be a whole URL, which gives
// the Host. Want is left 0.
func ParseRequests(text []byte) ([]Request, error) {
	var all []Request
	var block []string
	first := 1
	flush := func(next int) error {
		r, ok, err := parseRequest(block)
		if err != nil {
			return fmt.Errorf("the request from line %d on: %w", first, err)
		}
		if ok {
			all = append(all, r)
		}
		block, first = nil, next
		return nil
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 16<<20)
	n := 0
	for lines.Scan() {
		n++
		if strings.HasPrefix(lines.Text(), "###") {
			if err := flush(n + 1); err != nil {
				return nil, err
			}
			continue
		}
		block = append(block, strings.TrimSuffix(lines.Text(), "\r"))
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if err := flush(0); err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, errors.New("it contains no request; want lines like: GET /path")
	}
	return all, nil
}

func parseRequest(lines []string) (r Request, ok bool, err error) {
	for len(lines) > 0 && (strings.TrimSpace(lines[0]) == "" || strings.HasPrefix(lines[0], "#") || strings.HasPrefix(lines[0], "//")) {
		lines = lines[1:]
	}
	if len(lines) == 0 {
		return r, false, nil
	}
	words := strings.Fields(lines[0])
	if len(words) == 1 {
		words = []string{http.MethodGet, words[0]}
	}
	if len(words) > 3 || len(words) == 3 && words[2] != "HTTP/1.1" {
		return r, false, fmt.Errorf("%q: want METHOD TARGET", lines[0])
	}
	r = Request{Method: words[0], Target: words[1], Header: http.Header{"Host": {"localhost"}}}
	if !token(r.Method) || r.Method != strings.ToUpper(r.Method) || r.Method == http.MethodConnect {
		return r, false, fmt.Errorf("%q is not a method", r.Method)
	}
	u, err := url.ParseRequestURI(r.Target)
	if err != nil || strings.ContainsFunc(r.Target, func(c rune) bool { return c <= ' ' || c == 0x7f }) {
		return r, false, fmt.Errorf("%q is not a target: want a path or a URL", r.Target)
	}
	if u.Host != "" {
		r.Header.Set("Host", u.Host)
		r.Target = u.RequestURI()
	}
	lines = lines[1:]
	for ; len(lines) > 0 && lines[0] != ""; lines = lines[1:] {
		name, value, found := strings.Cut(lines[0], ":")
		if !found || !token(name) || strings.ContainsFunc(value, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }) {
			return r, false, errors.New("invalid header: want NAME: VALUE") // may be a secret
		}
		switch name = textproto.CanonicalMIMEHeaderKey(name); name {
		case "Host":
			r.Header.Set(name, strings.TrimSpace(value))
		case "Transfer-Encoding", "Expect", "Upgrade":
			return r, false, fmt.Errorf("the header %s is not supported", name)
		default:
			r.Header.Add(name, strings.TrimSpace(value))
		}
	}
	if len(lines) > 1 {
		body := strings.TrimRight(strings.Join(lines[1:], "\n"), "\n")
		r.Body = []byte(body)
	}
	if s := r.Header.Get("Content-Length"); s != "" && s != strconv.Itoa(len(r.Body)) {
		return r, false, fmt.Errorf("Content-Length %s, and a body of %d: leave it out", s, len(r.Body))
	}
	return r, true, nil
}

// token reports whether a word is one of RFC 9110, 5.6.2.
func token(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool {
		return c <= ' ' || c >= 0x7f || strings.ContainsRune("\"(),/:;<=>?@[\\]{}", c)
	})
}

// Once sends a request on a connection of its own, and returns status and header of
// its answer.
func (r Request) Once(ctx context.Context, addr string, timeout time.Duration) (status int, header http.Header, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return 0, nil, err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	conn.SetDeadline(deadline)
	r.wire()
	if _, err := conn.Write(r.close); err != nil {
		return 0, nil, err
	}
	resp, err := final(bufio.NewReader(conn), r.Method)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, resp.Header, err
}

// final reads the answer, and what comes before it (RFC 9110, 15.2).
func final(in *bufio.Reader, method string) (*http.Response, error) {
	for {
		resp, err := http.ReadResponse(in, &http.Request{Method: method})
		if err != nil || resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			return resp, err
		}
	}
}
