package integration

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"handoff/internal/load"
)

// goProgram is testdata/any/NAME, built.
func goProgram(name string) string { return filepath.Join(programs, name) }

// keepAlive reloads n times under clients that keep their connections, some
// without pause, some with one, and retry nothing.
func keepAlive(t *testing.T, w *world, workers, n int) {
	t.Helper()
	hot := w.load(load.Config{Mode: load.KeepAlive, Clients: 16})
	calm := w.load(load.Config{Mode: load.KeepAlive, Clients: 16, Pause: 10_000_000})
	fresh := w.load(load.Config{Clients: 8})
	for range n {
		hot.Await(50, testTimeout)
		calm.Await(50, testTimeout)
		w.reload()
		w.retired(workers)
	}
	w.nothingLost(hot)
	w.nothingLost(calm)
	w.nothingLost(fresh)
}

// A Go program with the SDK loses nothing to keep-alive clients, under either
// contract.
func TestGoSDK(t *testing.T) {
	t.Parallel()
	app := goProgram("gosdk")
	for _, flags := range [][]string{{"--ready-when", "ready"}, {"--listen", "127.0.0.1:%"}, {"--contract", "activation", "--listen", "web=127.0.0.1:%"}} {
		t.Run(strings.Join(flags, " "), func(t *testing.T) {
			t.Parallel()
			port := freePort(t)
			given := append([]string{"-n", "2", "--keepalive-linger", "500ms"}, flags...)
			for i := range given {
				given[i] = strings.ReplaceAll(given[i], "%", port)
			}
			w := start(t, options{flags: given, app: []string{app}, env: []string{"PORT=" + port}})
			keepAlive(t, w, 2, times(50, 5))
			w.stop()
		})
	}
}

// Long-lived connections are told to go, slot by slot when that is asked for.
func TestDrainSpread(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	w := start(t, options{flags: []string{"-n", "2", "--drain-spread", "2s", "--keepalive-linger", "10ms"},
		app: []string{goProgram("gosdk")}, env: []string{"PORT=" + port}})
	w.reload()
	first, second := w.await("worker.draining"), w.await("worker.draining")
	if apart := second.Time.Sub(first.Time); apart < 800_000_000 { // a second, less the quiet of the first
		t.Errorf("two workers drain %v apart, want about a second", apart)
	}
	w.retired(2)
	w.stop()
}

// A worker that stops pinging is replaced, then killed; what waits at its socket
// is answered by its replacement.
func TestWatchdog(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	w := start(t, options{flags: []string{"-n", "1", "--watchdog", "500ms"}, app: []string{goProgram("gosdk")}, env: []string{"PORT=" + port}})
	run := w.load(load.Config{Clients: 4})
	run.Await(100, testTimeout)
	old := w.all("worker.ready")[0]
	if _, err := fresh.Get("http://" + w.addr + "/hang"); err != nil {
		t.Fatal(err)
	}
	if e := w.await("worker.hung"); e.Worker != old.Worker {
		t.Errorf("%+v", e)
	}
	w.awaitWhere("worker.ready", func(e event) bool { return e.Worker != old.Worker })
	w.awaitWhere("worker.killed", func(e event) bool { return e.Worker == old.Worker })
	run.Await(100, testTimeout)
	r := run.Stop()
	t.Log(r)
	// It served while it hung: what was inside it when it was killed is lost.
	if r.Lost() > 4 {
		t.Errorf("%d lost, at most the 4 that were inside the worker may be", r.Lost())
	}
	w.stop()
}

// A stopped process cannot ping. Its accept queue is answered by others.
func TestWatchdogOfAStoppedWorker(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	w := start(t, options{flags: []string{"-n", "2", "--watchdog", "500ms"}, app: []string{goProgram("gosdk")}, env: []string{"PORT=" + port}})
	old := w.all("worker.ready")[0]
	run := w.load(load.Config{Clients: 8})
	run.Await(100, testTimeout)
	syscall.Kill(old.PID, syscall.SIGSTOP)
	w.awaitWhere("worker.killed", func(e event) bool { return e.Worker == old.Worker })
	run.Await(50, testTimeout)
	r := run.Stop()
	t.Log(r)
	if r.Lost() > 8 || r.Failed[load.Refused] > 0 || r.Failed[load.Timeout] > 0 {
		t.Errorf("%v: only what was inside the worker may be lost", r)
	}
	w.stop()
}

// EXTEND_TIMEOUT_USEC: a worker that asks for it boots for longer than the ready
// timeout allows.
func TestExtend(t *testing.T) {
	t.Parallel()
	w := start(t, options{flags: []string{"-n", "1", "--ready-when", "ready", "--ready-timeout", "1s", "--max-failures", "1"},
		app: []string{goProgram("gosdk")}, env: []string{"PORT=" + freePort(t), "BOOT=1500ms"}})
	w.stop()
}

