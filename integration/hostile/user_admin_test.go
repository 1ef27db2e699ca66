package hostile

import (
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// said is the answer to raw bytes, until the server closes, or has said all that it will.
func saidTo(t *testing.T, addr, request string) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(c, request)
	first := make([]byte, 64<<10)
	n, _ := c.Read(first)
	c.(*net.TCPConn).CloseWrite() // after an answer: before one it is a client that has gone
	b, _ := io.ReadAll(c)
	return string(first[:n]) + string(b)
}

// adminCrowd: connections of all sorts, more than --admin takes.
func adminCrowd() strike {
	addr := ""
	return strike{name: "admin-crowd", tries: "holds 600 connections to --admin, of which 200 send a byte now and then (slowloris), and from 12 threads asks for /metrics, with bodies without end and headers of a megabyte among them, as fast as it can, through a reload",
		prepare: func(t *testing.T, own string) options {
			addr = "127.0.0.1:" + freePort(t)
			return options{setup: setup{drop: true}, flags: []string{"--admin", addr}}
		},
		attack: func(t *testing.T, s *service, own string) {
			_, port, _ := net.SplitHostPort(addr)
			python(t, `
at = ("127.0.0.1", int(sys.argv[1]))
def connect():
    s = socket.socket(); s.settimeout(5); s.connect(at); return s
idle = [connect() for i in range(600)]
def drip():
    slow = []
    while True:
        try:
            while len(slow) < 200: slow.append(connect()); slow[-1].send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: ")
        except OSError: pass
        for s in list(slow):
            try: s.send(b"x")
            except OSError: slow.remove(s)
        time.sleep(.02)
def flood(i):
    what = [b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50, b"GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n" + b"x" * 65536,
            b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n" + b"X: " + b"y" * (1 << 20) + b"\r\n\r\n"][i % 3]
    while True:
        try:
            s = connect(); s.sendall(what)
            while s.recv(65536): pass
        except OSError: pass
        finally: s.close()
for i in range(12): threading.Thread(target=flood, args=(i,), daemon=True).start()
threading.Thread(target=drip, daemon=True).start()
go()
time.sleep(100)
`, port)
			client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
			answered := 0
			const probes = 50
			for range probes {
				if resp, err := client.Get("http://" + addr + "/livez"); err == nil {
					if resp.StatusCode == 200 {
						answered++
					}
					resp.Body.Close()
				}
			}
			t.Logf("of %d probes beside it, %d are answered", probes, answered)
			if answered == 0 {
				t.Error("no probe is answered")
			}
		},
		log: "nothing at `info`; most probes beside it are answered",
	}
}

