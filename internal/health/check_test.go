package health

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"
)

const testTimeout = 20 * time.Second // for failure only

func to(network, addr string) Dial {
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, addr)
	}
}

func question(t *testing.T, text string) *Check {
	t.Helper()
	c, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return &c
}

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"/healthz": "http GET /healthz", "http:/": "http GET /", "https:/a?b=c": "https GET /a?b=c", "tcp": "tcp connect", "grpc": "grpc grpc.health.v1",
		"grpc:a.B": "grpc grpc.health.v1 a.B", "exec:pg_isready -q": "exec pg_isready -q",
		"": "", "healthz": "", "http:": "", "http://x/": "", "tcp:80": "", "exec:": "", "exec: ": "", "/a b": "", "/a\r\nX: y": "", "grpc:a b": "",
	} {
		c, err := Parse(text)
		got := ""
		if err == nil {
			got = string(c.Kind) + " " + c.String()
		}
		if got != want {
			t.Errorf("%q: %q, want %q (%v)", text, got, want, err)
		}
	}
	for _, bad := range []string{"", "x", "99", "600", "300-200", "200-", "-200"} {
		if _, err := ParseStatus([]string{bad}); err == nil {
			t.Errorf("status %q", bad)
		}
	}
	for _, bad := range []string{"", "A", ": b", "A b: c", "A: b\nC: d"} {
		if ParseHeader(bad) == nil {
			t.Errorf("header %q", bad)
		}
	}
}

func TestHTTP(t *testing.T) {
	handler := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ok":
			fmt.Fprintf(rw, "%s %s", r.Host, r.Header.Get("X-Token"))
		case "/moved":
			http.Redirect(rw, r, "/500", http.StatusFound)
		case "/500":
			rw.WriteHeader(500)
			io.WriteString(rw, "\n  no database\x1b[31m\nstack")
		case "/long":
			rw.WriteHeader(503)
			io.WriteString(rw, strings.Repeat("x", 1<<20))
		case "/hangs":
			<-r.Context().Done()
		case "/cut":
			c, _, _ := rw.(http.Hijacker).Hijack()
			c.Close()
		}
	})
	plain, secure := httptest.NewServer(handler), httptest.NewTLSServer(handler)
	defer plain.Close()
	defer secure.Close()
	for _, c := range []struct {
		text   string
		change func(*Check)
		want   string
	}{
		{"/ok", nil, ""},
		{"/moved", nil, ""},
		{"https:/ok", nil, ""},
		{"https:/500", nil, "GET /500: 500, 'no database"},
		{"/ok", func(c *Check) {
			c.Body, c.Host, c.Headers = "shop.example secret", "shop.example", []string{"X-Token: secret"}
		}, ""},
		{"/ok", func(c *Check) { c.Body = "well" }, `GET /ok: 200 without "well" in its body, 'localhost'`},
		{"/moved", func(c *Check) { c.Status = []Range{{200, 299}} }, "GET /moved: 302"},
		{"/500", nil, "GET /500: 500, 'no database"},
		{"/500", func(c *Check) { c.Status = []Range{{404, 404}, {500, 500}} }, ""},
		{"/long", nil, "GET /long: 503, 'xxx"},
		{"/cut", nil, "GET /cut: it closed the connection without an answer"},
		{"/hangs", nil, "GET /hangs: no answer within 50ms"},
	} {
		check := question(t, c.text)
		if c.change != nil {
			c.change(check)
		}
		server := plain
		if check.Kind == HTTPS {
			server = secure
		}
		patience := testTimeout
		if c.text == "/hangs" {
			patience = 50 * time.Millisecond
		}
		ctx, cancel := Within(t.Context(), patience)
		err := check.Run(ctx, to("tcp", server.Listener.Addr().String()), nil)
		cancel()
		if got := fmt.Sprint(err); c.want == "" && err != nil || c.want != "" && (err == nil || !strings.HasPrefix(got, c.want)) || strings.ContainsRune(got, 0x1b) || len(got) > 300 {
			t.Errorf("%s: %v, want %s", c.text, err, c.want)
		}
	}
}

func TestTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().String()
	if err := question(t, "tcp").Run(t.Context(), to("tcp", at), nil); err != nil {
		t.Error(err)
	}
	l.Close()
	if err := question(t, "tcp").Run(t.Context(), to("tcp", at), nil); err == nil || !strings.HasSuffix(err.Error(), "connection refused") {
		t.Error(err)
	}
	skip := func(context.Context) (net.Conn, error) { return nil, Skipped{errors.New("one socket for all")} }
	if err := question(t, "tcp").Run(t.Context(), skip, nil); !errors.As(err, new(Skipped)) {
		t.Error(err)
	}
}

