package integration

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"handoff/internal/load"
)

// program is an unmodified program of some language, served by the bind
// contract.
type program struct {
	name  string
	needs string   // a command, without which the test is skipped
	args  []string // %PORT% is replaced
	files map[string]string
	flags []string
	// What the program does to the sockets that it is given, for which a few
	// connections may be reset; documented in docs/programs.md.
	atFault string
}

var anyPrograms = []program{
	{name: "python http.server", needs: "python3", args: []string{"python3", "-m", "http.server", "%PORT%", "--bind", "127.0.0.1"}},
	{name: "gunicorn sync", needs: "gunicorn", args: []string{"gunicorn", "-b", "127.0.0.1:%PORT%", "app:app"}},
	{name: "gunicorn gthread", needs: "gunicorn", args: []string{"gunicorn", "-k", "gthread", "--threads", "4", "-b", "127.0.0.1:%PORT%", "app:app"}},
	{name: "uvicorn", needs: "uvicorn", args: []string{"uvicorn", "--log-level", "warning", "--port", "%PORT%", "app:asgi"}},
	{name: "waitress", needs: "waitress-serve", args: []string{"waitress-serve", "--listen=127.0.0.1:%PORT%", "app:app"}},
	{name: "hypercorn", needs: "hypercorn", args: []string{"hypercorn", "-b", "127.0.0.1:%PORT%", "app:asgi"}},
	{name: "puma", needs: "puma", args: []string{"puma", "-q", "-b", "tcp://127.0.0.1:%PORT%", "config.ru"}},
	{name: "webrick", needs: "ruby", args: []string{"ruby", "-run", "-e", "httpd", ".", "-p", "%PORT%", "-b", "127.0.0.1"},
		atFault: "it closes connections that it has accepted around the signal unread, and shuts its listener down, which moves the sockets of the group"},
	{name: "php -S", needs: "php", args: []string{"php", "-S", "127.0.0.1:%PORT%", "index.php"}},
	{name: "nginx", needs: "nginx", args: []string{"nginx", "-p", ".", "-c", "nginx.conf"},
		files: map[string]string{"nginx.conf": "daemon off; worker_processes 1; pid nginx-%PORT%.pid; error_log stderr warn; events {}\n" +
			"http { access_log off; server { listen 127.0.0.1:%PORT%; location / { return 200 \"ok\\n\"; } } }\n"}},
	{name: "busybox httpd", needs: "busybox", args: []string{"busybox", "httpd", "-f", "-p", "127.0.0.1:%PORT%", "-h", "."}},
	{name: "lighttpd", needs: "lighttpd", args: []string{"lighttpd", "-D", "-f", "lighttpd.conf"},
		files: map[string]string{"lighttpd.conf": "server.document-root = \"%DIR%\"\nserver.bind = \"127.0.0.1\"\nserver.port = %PORT%\nindex-file.names = (\"index.html\")\n"}},
	{name: "npm start", needs: "npm", args: []string{"npm", "start", "--silent"}},
	{name: "sh -c node", needs: "node", args: []string{"sh", "-c", "node server.js"}},
	{name: "Go, Shutdown", needs: "go", args: []string{"goserver"}},
	{name: "Go, the SDK", needs: "go", args: []string{"gosdk"}, flags: []string{"--keepalive-linger", "1s"}},
	{name: "Java HttpServer", needs: "java", args: []string{"java", "Server.java"}},
}

