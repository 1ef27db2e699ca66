package integration

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"handoff/internal/load"
)

// Regression tests: a defect that a review found, and its repair, each.

// waiting opens n connections, from many addresses, that send nothing yet.
func waiting(t *testing.T, addr string, n int) []net.Conn {
	t.Helper()
	var conns []net.Conn
	for i := range n {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 3, byte(i%200+1))}}
		c, err := d.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		conns = append(conns, c)
	}
	return conns
}

// answers sends a request on each and counts the good answers.
func answers(conns []net.Conn) int {
	var mu sync.Mutex
	good := 0
	var wg sync.WaitGroup
	for _, c := range conns {
		wg.Go(func() {
			c.SetDeadline(time.Now().Add(20 * time.Second))
			fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
			if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err == nil && resp.StatusCode == 200 {
				mu.Lock()
				good++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return good
}

// A long queue of a dead worker does not overrun the live one.
func TestLongQueueIsRescued(t *testing.T) {
	t.Parallel()
	w := start(t, options{flags: []string{"-n", "2", "--balance", "sticky"}})
	victim := w.workers()[0]
	syscall.Kill(victim, syscall.SIGSTOP)
	conns := waiting(t, w.addr, 2500)
	w.awaitQueue(500)
	syscall.Kill(victim, syscall.SIGKILL)
	w.await("worker.crashed")
	if n := answers(conns); n != len(conns) {
		t.Errorf("%d of %d connections are answered", n, len(conns))
	}
	if n := len(w.all("worker.crashed")) + len(w.all("worker.killed")); n != 1 {
		t.Errorf("%d workers died", n)
	}
	w.stop()
}

// Everybody dies, one after the other: what was handed to the second waits for
// the replacements.
func TestQueuesOfAllDeadWorkers(t *testing.T) {
	t.Parallel()
	w := start(t, options{flags: []string{"-n", "2", "--respawn", "0.05"}})
	pids := w.workers()
	for _, pid := range pids {
		syscall.Kill(pid, syscall.SIGSTOP)
	}
	conns := waiting(t, w.addr, 40)
	w.awaitQueue(40)
	for i, pid := range pids {
		syscall.Kill(pid, syscall.SIGKILL)
		if i == 0 {
			w.await("address.rescued")
		}
	}
	if n := answers(conns); n != len(conns) {
		t.Errorf("%d of %d connections are answered", n, len(conns))
	}
	w.stop()
}

// An address on which the program listens long after it is ready is not lost in
// a reload.
func TestSecondAddressListensLate(t *testing.T) {
	t.Parallel()
	w := start(t, options{flags: []string{"-n", "2"}, app: []string{script(t, `
const http = require('http')
const serve = (port, cb) => http.createServer((q, r) => { r.setHeader('Connection', 'close'); r.end('ok') }).listen(port, '127.0.0.1', cb)
serve(0, function () { setTimeout(() => serve(0), 6000) })
`)}})
	// The second port 0 is told by nobody: find it among what handoff holds.
	second := ""
	for deadline := time.Now().Add(testTimeout); second == ""; {
		for _, port := range listening(t, w.pid()) {
			if "127.0.0.1:"+port != w.addr {
				second = "127.0.0.1:" + port
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("no second address")
		}
		<-time.After(20 * time.Millisecond)
	}
	run := startLoad(load.Config{Addr: second, Clients: 4, Timeout: 20 * time.Second})
	run.Await(100, testTimeout)
	w.reload()
	w.retired(2)
	run.Await(50, testTimeout)
	w.nothingLost(run)
	w.stop()
}

// listening returns the ports on which a process has listening sockets.
func listening(t *testing.T, pid int) []string {
	t.Helper()
	out, err := exec.Command("ss", "-Hltnp").Output()
	if err != nil {
		t.Skip("needs ss")
	}
	seen := map[string]bool{}
	var ports []string
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) < 5 || !strings.Contains(line, fmt.Sprintf("pid=%d,", pid)) {
			continue
		}
		_, port, _ := net.SplitHostPort(f[3])
		if !seen[port] {
			seen[port] = true
			ports = append(ports, port)
		}
	}
	return ports
}

// Every port of a program has its backlog back.
func TestBacklogOfEveryPort(t *testing.T) {
	t.Parallel()
	w := start(t, options{flags: []string{"-n", "1", "--ready-when", "ready"}, app: []string{script(t, `
const http = require('http')
http.createServer().listen(0, '127.0.0.1', () => http.createServer().listen(0, '127.0.0.1', () => process.send('ready')))
`)}})
	out, err := exec.Command("ss", "-Hltnp").Output()
	if err != nil {
		t.Skip("needs ss")
	}
	limit, _ := os.ReadFile("/proc/sys/net/core/somaxconn")
	n := 0
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); strings.Contains(line, fmt.Sprintf("pid=%d,", w.pid())) {
			n++
			if f[2] != strings.TrimSpace(string(limit)) {
				t.Errorf("backlog of %s is %s, want %s", f[3], f[2], limit)
			}
		}
	}
	if n != 2 {
		t.Errorf("%d sockets", n)
	}
	w.stop()
}

// A reader of stderr that is stuck holds up nothing but the log.
func TestStuckLogReader(t *testing.T) {
	t.Parallel()
	r, p, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for full := make([]byte, 4096); ; {
		p.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
		if _, err := p.Write(full); err != nil {
			break
		}
	}
	pidFile := filepath.Join(t.TempDir(), "pid")
	port := freePort(t)
	cmd := exec.Command(binary, "run", "-n", "2", "--log", "json", "--pid-file", pidFile, data("server.js"))
	cmd.Env = append(os.Environ(), "PORT="+port, "HOST=127.0.0.1")
	cmd.Stderr = p
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.Close()
	t.Cleanup(func() { cmd.Process.Kill() })
	w := &world{t: t, cmd: cmd}
	awaitPort(t, port)
	old := w.workers()
	syscall.Kill(old[0], syscall.SIGKILL)
	for deadline := time.After(testTimeout); ; {
		if now := w.workers(); len(now) == 2 && now[0] != old[0] && now[1] != old[0] {
			break
		}
		select {
		case <-deadline:
			t.Fatal("the crashed worker is not replaced while the log's reader is stuck")
		case <-time.After(5 * time.Millisecond):
		}
	}
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("stop: %v", err)
	}
}

