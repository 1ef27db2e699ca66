package integration

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// hung heeds no SIGTERM, and neither does the daemon that it starts, which has left every
// process group and session of its.
const hung = `
import http.server, os, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 100)
        while True: signal.pause()
    os._exit(0)
os.wait()
http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), http.server.SimpleHTTPRequestHandler).serve_forever()`

// A worker that hangs behind a program that does not share its process group is killed,
// and all that it has started: after reloads only the last generation is there, and
// nothing after a stop.
func TestDescendantsEndWithTheirWorker(t *testing.T) {
	t.Parallel()
	mark := "MARK=" + t.Name() + strconv.Itoa(os.Getpid())
	port := freePort(t)
	w := start(t, options{flags: []string{"-n", "1", "--drain-timeout", "0.2", "--kill-grace", "0.1"},
		app: []string{"setsid", "-w", "python3", "-c", hung}, env: []string{mark, "PORT=" + port}})
	t.Cleanup(func() {
		for _, pid := range marked(mark) {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	for range 2 {
		w.reload()
	}
	// setsid, the server and its daemon; keeper and master
	for deadline := time.Now().Add(testTimeout); len(marked(mark)) != 5; {
		if time.Now().After(deadline) {
			t.Fatalf("there are %d processes, want 5", len(marked(mark)))
		}
		<-time.After(5 * time.Millisecond)
	}
	w.stop()
	if left := marked(mark); len(left) > 0 {
		t.Errorf("%d processes are left", len(left))
	}
	if slices.Contains(listeningPorts(), port) {
		t.Error("the port is taken")
	}
}

// forks serves each request in a process of its own, and does not wait for them.
const forks = `
import http.server, os, signal, socketserver, threading, time
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if "SESSION" in os.environ: os.setsid()
        with open("asked", "w") as f: f.write("yes")
        while not os.path.exists("answer"): time.sleep(0.005)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *a): pass
class S(socketserver.ForkingMixIn, http.server.HTTPServer):
    block_on_close = False
s = S(("127.0.0.1", int(os.environ["PORT"])), H)
signal.signal(signal.SIGTERM, lambda *a: threading.Thread(target=s.shutdown).start() if os.getpid() == main else os._exit(1))
main = os.getpid()
s.serve_forever(0.01)
os._exit(0)`

// Children of a server that has drained, or was killed, serve on, at a stop too: they have
// the drain timeout, in sessions of their own as well.
func TestChildrenOfAServerDrain(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		env  string
		ends func(w *world)
	}{
		"stop":            {"A=1", func(w *world) { w.signal(syscall.SIGTERM); w.await("worker.shutdown") }},
		"stop, session":   {"SESSION=1", func(w *world) { w.signal(syscall.SIGTERM); w.await("worker.shutdown") }},
		"reload, session": {"SESSION=1", func(w *world) { w.reload(); w.await("worker.shutdown") }},
		"crash, session": {"SESSION=1", func(w *world) {
			syscall.Kill(w.workers()[0], syscall.SIGKILL)
			w.await("worker.crashed")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := start(t, options{flags: []string{"-n", "1"}, app: []string{"python3", "-c", forks}, env: []string{"PORT=" + freePort(t), c.env}})
			answered := make(chan error, 1)
			go func() { // ends with the answer
				resp, err := http.Get("http://" + w.addr)
				if err == nil {
					resp.Body.Close()
				}
				answered <- err
			}()
			awaitFile(t, filepath.Join(w.dir, "asked"), "yes")
			c.ends(w)
			w.await("worker.descendants")
			if err := os.WriteFile(filepath.Join(w.dir, "answer"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := <-answered; err != nil {
				t.Error(err)
			}
			if strings.HasPrefix(name, "stop") {
				w.exits(0)
			} else {
				w.stop()
			}
		})
	}
}

// marked are the processes that have a variable in their environment.
func marked(mark string) (pids []int) {
	all, _ := os.ReadDir("/proc")
	for _, e := range all {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if b, _ := os.ReadFile("/proc/" + e.Name() + "/environ"); slices.Contains(strings.Split(string(b), "\x00"), mark) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// listeningPorts are those on which somebody listens over IPv4.
func listeningPorts() (ports []string) {
	b, _ := os.ReadFile("/proc/net/tcp")
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 4 || f[3] != "0A" {
			continue
		}
		if n, err := strconv.ParseUint(f[1][strings.IndexByte(f[1], ':')+1:], 16, 16); err == nil {
			ports = append(ports, strconv.FormatUint(n, 10))
		}
	}
	return ports
}

// A Node program that is no server ends as it would alone, once, though it has a channel
// to handoff.
func TestNodeTask(t *testing.T) {
	t.Parallel()
	for _, name := range nodes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			put(t, filepath.Join(dir, "task.mjs"), "await new Promise((done) => setTimeout(done, 100))\n", 0o644)
			w := launch(t, options{flags: []string{"-n", "1"}, app: []string{"task.mjs"}, dir: dir, env: nodeEnv(t, name)})
			if e := w.await("cluster.failed"); !strings.HasPrefix(e.Reason, "ended by itself with exit code 0 before it listened") {
				t.Error(e.Reason)
			}
			w.exits(1)
			if n := len(w.all("worker.started")); n != 1 {
				t.Errorf("it was started %d times", n)
			}
		})
	}
}