func (p program) start(t *testing.T) *world {
	t.Helper()
	if _, err := exec.LookPath(p.needs); err != nil {
		if os.Getenv("CI") != "" && p.needs != "java" {
			t.Fatalf("%s is missing; .ci/run installs it", p.needs)
		}
		t.Skipf("%s is not here", p.needs)
	}
	port := freePort(t)
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(data("any"))); err != nil {
		t.Fatal(err)
	}
	if p.needs == "go" {
		p.args = []string{goProgram(p.args[0])}
	}
	args := make([]string, len(p.args))
	for i, a := range p.args {
		args[i] = strings.ReplaceAll(a, "%PORT%", port)
	}
	for name, text := range p.files {
		text = strings.NewReplacer("%PORT%", port, "%DIR%", dir).Replace(text)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	w := start(t, options{flags: append([]string{"-n", "2"}, p.flags...), app: args, dir: dir, env: []string{"PORT=" + port}})
	if w.addr == "" || !strings.HasSuffix(w.addr, ":"+port) {
		t.Fatalf("%s is not held: %q", p.name, w.addr)
	}
	return w
}

// Unmodified programs, reloaded under load: no new connection is lost. The folder programs
// has these and more, with what keep-alive clients lose.
func TestAnyProgram(t *testing.T) {
	t.Parallel()
	for _, p := range anyPrograms {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			w := p.start(t)
			n := times(20, 2)
			run := w.load(load.Config{Clients: 8})
			run.Await(50, testTimeout)
			for range n {
				w.reload()
				w.retired(2)
				run.Await(20, testTimeout)
			}
			fresh := run.Stop()
			switch most := int64(n); {
			case fresh.Lost() > 0 && p.atFault == "":
				t.Errorf("new connections: %v", fresh)
			case fresh.Lost() > most || fresh.Lost() != fresh.Failed[load.Reset]:
				t.Errorf("new connections: %v", fresh)
			case fresh.Lost() > 0:
				t.Logf("%d reset: %s", fresh.Lost(), p.atFault)
			}
			w.stop()
		})
	}
}

// Programs that SIGTERM ends in the middle of a request, or not at all, drain by the
// signal that they are known to need: what is under way at a reload is finished.
func TestKnownDrainSignals(t *testing.T) {
	t.Parallel()
	app := map[string]string{"slow.py": "import time\n\n\ndef app(environ, start_response):\n    time.sleep(2)\n" +
		"    start_response('200 OK', [('Content-Type', 'text/plain'), ('Content-Length', '3')])\n    return [b'ok\\n']\n"}
	for _, p := range []program{
		{name: "waitress", needs: "waitress-serve", args: []string{"sh", "-c", "exec waitress-serve --listen=127.0.0.1:%PORT% slow:app"}, files: app},
		{name: "uwsgi", needs: "uwsgi", args: []string{"uwsgi", "--plugin", "python3", "--master", "--http-socket", "127.0.0.1:%PORT%", "--module", "slow:app"}, files: app},
		{name: "nginx", needs: "nginx", args: []string{"env", "A=1", "nginx", "-p", ".", "-c", "nginx.conf"}, files: map[string]string{"slow": strings.Repeat("x", 20000), "nginx.conf": "user root; daemon off; worker_processes 1; pid nginx.pid; error_log stderr warn; events {}\n" +
			"http { access_log off; server { listen 127.0.0.1:%PORT%; root %DIR%; location / { sendfile off; output_buffers 1 1k; limit_rate 10000; } } }\n"}},
	} {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath(p.needs); err != nil && p.name == "uwsgi" {
				t.Skip("uwsgi is not here")
			}
			w := p.start(t)
			conn, err := net.Dial("tcp", w.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fmt.Fprint(conn, "GET /slow HTTP/1.0\r\nHost: x\r\n\r\n")
			w.reload()
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(resp.Body); err != nil || int64(len(b)) != resp.ContentLength || resp.StatusCode != 200 {
				t.Errorf("%d, %d bytes of %d, %v", resp.StatusCode, len(b), resp.ContentLength, err)
			}
			w.retired(2)
			if n := len(w.all("worker.terminated")); n > 0 {
				t.Errorf("%d workers had to be told to end", n)
			}
			if n := len(w.all("drain.signal")); n != 1 {
				t.Errorf("the signal is said %d times", n)
			}
			w.stop()
		})
	}
}