// A worker asks for its replacement.
func TestReplaceFromGo(t *testing.T) {
	t.Parallel()
	w := start(t, options{flags: []string{"-n", "1"}, app: []string{goProgram("gosdk")}, env: []string{"PORT=" + freePort(t)}})
	run := w.load(load.Config{Clients: 4})
	run.Await(50, testTimeout)
	resp, err := fresh.Get("http://" + w.addr + "/replace")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	w.await("worker.leaving")
	w.retired(1)
	run.Await(50, testTimeout)
	w.nothingLostMixed(run)
	w.stop()
}

// Programs that know systemd's protocol and nothing of handoff's.
// SIGTERM of somebody else is a wish to be replaced: connections still come to the
// worker, and it takes them until its replacement does.
func TestTermOfAStranger(t *testing.T) {
	t.Parallel()
	w := start(t, options{flags: []string{"-n", "1", "--keepalive-linger", "500ms"}, app: []string{goProgram("gosdk")}, env: []string{"PORT=" + freePort(t)}})
	fresh := w.load(load.Config{Clients: 8})
	kept := w.load(load.Config{Mode: load.KeepAlive, Clients: 8, Pause: 1_000_000})
	for range times(20, 3) {
		fresh.Await(50, testTimeout)
		syscall.Kill(w.serving()[0], syscall.SIGTERM)
		w.await("worker.leaving")
		w.await("worker.ready")
		w.settled(1)
	}
	w.nothingLost(fresh)
	w.nothingLost(kept)
	w.stop()
}

// A shared socket is as its users have it: a worker that starts does not make it
// block the others, who would hang in accept(2) and not drain.
func TestSharedSocketStaysNonBlocking(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.sock")
	w := start(t, options{flags: []string{"-n", "2", "--listen", "unix:" + path, "--keepalive-linger", "100ms"}, app: []string{goProgram("gosdk")},
		env: []string{"NETWORK=unix", "PORT=" + path, "BOOT=1s"}})
	before := w.workers()
	w.signal(syscall.SIGTTIN)
	w.awaitWhere("worker.started", func(e event) bool { return e.Slot == 2 }) // and boots
	for range 8 {                                                             // each of the old ones is in accept(2) again
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		if b, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 200") {
			t.Errorf("%q, %v", b, err)
		}
		c.Close()
	}
	w.awaitWhere("worker.ready", func(e event) bool { return e.Slot == 2 })
	w.reload()
	w.settled(3)
	if n := len(w.all("worker.terminated")); n > 0 {
		t.Errorf("%d workers had to be told by SIGTERM, of %v", n, before)
	}
	w.stop()
}

func TestActivation(t *testing.T) {
	t.Parallel()
	t.Run("gunicorn", func(t *testing.T) {
		t.Parallel()
		if _, err := exec.LookPath("gunicorn"); err != nil {
			t.Skip("gunicorn is not here")
		}
		port, dir := freePort(t), t.TempDir()
		os.CopyFS(dir, os.DirFS(data("any")))
		w := start(t, options{flags: []string{"-n", "2", "--contract", "activation", "--listen", "127.0.0.1:" + port},
			app: []string{"gunicorn", "app:app"}, dir: dir})
		reloadsOf(t, w, 2, times(20, 3))
		w.stop()
	})
	t.Run("node, listen({fd: 3})", func(t *testing.T) {
		t.Parallel()
		port, dir := freePort(t), t.TempDir()
		app := filepath.Join(dir, "app.js")
		os.WriteFile(app, []byte(`require('http').createServer((q, r) => r.end('ok\n')).listen({ fd: 3 })`), 0o644)
		for _, contract := range []string{"node", "bind"} {
			w := start(t, options{flags: []string{"-n", "2", "--contract", contract, "--listen", "127.0.0.1:" + port}, app: []string{app}})
			reloadsOf(t, w, 2, times(20, 3))
			w.stop()
		}
	})
	// The names, the pid, blocking sockets, a path with its mode.
	t.Run("python", func(t *testing.T) {
		t.Parallel()
		port, dir := freePort(t), t.TempDir()
		path := filepath.Join(dir, "s")
		w := start(t, python(t, `
assert os.environ["LISTEN_PID"] == str(os.getpid()), os.environ["LISTEN_PID"]
assert os.environ["LISTEN_FDS"] == "2" and os.environ["LISTEN_FDNAMES"] == "web:unknown", os.environ["LISTEN_FDNAMES"]
assert os.get_blocking(3) and os.get_blocking(4)
u = socket.socket(fileno=4); assert u.getsockname() == "`+path+`", u.getsockname()
def unix():
    while True:
        c, _ = u.accept(); c.sendall(b"hello"); c.close()
threading.Thread(target=unix, daemon=True).start()
s = http.server.HTTPServer(("127.0.0.1", port), H, bind_and_activate=False)
s.socket = socket.socket(fileno=3)
n = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); n.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
s.serve_forever()
`, options{flags: []string{"-n", "2", "--contract", "activation", "--listen", "web=127.0.0.1:" + port, "--listen", path + ",mode=600"},
			env: []string{"PORT=" + port, "LISTEN_FDS=7", "LISTEN_PID=1"}}))
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v; want mode 600", info.Mode(), err)
		}
		reloadsOf(t, w, 2, times(20, 3))
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 5)
		if _, err := c.Read(b); err != nil || string(b) != "hello" {
			t.Errorf("%q, %v", b, err)
		}
		w.stop()
		if _, err := os.Stat(path); err == nil {
			t.Error("the path is left over")
		}
	})
	// Who ignores what it is given, and binds the same address, gets it.
	t.Run("ignored", func(t *testing.T) {
		t.Parallel()
		port := freePort(t)
		w := start(t, python(t, `s = http.server.HTTPServer(("127.0.0.1", port), H); s.serve_forever()`,
			options{flags: []string{"-n", "2", "--listen", "127.0.0.1:" + port}, env: []string{"PORT=" + port}}))
		reloadsOf(t, w, 2, times(20, 3))
		w.stop()
	})
}

