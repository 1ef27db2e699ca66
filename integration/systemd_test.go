package integration

import (
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// manager is a strict service manager: it believes the main process only, and
// wants what sd_notify(3) says in its order.
type manager struct {
	t    *testing.T
	conn *net.UnixConn
	env  []string
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
	return &manager{t, c, []string{"NOTIFY_SOCKET=" + path}}
}

// await returns the next notice that has a line.
func (m *manager) await(w *world, line string) string {
	m.t.Helper()
	buf, oob := make([]byte, 4096), make([]byte, 256)
	m.conn.SetReadDeadline(time.Now().Add(patience))
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
	m.await(w, "WATCHDOG=1")
	m.await(w, "WATCHDOG=1")
	w.signal(syscall.SIGTERM)
	m.await(w, "STOPPING=1")
	w.exits(0)
}

// A reload that fails is over for the service manager too, or it would wait.
func TestServiceManagerSeesAFailedReload(t *testing.T) {
	m := newManager(t)
	dir := t.TempDir()
	app := filepath.Join(dir, "app.js")
	put(t, app, "require('http').createServer((q, r) => r.end('ok')).listen(process.env.PORT)", 0o644)
	w := start(t, options{flags: []string{"-n", "1", "--max-failures", "1"}, app: []string{app}, env: append(m.env, "PORT="+freePort(t))})
	m.await(w, "READY=1")
	put(t, app, "process.exit(3)", 0o644)
	w.signal(syscall.SIGUSR2)
	m.await(w, "RELOADING=1")
	if text := m.await(w, "READY=1"); !strings.Contains(text, "was given up") {
		t.Errorf("%q", text)
	}
	w.stop()
}

// The keeper dies: the master says so, and serves on.
func TestKeeperIsKilled(t *testing.T) {
	w := start(t, options{flags: []string{"-n", "2"}})
	master, workers := w.master(), w.workers()
	w.cmd.Process.Kill()
	w.await("keeper.died")
	c, err := net.Dial("tcp", w.addr)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	for _, pid := range workers {
		if s := processState(pid); s == "" || s == "Z" {
			t.Errorf("worker %d is gone", pid)
		}
	}
	syscall.Kill(master, syscall.SIGTERM)
	w.await("cluster.stopped")
	w.cmd.Wait()
}