// freePort returns a port that nobody listens on, below those that the kernel
// chooses (net.ipv4.ip_local_port_range), and another one each time: or a client's
// connection, or another test, would have it before it is used.
func freePort(t *testing.T) string {
	t.Helper()
	for range 1000 {
		port := strconv.Itoa(20000 + int(nextPort.Add(1))%12000)
		ln, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err == nil {
			ln.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return ""
}

var nextPort = func() *atomic.Int64 {
	n := new(atomic.Int64)
	n.Store(int64(os.Getpid() * 101))
	return n
}()

func awaitPort(t *testing.T, port string) {
	t.Helper()
	for deadline := time.Now().Add(testTimeout); ; {
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// A worker that has left its process group is killed all the same.
func TestWorkerOutsideItsGroupIsKilled(t *testing.T) {
	t.Parallel()
	w := start(t, options{
		flags: []string{"-n", "1", "--drain-timeout", "0.5", "--kill-grace", "0.5", "--contract", "node"},
		app: []string{"python3", "-c", `
import os, sys
os.setpgid(0, os.getpgid(os.getppid()))
os.execvp("node", ["node", sys.argv[1]])
`, data("stubborn.js")}})
	w.signal(syscall.SIGTERM)
	w.await("worker.killed")
	w.exits(0)
	syscall.Kill(-w.pid(), syscall.SIGKILL) // its child, in what was handoff's group
}

// A second instance is refused its pid file, and leaves it alone.
func TestPidFileOfAnother(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "pid")
	w := start(t, options{flags: []string{"-n", "1", "--pid-file", file}})
	out, err := exec.Command(binary, "run", "--pid-file", file, data("server.js")).CombinedOutput()
	if err == nil || !strings.Contains(string(out), fmt.Sprintf("process %d has it", w.pid())) {
		t.Errorf("%v\n%s", err, out)
	}
	if b, err := os.ReadFile(file); err != nil || strings.TrimSpace(string(b)) != fmt.Sprint(w.pid()) {
		t.Errorf("%q, %v", b, err)
	}
	w.stop()
}

// Options of node's that look like scripts, and the permission model.
func TestNodeOptions(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "app.js"), []byte("require('http').createServer((q, r) => r.end(String(global.x))).listen(0)"), 0o644)
	os.WriteFile(filepath.Join(dir, "x.cjs"), []byte("global.x = 1"), 0o644)
	os.Mkdir(filepath.Join(dir, "bin"), 0o755)
	os.WriteFile(filepath.Join(dir, "bin", "www"), []byte("require('../app.js')"), 0o644)
	for name, app := range map[string][]string{
		"--require=": {"node", "--require=./x.cjs", "app.js"},
		"-r":         {"node", "-r", "./x.cjs", "app.js"},
		"bin/www":    {"node", "bin/www", "--config", "missing.js"},
		"no ending":  {"node", "app"},
		"permission": {"node", "--experimental-permission", "--allow-fs-read=" + dir + "/*", "app.js"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name == "permission" && !strings.HasPrefix(nodeVersion(t, nil), "v20") {
				app = append([]string{"node", "--permission"}, app[2:]...)
				if strings.HasPrefix(nodeVersion(t, nil), "v18") {
					t.Skip("no permission model")
				}
			}
			w := start(t, options{flags: []string{"-n", "1"}, dir: dir, app: app})
			want := "undefined"
			if strings.HasPrefix(name, "-") {
				want = "1"
			}
			if got := get(t, fresh, "http://"+w.addr+"/"); got != want {
				t.Errorf("%q, want %q", got, want)
			}
			w.stop()
		})
	}
}

// Two servers on descriptors of the program's own.
func TestListenFDTwice(t *testing.T) {
	t.Parallel()
	app := script(t, `
const http = require('http')
http.createServer((q, r) => r.end('a')).listen({ fd: 9 }, () => http.createServer((q, r) => r.end('b')).listen({ fd: 10 }, () => process.send('ready')))`)
	w := start(t, options{flags: []string{"-n", "1", "--ready-when", "ready", "--contract", "node"}, app: []string{"python3", "-c", `
import socket, os, sys
for fd in (9, 10):
    s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen()
    os.dup2(s.fileno(), fd)
    print(s.getsockname()[1], flush=True)
os.execvp("node", ["node", sys.argv[1]])
`, app}})
	for i, port := range strings.Fields(w.out.String()) {
		if got := get(t, fresh, "http://127.0.0.1:"+port+"/"); got != string(rune('a'+i)) {
			t.Errorf("%q", got)
		}
	}
	w.stop()
}