// The server is net/http's, of HTTP/2.
func TestGRPC(t *testing.T) {
	message := func(status byte) []byte { return []byte{0, 0, 0, 0, 2, 1 << 3, status} }
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.URL.Path != "/grpc.health.v1.Health/Check" || r.Header.Get("Content-Type") != "application/grpc" || r.Header.Get("Te") != "trailers" ||
			r.Method != "POST" || len(body) < 5 || int(binary.BigEndian.Uint32(body[1:])) != len(body)-5 {
			t.Errorf("%+v %q", r, body)
		}
		service := ""
		if len(body) > 7 && body[5] == 1<<3|2 {
			service = string(body[7:])
		}
		rw.Header().Set("Content-Type", "application/grpc")
		code, why := "0", ""
		switch service {
		case "", "well":
			rw.Write(message(1))
		case "ill":
			rw.Write(message(2))
		case "none":
		case "unknown":
			code = "5"
		case "broken":
			code, why = "13", "no database"
		case "missing":
			code = "12"
		case "html":
			rw.WriteHeader(404)
		}
		rw.Header().Set(http.TrailerPrefix+"Grpc-Status", code)
		rw.Header().Set(http.TrailerPrefix+"Grpc-Message", why)
	}))
	srv.Config.Protocols = new(http.Protocols)
	srv.Config.Protocols.SetUnencryptedHTTP2(true)
	srv.Start()
	defer srv.Close()
	for service, want := range map[string]string{
		"": "", "well": "", "ill": "NOT_SERVING", "none": "it has no answer", "unknown": "unknown service (NOT_FOUND)", "broken": "gRPC status 13, 'no database'",
		"missing": "the program has no grpc.health.v1 (UNIMPLEMENTED)", "html": "HTTP status 404",
	} {
		c := &Check{Kind: GRPC, Target: service}
		ctx, cancel := Within(t.Context(), testTimeout)
		err := c.Run(ctx, to("tcp", srv.Listener.Addr().String()), nil)
		cancel()
		if want == "" && err != nil || want != "" && (err == nil || !strings.HasSuffix(err.Error(), ": "+want)) {
			t.Errorf("%q: %v, want %q", service, err, want)
		}
	}
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	if err := question(t, "grpc").Run(t.Context(), to("tcp", plain.Listener.Addr().String()), nil); err == nil || !strings.Contains(err.Error(), "not HTTP/2") {
		t.Error(err)
	}
}

// A command reaches the worker by a socket that nobody else can use.
func TestExec(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { io.WriteString(rw, "hello") }))
	defer srv.Close()
	c := question(t, "exec:probe --now")
	socket := ""
	c.Command = func(ctx context.Context, command string, about map[string]any) error {
		socket = about["socket"].(string)
		client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return to("unix", socket)(ctx)
		}}}
		for range 3 {
			resp, err := client.Get("http://x/")
			if err != nil {
				return err
			}
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if string(body) != "hello" || command != "probe --now" || about["slot"] != 2 {
				t.Errorf("%q, %q, %v", body, command, about)
			}
		}
		if info, err := os.Stat(socket[:strings.LastIndex(socket, "/")]); err != nil || info.Mode().Perm() != 0o700 {
			t.Error(info.Mode(), err)
		}
		return errors.New("exit status 3: no database")
	}
	err := c.Run(t.Context(), to("tcp", srv.Listener.Addr().String()), map[string]any{"slot": 2})
	if fmt.Sprint(err) != "probe --now: exit status 3: no database" {
		t.Error(err)
	}
	if _, err := os.Stat(socket); !os.IsNotExist(err) {
		t.Error(err)
	}
}

// Whatever a server answers to the call is read to an end, and judged.
func FuzzGRPC(f *testing.F) {
	var seed []byte
	seed = append(seed, frame(frameSettings, 0, 0, nil)...)
	seed = append(seed, frame(framePing, 0, 0, make([]byte, 8))...)
	seed = append(seed, frame(frameHeaders, flagEndHeaders, 1, []byte{0x88})...) // :status 200
	seed = append(seed, frame(frameData, flagPadded, 1, append([]byte{1}, 0, 0, 0, 0, 2, 8, 1, 0))...)
	seed = append(seed, frame(frameHeaders, flagEnd|flagPriority, 1, make([]byte, 5))...)
	seed = append(seed, frame(frameContinuation, flagEndHeaders, 1, nil)...)
	f.Add(seed)
	f.Add([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		conn := struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(b), io.Discard}
		err := (&Check{Kind: GRPC}).grpc(conn)
		if err == nil && !bytes.Contains(b, []byte{0, 0, 0, 0}) {
			t.Errorf("%q is well", b)
		}
		if err != nil && len(err.Error()) > 400 {
			t.Errorf("%d bytes of error", len(err.Error()))
		}
	})
}
