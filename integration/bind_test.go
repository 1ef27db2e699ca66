package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"handoff/internal/load"
)

// pyserver is a Python server with a few options, as a string for python3 -c.
const pyserver = `
import http.server, os, signal, socket, socketserver, sys, threading
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "3"); self.end_headers(); self.wfile.write(b"ok\n")
    def log_message(self, *a): pass
port = int(os.environ["PORT"])
`

func python(t *testing.T, source string, o options) options {
	t.Helper()
	path := filepath.Join(t.TempDir(), "server.py")
	if err := os.WriteFile(path, []byte(pyserver+source), 0o644); err != nil {
		t.Fatal(err)
	}
	o.app = []string{"python3", path}
	return o
}

// Without a privilege (no_new_privs is set then), nothing is lost either.
func TestBindUnprivileged(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("the other tests show it")
	}
	dir, err := os.MkdirTemp("", "nobody")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	os.Chmod(dir, 0o777)
	self, _ := os.ReadFile(binary)
	bin := filepath.Join(dir, "handoff")
	os.WriteFile(bin, self, 0o755)
	port := freePort(t)
	cmd := exec.Command(bin, "run", "-n", "2", "--log", "json", "--", "/usr/bin/python3", "-m", "http.server", port, "--bind", "127.0.0.1")
	if _, err := os.Stat("/usr/bin/python3"); err != nil {
		t.Skip("needs a python3 that nobody may run")
	}
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HANDOFF_STATE_DIR=", "HOME="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	log, _ := os.Create(filepath.Join(dir, "log"))
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	awaitFile(t, log.Name(), `"cluster.started"`)
	run := startLoad(load.Config{Addr: "127.0.0.1:" + port, Clients: 4})
	run.Await(50, testTimeout)
	cmd.Process.Signal(syscall.SIGUSR2)
	awaitFile(t, log.Name(), `"cluster.reloaded"`)
	awaitFile(t, log.Name(), `"worker.shutdown"`)
	run.Await(50, testTimeout)
	r := run.Stop()
	t.Log(r)
	if r.Lost() > 0 {
		t.Errorf("%d lost", r.Lost())
	}
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		b, _ := os.ReadFile(log.Name())
		t.Errorf("%v\n%s", err, b)
	}
}

// A worker of another user than handoff's says that it is ready; nobody else can send to its
// socket, or to the keeper's.
func TestNotifySocketsAreClosedToOthers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become nobody")
	}
	const interpreter = "/usr/bin/python3" // that nobody may run
	if _, err := os.Stat(interpreter); err != nil {
		t.Skip(err)
	}
	o := python(t, `
n = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
n.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
s = http.server.ThreadingHTTPServer(("127.0.0.1", port), H); s.serve_forever()`,
		options{flags: []string{"-n", "1", "--user", "nobody", "--ready-when", "ready"}, env: []string{"PORT=" + freePort(t)}})
	o.app[0] = interpreter
	for dir := filepath.Dir(o.app[1]); dir != "/tmp" && dir != "/"; dir = filepath.Dir(dir) {
		os.Chmod(dir, 0o755)
	}
	w := start(t, o)
	for _, pid := range []int{w.workers()[0], w.master()} {
		environ, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		_, rest, _ := strings.Cut(string(environ), "NOTIFY_SOCKET=")
		path, _, _ := strings.Cut(rest, "\x00")
		stranger := exec.Command(interpreter, "-c", "import socket, sys; socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'READY=1', sys.argv[1])", path)
		stranger.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 12345, Gid: 12345}}
		if out, err := stranger.CombinedOutput(); err == nil || !strings.Contains(string(out), "PermissionError") {
			t.Errorf("%s: %v %s", path, err, out)
		}
	}
	w.reload()
	w.stop()
}

// READY=1 on the notify socket; another worker's process is not believed.
func TestNotifyReady(t *testing.T) {
	t.Parallel()
	w := launch(t, python(t, `
s = http.server.HTTPServer(("127.0.0.1", port), H)
threading.Thread(target=s.serve_forever).start()
n = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
def say(to, what): n.sendto(what, to)
me = os.environ["NOTIFY_SOCKET"]
slot = os.environ["WORKER_ID"]
open("notify-" + slot, "w").write(me)
if slot == "0":
    # Forge the other one's readiness, again and again, then say one's own.
    while not os.path.exists("notify-1") or not open("notify-1").read(): pass
    other = open("notify-1").read()
    for i in range(20000): say(other, b"READY=1\nSTATUS=%d" % i)
    open("forged", "w").write("x")
    say(me, b"STATUS=warm\nREADY=1")
else:
    while not os.path.exists("go"): pass
    say(me, b"READY=1")
`, options{flags: []string{"-n", "2", "--ready-when", "ready"}, env: []string{"PORT=" + freePort(t)}}))
	if e := w.await("worker.ready"); e.Slot != 0 {
		t.Errorf("slot %d is ready first", e.Slot)
	}
	awaitFile(t, filepath.Join(w.dir, "forged"), "x")
	if n := len(w.all("cluster.started")); n != 0 {
		t.Error("a forged READY=1 was believed")
	}
	os.WriteFile(filepath.Join(w.dir, "go"), []byte("x"), 0o644)
	if e := w.await("worker.ready"); e.Slot != 1 {
		t.Errorf("%+v", e)
	}
	w.await("cluster.started")
	w.stop()
}

