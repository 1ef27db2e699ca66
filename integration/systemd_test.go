package integration

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/load"
)

// manager is a strict service manager: it believes the main process only, and
// wants what sd_notify(3) says in its order.
type manager struct {
	t    *testing.T
	conn *net.UnixConn
	env  []string

	mu    sync.Mutex // guards kept
	kept  map[string][]*os.File
	mark  chan struct{} // the marker was read
	ready chan int      // the main processes that have said READY=1, as they do
}

func newManager(t *testing.T) *manager {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	raw, _ := c.SyscallConn()
	raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
	return &manager{t: t, conn: c, env: []string{"NOTIFY_SOCKET=" + path}, kept: map[string][]*os.File{}, mark: make(chan struct{}, 1), ready: make(chan int, 1000)}
}

// await returns the next notice that has a line.
func (m *manager) await(w *world, line string) string {
	m.t.Helper()
	buf, oob := make([]byte, 4096), make([]byte, 256)
	m.conn.SetReadDeadline(time.Now().Add(testTimeout))
	for {
		n, oobn, _, _, err := m.conn.ReadMsgUnix(buf, oob)
		if err != nil {
			m.t.Fatalf("no %s: %v", line, err)
		}
		messages, _ := unix.ParseSocketControlMessage(oob[:oobn])
		cred, err := unix.ParseUnixCredentials(&messages[0])
		if err != nil || int(cred.Pid) != w.pid() {
			m.t.Errorf("%q is from %+v, want the main process %d", buf[:n], cred, w.pid())
		}
		text := string(buf[:n])
		for l := range strings.Lines(text) {
			if strings.TrimSpace(l) == line {
				return text
			}
		}
		if strings.Contains(text, "READY=1") || strings.Contains(text, "STOPPING=1") {
			m.t.Fatalf("%q where %s was wanted", text, line)
		}
	}
}

// Type=notify, Type=notify-reload, and the watchdog, under a master that is
// killed and one that is upgraded.
func TestServiceManager(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	w := start(t, options{flags: []string{"-n", "2"}, env: append(m.env, "WATCHDOG_USEC=300000")})
	if text := m.await(w, "READY=1"); !strings.Contains(text, "STATUS=Generation 1 serves on ") {
		t.Errorf("%q", text)
	}
	w.reload()
	if text := m.await(w, "RELOADING=1"); !strings.Contains(text, "MONOTONIC_USEC=") || !strings.Contains(text, "EXTEND_TIMEOUT_USEC=") {
		t.Errorf("%q", text)
	}
	m.await(w, "READY=1")
	for range 3 {
		m.await(w, "WATCHDOG=1")
	}
	w.killMaster()
	m.await(w, "READY=1")
	m.await(w, "WATCHDOG=1")
	m.await(w, "WATCHDOG=1")
	w.signal(syscall.SIGTERM)
	m.await(w, "STOPPING=1")
	w.exits(0)
}

// A reload that fails is over for the service manager too, or it would wait.
func TestServiceManagerSeesAFailedReload(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	dir := t.TempDir()
	app := filepath.Join(dir, "app.js")
	put(t, app, "require('http').createServer((q, r) => r.end('ok')).listen(process.env.PORT)", 0o644)
	w := start(t, options{flags: []string{"-n", "1", "--max-failures", "1"}, app: []string{app}, env: append(m.env, "PORT="+freePort(t))})
	m.await(w, "READY=1")
	put(t, app, "process.exit(3)", 0o644)
	w.signal(syscall.SIGUSR2)
	m.await(w, "RELOADING=1")
	if text := m.await(w, "READY=1"); !strings.Contains(text, "failed") {
		t.Errorf("%q", text)
	}
	w.stop()
}

// The keeper dies: the master starts another, which takes over without a loss;
// the pid file says who it is.
func TestKeeperIsKilled(t *testing.T) {
	t.Parallel()
	for name, o := range survivors(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pidFile := filepath.Join(t.TempDir(), "pid")
			o.flags = append(o.flags, "--pid-file", pidFile)
			w := start(t, o)
			fresh := w.load(load.Config{Clients: 8})
			kept := w.load(load.Config{Mode: load.KeepAlive, Clients: 8, Pause: 1_000_000})
			workers := w.workers()
			for range times(20, 3) {
				fresh.Await(50, testTimeout)
				w.killKeeper(pidFile)
				kept.Await(50, testTimeout)
			}
			if now := w.workers(); fmt.Sprint(now) != fmt.Sprint(workers) {
				t.Errorf("workers %v, before %v", now, workers)
			}
			settled := w.ledger()
			w.killKeeper(pidFile)
			if now := w.ledger(); len(now) != len(settled) {
				t.Errorf("descriptors %d, before %d\n%v\n%v", len(now), len(settled), now, settled)
			}
			w.killMaster()
			w.reload()
			w.settled(4)
			w.nothingLost(fresh)
			w.nothingLost(kept)
			w.stop()
		})
	}
}