func reloadsOf(t *testing.T, w *world, workers, n int) {
	t.Helper()
	run := w.load(load.Config{Clients: 8})
	run.Await(50, testTimeout)
	w.reload()
	w.retired(workers)
	before := w.ledger()
	for range n - 1 {
		w.reload()
		w.retired(workers)
		run.Await(20, testTimeout)
	}
	w.nothingLost(run)
	if after := w.ledger(); len(after) != len(before) {
		t.Errorf("descriptors %d, before %d\n%v\n%v", len(after), len(before), after, before)
	}
}

// What cannot be given is said, before anything starts.
func TestListenErrors(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, c := range []struct {
		flags []string
		want  string
		code  int
	}{
		{[]string{"--listen", l.Addr().String()}, "cannot listen on " + l.Addr().String() + ": address already in use", 1},
		{[]string{"--listen", "unix:/no/such/folder/s"}, "cannot listen on /no/such/folder/s: no such file or directory", 1},
		{[]string{"--listen", "nonsense"}, `invalid --listen "nonsense": want [NAME=]8000`, 2},
		{[]string{"--contract", "activation"}, "--contract activation requires at least one --listen ADDR", 2},
		{[]string{"--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"}, "twice", 1},
	} {
		cmd := exec.Command(binary, append(append([]string{"run"}, c.flags...), "--", "true")...)
		out, _ := cmd.CombinedOutput()
		if !strings.Contains(string(out), c.want) || cmd.ProcessState.ExitCode() != c.code || strings.Count(string(out), "\n") > 2 {
			t.Errorf("%v: exit code %d, %s", c.flags, cmd.ProcessState.ExitCode(), out)
		}
	}
}

// Sockets that a service manager has passed to handoff are what it listens with,
// and their queue outlives it.
func TestSocketsOfTheServiceManager(t *testing.T) {
	t.Parallel()
	var cfg net.ListenConfig // listens, without SO_REUSEPORT
	cfg.SetMultipathTCP(false)
	l, err := cfg.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	port := strings.TrimPrefix(l.Addr().String(), "127.0.0.1:")
	w := start(t, options{flags: []string{"-n", "2"}, app: []string{goProgram("gosdk")}, env: []string{"PORT=" + port}, passed: []*os.File{f}})
	reloadsOf(t, w, 2, times(20, 5))
	if s := fmt.Sprint(w.all("address.shared")); s != "[]" {
		t.Errorf("not steerable: %s", s)
	}
	w.stop()
	// The service manager still listens.
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// An MPTCP socket, which cannot be one of a group, is shared by all.
func TestMPTCPOfTheServiceManager(t *testing.T) {
	t.Parallel()
	var cfg net.ListenConfig
	cfg.SetMultipathTCP(true)
	l, err := cfg.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := start(t, options{flags: []string{"-n", "2"}, app: []string{goProgram("gosdk")},
		env: []string{"PORT=" + strings.TrimPrefix(l.Addr().String(), "127.0.0.1:")}, passed: []*os.File{f}})
	if len(w.all("address.shared")) != 1 {
		t.Error("it is not said that the socket is shared")
	}
	run := w.load(load.Config{Clients: 8})
	run.Await(50, testTimeout)
	w.reload()
	w.retired(2)
	w.nothingLostMixed(run)
	w.stop()
}

// Go binds with MPTCP, to which the kernel attaches no program: a port 0 of its
// choice is taken over as TCP, and steered.
func TestPortOfItsOwnChoiceInGo(t *testing.T) {
	t.Parallel()
	w := start(t, options{flags: []string{"-n", "2"}, app: []string{goProgram("goserver")}, env: []string{"PORT=0"}})
	reloadsOf(t, w, 2, times(20, 3))
	if e := w.all("address.hash"); len(e) > 0 {
		t.Errorf("not steered: %+v", e)
	}
	w.stop()
}