// A port that each worker needs for itself is not held.
func TestNoHold(t *testing.T) {
	t.Parallel()
	own := freePort(t)
	w := start(t, python(t, `
d = socket.socket(); d.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1); d.bind(("127.0.0.1", `+own+`)); d.listen()
s = http.server.HTTPServer(("127.0.0.1", port), H); s.serve_forever()
`, options{flags: []string{"-n", "2", "--no-hold", own}, env: []string{"PORT=" + freePort(t)}}))
	if e := w.all("cluster.started")[0]; strings.Contains(e.Addresses, own) {
		t.Errorf("%s is held", own)
	}
	w.reload()
	w.stop()
}

// Bind, close and bind again; a second bind of what is open; SO_REUSEPORT twice.
func TestBindTwice(t *testing.T) {
	t.Parallel()
	w := start(t, python(t, `
a = socket.socket(); a.bind(("127.0.0.1", port)); a.close()
b = socket.socket(); b.bind(("127.0.0.1", port))
try:
    c = socket.socket(); c.bind(("127.0.0.1", port)); print("bound twice", file=sys.stderr)
except OSError as e:
    print("second bind:", e.strerror, file=sys.stderr)
b.close()
class R(http.server.HTTPServer):
    def server_bind(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        http.server.HTTPServer.server_bind(self)
servers = [R(("127.0.0.1", port), H) for _ in range(2)]
for s in servers: threading.Thread(target=s.serve_forever).start()
`, options{flags: []string{"-n", "1"}, env: []string{"PORT=" + freePort(t)}}))
	if !strings.Contains(w.stderr(), "second bind: Address already in use") {
		t.Errorf("stderr %q", w.stderr())
	}
	run := w.load(load.Config{Clients: 8})
	run.Await(100, testTimeout)
	w.reload()
	w.retired(1)
	run.Await(100, testTimeout)
	w.nothingLost(run)
	w.stop()
}

// A pre-forking server: one process binds, its children accept. A grandchild
// that outlives it, with its stderr and its filter, does not hold up its end.
func TestPrefork(t *testing.T) {
	t.Parallel()
	w := start(t, python(t, `
s = http.server.HTTPServer(("127.0.0.1", port), H)
kids = [os.fork() for _ in range(2)] if True else []
if 0 in kids:
    s.serve_forever()
def end(*a):
    for k in kids: os.kill(k, signal.SIGTERM)
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
while True: signal.pause()
`, options{flags: []string{"-n", "1"}, env: []string{"PORT=" + freePort(t)}}))
	resp, err := fresh.Get("http://" + w.addr)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	w.reload()
	w.retired(1)
	w.stop()
	if n := len(w.all("worker.terminated")); n > 0 {
		t.Errorf("%d workers are thought to live on", n)
	}
}

// A program that is not there, and one that cannot be executed.
func TestTrampolineErrors(t *testing.T) {
	t.Parallel()
	bad := filepath.Join(t.TempDir(), "bad")
	os.WriteFile(bad, []byte("\x7fELF nonsense"), 0o755)
	w := launch(t, options{flags: []string{"-n", "1", "--max-failures", "1"}, app: []string{bad}})
	e := w.await("cluster.failed")
	if !strings.Contains(e.Stderr, "cannot run "+bad) || !strings.Contains(fmt.Sprint(e), "126") {
		t.Errorf("%+v", e)
	}
	w.exits(1)
}

// process.send({cmd: 'ready'}) is heard from behind a launcher too, which has no
// channel to pass on; and `handoff notify` from any program.
func TestReadyBehindALauncher(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"node":  {"sh", "-c", "node server.js; exit $?"},
		"shell": {"sh", "-c", binary + " notify READY=1 STATUS=warm && exec python3 -m http.server $PORT --bind 127.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			os.WriteFile(filepath.Join(dir, "server.js"), []byte(`
require('http').createServer((q, r) => r.end('ok')).listen(process.env.PORT, '127.0.0.1', () => {
  process.send({ cmd: 'other' })
  process.send({ cmd: 'ready' }, (err) => console.error('sent', err))
})`), 0o644)
			port := freePort(t)
			w := start(t, options{flags: []string{"-n", "2", "--ready-when", "ready"}, app: args, dir: dir, env: []string{"PORT=" + port}})
			run := w.load(load.Config{Clients: 2})
			run.Await(50, testTimeout)
			w.reload()
			run.Await(50, testTimeout)
			run.Stop() // python is ready before it listens, by its own word
			if n := len(w.all("worker.crashed")); n > 0 {
				t.Errorf("%d crashes", n)
			}
			w.stop()
		})
	}
}