// killKeeper ends the keeper with -9, and waits for the next one and its master.
// From then on the world is that one's.
func (w *world) killKeeper(pidFile string) {
	w.t.Helper()
	old := w.pid()
	syscall.Kill(old, syscall.SIGKILL)
	w.await("keeper.died")
	w.await("master.adopted")
	b, err := os.ReadFile(pidFile)
	if err != nil {
		w.t.Fatal(err)
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	if pid == old || pid <= 0 {
		w.t.Fatalf("the pid file says %d, the keeper was %d", pid, old)
	}
	w.keeper = pid
}

// A master that has come by an upgrade starts a new keeper like any other.
func TestKeeperIsKilledAfterAnUpgrade(t *testing.T) {
	t.Parallel()
	run, pidFile := t.TempDir(), filepath.Join(t.TempDir(), "pid")
	env := []string{"HANDOFF_RUNTIME_DIR=" + run}
	w := start(t, options{flags: []string{"-n", "2", "--pid-file", pidFile}, env: env})
	fresh := w.load(load.Config{Clients: 4})
	for range 2 { // also where the keeper is one that was started so
		if out, errs, code := handoff(t, env, "upgrade"); code != 0 {
			t.Fatalf("exit code %d\n%s%s", code, out, errs)
		}
		w.await("master.upgraded")
		w.killKeeper(pidFile)
		fresh.Await(100, testTimeout)
	}
	w.reload()
	w.nothingLost(fresh)
	w.stop()
}

// A service manager that keeps descriptors starts handoff again after its keeper
// was killed, whatever the master did: everything is adopted.
func TestServiceManagerKeepsTheStore(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	go m.store() // ends with its socket
	w := start(t, options{flags: []string{"-n", "4"}, env: append(m.env, "FDSTORE=4096"), again: true})
	fresh := w.load(load.Config{Clients: 8})
	kept := w.load(load.Config{Mode: load.KeepAlive, Clients: 8, Pause: 1_000_000})
	workers := w.workers()
	for round := range times(20, 4) {
		fresh.Await(50, testTimeout)
		if round%2 == 0 {
			syscall.Kill(w.master(), syscall.SIGKILL) // both
		}
		w.cmd.Process.Kill()
		w.again(m)
		w.await("master.adopted")
		kept.Await(50, testTimeout)
	}
	if now := w.workers(); fmt.Sprint(now) != fmt.Sprint(workers) {
		t.Errorf("workers %v, before %v", now, workers)
	}
	w.reload()
	w.settled(4)
	w.nothingLost(fresh)
	w.nothingLost(kept)
	w.stop()
	if left := m.stored(); len(left) > 0 {
		t.Errorf("left in the service manager's store: %v", left)
	}
}

// store does what FileDescriptorStoreMax has a service manager do, until the
// socket is closed: it adds, also where the name is there, and removes by name.
func (m *manager) store() {
	buf, oob := make([]byte, 4096), make([]byte, 256)
	for {
		n, oobn, _, _, err := m.conn.ReadMsgUnix(buf, oob)
		if err != nil {
			return
		}
		if string(buf[:n]) == "MARK" {
			m.mark <- struct{}{}
			continue
		}
		said := map[string]string{}
		for line := range strings.Lines(string(buf[:n])) {
			k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
			said[k] = v
		}
		var files []*os.File
		messages, _ := unix.ParseSocketControlMessage(oob[:oobn])
		for i := range messages {
			fds, _ := unix.ParseUnixRights(&messages[i])
			for _, fd := range fds {
				unix.CloseOnExec(fd)
				files = append(files, os.NewFile(uintptr(fd), said["FDNAME"]))
			}
		}
		if cred, err := unix.ParseUnixCredentials(&messages[0]); err == nil && said["READY"] == "1" {
			m.ready <- int(cred.Pid)
		}
		m.mu.Lock()
		switch name := said["FDNAME"]; {
		case said["FDSTOREREMOVE"] == "1":
			for _, f := range m.kept[name] {
				f.Close()
			}
			delete(m.kept, name)
		case said["FDSTORE"] == "1":
			m.kept[name] = append(m.kept[name], files...)
		}
		m.mu.Unlock()
	}
}

// stored is what is in the store, after all that was said.
func (m *manager) stored() (files []*os.File) {
	m.t.Helper()
	c, err := net.Dial("unixgram", m.conn.LocalAddr().String())
	if err != nil {
		m.t.Fatal(err)
	}
	defer c.Close()
	c.Write([]byte("MARK"))
	<-m.mark
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, fs := range m.kept {
		files = append(files, fs...)
	}
	return files
}

// again is what a service manager with Restart=always does when the main process
// has died, with KillMode=process.
func (w *world) again(m *manager) {
	w.t.Helper()
	unix.Waitid(unix.P_PID, w.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
	files := m.stored()
	var names []string
	for _, f := range files {
		names = append(names, f.Name())
	}
	env := slices.DeleteFunc(slices.Clone(w.cmd.Env), func(kv string) bool { return strings.HasPrefix(kv, "LISTEN_") })
	args := w.cmd.Args
	if args[0] != "sh" {
		args = append([]string{"sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`}, args...)
	}
	w.cmd.Wait() // the workers have its stdout: it is not waited for
	next := exec.Command(args[0], args[1:]...)
	next.Dir, next.Stdout, next.Stderr, next.SysProcAttr = w.cmd.Dir, w.cmd.Stdout, w.errors, w.cmd.SysProcAttr
	next.Env = append(env, fmt.Sprintf("LISTEN_FDS=%d", len(files)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	next.ExtraFiles = files
	if err := next.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.cmd, w.keeper = next, next.Process.Pid
	for late := time.After(testTimeout); ; {
		select {
		case pid := <-m.ready:
			if pid == w.keeper {
				return
			}
		case <-late:
			w.t.Fatal("no READY=1 of the new main process: the start would time out")
		}
	}
}