// adminRequests: what is not a request of --admin's, and what is one of somebody else's.
func adminRequests() strike {
	addr := ""
	return strike{name: "admin-requests", tries: "asks --admin over a name of its own that leads to 127.0.0.1 (DNS rebinding), by absolute URLs, other methods, paths with `..`, `//` and `%2e`, HTTP/0.9, two lengths, a length beside chunks with a second request in the body, 20 KB of path, 5 000 headers, and as a page of another origin",
		prepare: func(t *testing.T, own string) options {
			addr = "127.0.0.1:" + freePort(t)
			return options{setup: setup{drop: true}, flags: []string{"--admin", addr}}
		},
		attack: func(t *testing.T, s *service, own string) {
			const host = " HTTP/1.1\r\nHost: localhost\r\n"
			for _, c := range []struct{ request, want string }{
				{"GET /metrics" + host + "\r\n", "200"},
				{"GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n", "421"},
				{"GET http://evil.example/metrics" + host + "\r\n", "421"},
				{"GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", "400"},
				{"GET /metrics HTTP/1.1\r\n\r\n", "400"},
				{"POST /livez" + host + "\r\n", "404"},
				{"DELETE /metrics" + host + "\r\n", "404"},
				{"OPTIONS /metrics" + host + "Origin: http://evil.example\r\nAccess-Control-Request-Method: GET\r\n\r\n", "404"},
				{"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n", "404"},
				{"POST /v1/stop" + host + "\r\n", "404"},
				{"GET /v1/status" + host + "\r\n", "404"},
				{"GET /livez/../v1/status" + host + "\r\n", "307"}, // to /v1/status, which is not there
				{"GET //v1/status" + host + "\r\n", "307"},
				{"GET /%2e%2e/%2e%2e/etc/passwd" + host + "\r\n", "307 404"},
				{"GET /metrics\r\n\r\n", "400"},
				{"GET /metrics HTTP/0.9\r\n\r\n", "505 400"},
				{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505 400 404 413"},
				{"GET /livez" + host + "Content-Length: 0\r\nContent-Length: 40\r\n\r\n", "400"},
				{"GET /livez" + host + "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /metrics" + host + "\r\n", "413 400"},
				{"GET /livez" + host + "Transfer-Encoding: xchunked\r\n\r\nGET /metrics" + host + "\r\n", "501 400"},
				{"GET /livez" + host + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", "400"},
				{"GET /" + strings.Repeat("x", 20<<10) + host + "\r\n", "404 414 431"},
				{"GET /livez" + host + strings.Repeat("X-A: b\r\n", 5000) + "\r\n", "431"},
				{"GET /livez" + host + "X: a\x00b\r\n\r\n", "400"},
			} {
				answer := saidTo(t, addr, c.request)
				code := ""
				if f := strings.Fields(answer); len(f) > 1 {
					code = f[1]
				}
				if code == "" || !strings.Contains(c.want, code) || strings.Count(answer, "HTTP/1.") > 1 || strings.Contains(answer, "Access-Control") {
					t.Errorf("%.120q: %.300q, want %s, once", c.request, answer, c.want)
				}
			}
		},
		log: "nothing: each is refused, by 400 to 505",
	}
}

// adminToken: guesses.
func adminToken() strike {
	addr := ""
	const token = "0123456789abcdef"
	return strike{name: "admin-token", tries: "asks --admin with no token, parts of the right one, longer ones, another scheme, as a parameter, as a cookie and as a name and password; the comparison takes the same time for each (`crypto/subtle`)",
		prepare: func(t *testing.T, own string) options {
			addr = "127.0.0.1:" + freePort(t)
			return options{setup: setup{drop: true}, flags: []string{"--admin", addr, "--admin-token-file", put(t, filepath.Join(own, "token"), token, 0o600, os.Geteuid())}}
		},
		attack: func(t *testing.T, s *service, own string) {
			ask := func(path string, header ...string) string {
				answer := saidTo(t, addr, "GET "+path+" HTTP/1.0\r\n"+strings.Join(append(header, ""), "\r\n")+"\r\n")
				return strings.Fields(answer + " - -")[1]
			}
			if code := ask("/metrics", "Authorization: Bearer "+token); code != "200" {
				t.Errorf("the right one: %s", code)
			}
			wrong := [][]string{nil, {"Authorization: bearer " + token}, {"Authorization: " + token}, {"Authorization: Basic OjAxMjM0NTY3ODlhYmNkZWY="}, {"Cookie: token=" + token},
				{"Authorization: Bearer " + token + "0"}, {"Authorization: Bearer  " + token}, {"Authorization: Bearer x", "Authorization: Bearer " + token}}
			for n := range len(token) {
				wrong = append(wrong, []string{"Authorization: Bearer " + token[:n]}, []string{"Authorization: Bearer " + token[:n] + "x" + token[n+1:]})
			}
			for _, header := range wrong {
				for _, path := range []string{"/metrics", "/livez", "/readyz", "/metrics?token=" + token} {
					if code := ask(path, header...); code != strconv.Itoa(http.StatusUnauthorized) {
						t.Errorf("%s %q: %s", path, header, code)
					}
				}
			}
		},
		log: "nothing: each is refused, by 401",
	}
}
