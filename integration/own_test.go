package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"handoff/internal/load"
)

// What a program does with sockets of its own goes as without handoff: it listens when it
// says so, keeps its options, probes ports and closes them again, has ports of the kernel's
// choice for itself, locks a port, and connects from one.
func TestOwnSockets(t *testing.T) {
	t.Parallel()
	ports := []string{freePort(t), freePort(t), freePort(t), freePort(t)}
	w := start(t, python(t, `
import errno
probe, lock, *source = [int(p) for p in os.environ["PORTS"].split()]
who = os.environ["WORKER_ID"] + " of " + os.environ["HANDOFF_GENERATION"] # lines that several starts have in common are said once
def say(what, ok=True): print(what if ok else "NOT " + what, who, file=sys.stderr, flush=True)
def bound(addr, *options):
    s = socket.socket()
    for o in options: s.setsockopt(*o)
    s.bind(addr)
    return s
for addr in ("127.0.0.1", "", "127.0.0.1", "127.0.0.2", ""):
    s = bound((addr, probe), (socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)); s.listen(); s.close()
say("probed")
own = bound(("127.0.0.1", 0)); own.listen(64)
for _ in range(20):
    c = socket.create_connection(own.getsockname()); a, peer = own.accept()
    if peer != c.getsockname(): say("private", False)
    c.close(); a.close()
say("private")
try:
    locked = bound(("127.0.0.1", lock)); say("locked")
except OSError as e:
    say("refused", e.errno == errno.EADDRINUSE)
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 77)
s.bind(("127.0.0.1", port)); inode = os.fstat(s.fileno()).st_ino
say("not listening", s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 0)
s.listen(7)
say("own", os.fstat(s.fileno()).st_ino == inode and s.getsockopt(socket.IPPROTO_IP, socket.IP_TTL) == 77)
say("listening", s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1)
c = bound(("127.0.0.1", source[int(os.environ["WORKER_ID"])]), (socket.SOL_SOCKET, socket.SO_REUSEADDR, 1))
c.connect(("127.0.0.1", port)); say("connected"); c.close()
server = http.server.HTTPServer(("127.0.0.1", port), H, bind_and_activate=False)
server.socket.close(); server.socket = s
server.serve_forever()
`, options{flags: []string{"-n", "2", "--hold", "1-65535"}, env: []string{"PORT=" + freePort(t), "PORTS=" + strings.Join(ports, " ")}}))
	if len(w.all("address.own")) == 0 {
		t.Error("nobody is told of a port that each worker has for itself")
	}
	run := w.load(load.Config{Clients: 4})
	run.Await(20, testTimeout)
	for range 2 {
		w.reload()
		w.retired(2)
		run.Await(20, testTimeout)
	}
	w.nothingLost(run)
	w.stop()
	for what, n := range map[string]int{"probed": 6, "private": 6, "locked": 1, "not listening": 6, "own": 6, "listening": 6, "connected": 6, "NOT": 0} {
		got := 0
		for line := range strings.Lines(w.stderr()) {
			if strings.HasPrefix(strings.TrimSpace(line), what) {
				got++
			}
		}
		if got < n || got > n && what == "NOT" {
			t.Errorf("%d workers are %s, want %d: %s", got, what, n, w.stderr())
		}
	}
}

// A new version listens on an address that covers the old one's: who connects to that comes to
// the new version at once, and the old address is closed with its last worker.
func TestWiderAddress(t *testing.T) {
	t.Parallel()
	w := start(t, python(t, `
any = int(os.environ["HANDOFF_GENERATION"]) > 1
http.server.ThreadingHTTPServer(("" if any else "127.0.0.1", port), H).serve_forever()
`, options{flags: []string{"-n", "2"}, env: []string{"PORT=" + freePort(t)}}))
	run := w.load(load.Config{Clients: 4, Follow: true})
	run.Await(20, testTimeout)
	w.reload()
	w.retired(2)
	w.await("address.closed")
	run.Await(20, testTimeout)
	w.nothingLost(run)
	w.stop()
}

// HAProxy asks its sockets whether they listen, and leaves those alone that do.
func TestHAProxy(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("haproxy"); err != nil {
		t.Skip("haproxy is not here")
	}
	port, dir := freePort(t), t.TempDir()
	conf := "defaults\n mode http\n timeout client 30s\n timeout server 30s\n timeout connect 5s\n" +
		"frontend f\n bind 127.0.0.1:" + port + "\n http-request return status 200 content-type text/plain string ok\n"
	if err := os.WriteFile(filepath.Join(dir, "haproxy.cfg"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	w := start(t, options{flags: []string{"-n", "2", "--drain-signal", "USR1"}, app: []string{"haproxy", "-db", "-f", "haproxy.cfg"}, dir: dir})
	run := w.load(load.Config{Clients: 8})
	run.Await(50, testTimeout)
	for range times(20, 5) {
		w.reload()
		w.retired(2)
		run.Await(50, testTimeout)
	}
	w.nothingLost(run)
	w.stop()
}
