package integration

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"handoff/internal/load"
)

func loopback(n int) []net.IP {
	var ips []net.IP
	for i := range n {
		ips = append(ips, net.IPv4(127, 0, 2, byte(i+1)))
	}
	return ips
}

// awaitQueue waits until n connections are queued at the first address.
func (w *world) awaitQueue(n int) {
	w.t.Helper()
	_, port, _ := net.SplitHostPort(w.addr)
	p, _ := strconv.Atoi(port)
	suffix := fmt.Sprintf(":%04X", p)
	for deadline := time.Now().Add(testTimeout); ; {
		queued := 0
		for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
			b, _ := os.ReadFile(file)
			for line := range strings.Lines(string(b)) {
				f := strings.Fields(line)
				if len(f) > 4 && f[3] == "0A" && strings.HasSuffix(f[1], suffix) {
					_, rx, _ := strings.Cut(f[4], ":")
					q, _ := strconv.ParseInt(rx, 16, 64)
					queued += int(q)
				}
			}
		}
		if queued >= n {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("%d connections queued, want %d", queued, n)
		}
		<-time.After(time.Millisecond)
	}
}

// script writes a program and returns its path.
func script(t *testing.T, source string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "app.js")
	if err := os.WriteFile(path, []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func get(t *testing.T, client *http.Client, url string) string {
	t.Helper()
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var fresh = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

func TestHosts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, listen, addr, dial string }{
		{"any", "0", "[::]:", "127.0.0.1"},
		{"any, by IPv6", "0", "[::]:", "::1"},
		{"IPv4", "0, '127.0.0.1'", "127.0.0.1:", "127.0.0.1"},
		{"IPv4 any", "0, '0.0.0.0'", "0.0.0.0:", "127.0.0.1"},
		{"IPv6", "0, '::1'", "[::1]:", "::1"},
		{"IPv6 only", "{port: 0, host: '::', ipv6Only: true}", "[::]:", "::1"},
		{"localhost", "{port: 0, host: 'localhost'}", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := start(t, options{flags: []string{"-n", "2"}, app: []string{script(t,
				"require('http').createServer((q, r) => r.end('ok')).listen("+c.listen+")")}})
			e := w.all("cluster.started")[0]
			if !strings.HasPrefix(e.Addresses, c.addr) {
				t.Fatalf("listens on %s, want %s", e.Addresses, c.addr)
			}
			dial := e.Addresses
			if c.dial != "" {
				_, port, _ := net.SplitHostPort(dial)
				dial = net.JoinHostPort(c.dial, port)
			}
			if got := get(t, fresh, "http://"+dial+"/"); got != "ok" {
				t.Errorf("%q", got)
			}
			if c.name == "IPv6 only" {
				_, port, _ := net.SplitHostPort(dial)
				if conn, err := net.Dial("tcp4", "127.0.0.1:"+port); err == nil {
					conn.Close()
					t.Error("IPv4 is answered too")
				}
			}
			w.reload()
			if again := w.all("cluster.reloaded")[0].Addresses; again != e.Addresses {
				t.Errorf("after a reload it listens on %s, before on %s: a port 0 stays", again, e.Addresses)
			}
			get(t, fresh, "http://"+dial+"/")
			w.stop()
		})
	}
}

// Several ports, two ports 0, and a second listen on a port of one's own.
func TestSeveralPorts(t *testing.T) {
	t.Parallel()
	w := start(t, options{flags: []string{"-n", "2", "--ready-when", "ready"}, app: []string{script(t, `
const http = require('http')
const ports = []
const listen = (...a) => new Promise((resolve) => {
  const s = http.createServer((q, r) => r.end(JSON.stringify(ports)))
  s.on('error', (e) => { ports.push(e.code); resolve() })
  s.listen(...a, () => { ports.push(s.address().port); resolve() })
})
;(async () => {
  await listen(0, '127.0.0.1'); await listen(0, '127.0.0.1')
  await listen(ports[0], '127.0.0.1')
  const once = http.createServer().listen(ports[1] + 0, '127.0.0.2', () => once.close(() => {
    http.createServer((q, r) => r.end()).listen(ports[1], '127.0.0.2', () => { ports.push('again'); process.send('ready') })
  }))
})()`)}})
	var first string
	for range 8 {
		got := get(t, fresh, "http://"+w.addr+"/")
		var ports []any
		if err := json.Unmarshal([]byte(got), &ports); err != nil || len(ports) != 4 || ports[0] == ports[1] || ports[2] != "EADDRINUSE" || ports[3] != "again" {
			t.Fatalf("%s", got)
		}
		if first == "" {
			first = got
		}
		if got != first {
			t.Errorf("workers have %s and %s", first, got)
		}
	}
	w.stop()
}

func TestErrorsReachTheProgram(t *testing.T) {
	t.Parallel()
	foreign, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { foreign.Close() })
	_, port, _ := net.SplitHostPort(foreign.Addr().String())
	for name, c := range map[string]struct{ listen, want string }{
		"a foreign process":  {port + ", '127.0.0.1'", "EADDRINUSE"},
		"no such address":    {"0, '192.0.2.1'", "EADDRNOTAVAIL"},
		"a folder in vain":   {"'/nonexistent/x.sock'", "ENOENT"},
		"a path that is too": {"'/tmp/" + strings.Repeat("x", 120) + "'", "EINVAL"},
		"no descriptor":      {"{fd: 99}", "EBADF"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := launch(t, options{flags: []string{"-n", "1", "--max-failures", "1"}, app: []string{script(t, `
require('net').createServer().on('error', (e) => { console.error('got', e.code); process.exit(3) }).listen(`+c.listen+`)`)}})
			w.exits(1)
			if !strings.Contains(w.stderr(), "got "+c.want) {
				t.Errorf("the program got %q, want %s", w.stderr(), c.want)
			}
			if e := w.all("cluster.failed"); len(e) != 1 || e[0].Reason != "exited with code 3" && (c.want != "EADDRINUSE" || !strings.Contains(e[0].Reason, fmt.Sprintf("(pid %d) listens there", os.Getpid()))) {
				t.Errorf("%+v", e)
			}
		})
	}
}

func TestPrivilegedPortIsRefused(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root to become nobody")
	}
	// As nobody, on a port below 1024: EACCES, from the kernel by way of the
	// master.
	dir, err := os.MkdirTemp("", "nobody")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	os.Chmod(dir, 0o777)
	app := filepath.Join(dir, "app.js")
	os.WriteFile(app, []byte("require('net').createServer().on('error', (e) => { console.error('got', e.code); process.exit(3) }).listen(81, '127.0.0.1')"), 0o644)
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if err != nil || strings.TrimSpace(string(b)) == "0" {
		t.Skip("every port is unprivileged here")
	}
	bin := filepath.Join(dir, "handoff")
	self, _ := os.ReadFile(binary)
	os.WriteFile(bin, self, 0o755)
	cmd := command(bin, "run", "-n", "1", "--max-failures", "1", app)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HANDOFF_STATE_DIR=", "HOME="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, _ := cmd.CombinedOutput()
	if !strings.Contains(string(out), "got EACCES") || cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("%s", out)
	}
}

func TestUnixSocket(t *testing.T) {
	t.Parallel()
	for _, relative := range []bool{false, true} {
		t.Run(fmt.Sprint("relative ", relative), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := filepath.Join(dir, "app.sock")
			name := path
			if relative {
				name = "app.sock"
			}
			// A server that was killed has left its socket behind.
			stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
			if err != nil {
				t.Fatal(err)
			}
			stale.SetUnlinkOnClose(false)
			stale.Close()

			w := start(t, options{flags: []string{"-n", "2"}, dir: dir, app: []string{script(t,
				"require('http').createServer((q, r) => r.end('ok')).listen('"+name+"')")}})
			before, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			run := startLoad(load.Config{Network: "unix", Addr: path})
			for range 3 {
				w.reload()
				w.retired(2)
			}
			w.nothingLost(run)
			after, err := os.Stat(path)
			if err != nil || !os.SameFile(before, after) {
				t.Errorf("the path is not kept across reloads: %v", err)
			}
			w.stop()
			if _, err := os.Stat(path); !os.IsNotExist(err) {
				t.Errorf("the path is left behind: %v", err)
			}
		})
	}
}

// A path at which somebody answers is not taken over.
func TestUnixSocketInUse(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.sock")
	other, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	w := launch(t, options{flags: []string{"-n", "1", "--max-failures", "1"}, app: []string{script(t,
		"require('net').createServer().on('error', (e) => { console.error('got', e.code); process.exit(3) }).listen('"+path+"')")}})
	w.exits(1)
	if !strings.Contains(w.stderr(), "got EADDRINUSE") {
		t.Error(w.stderr())
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

func TestUDP(t *testing.T) {
	t.Parallel()
	w := start(t, options{flags: []string{"-n", "2"}, app: []string{script(t, `
const s = require('dgram').createSocket('udp4')
s.on('message', (m, from) => s.send(process.env.HANDOFF_GENERATION + ' ' + m, from.port, from.address))
s.bind(0, '127.0.0.1')`)}})
	addr := strings.TrimPrefix(w.all("cluster.started")[0].Addresses, "udp ")
	conn, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ask := func(n int) string {
		conn.SetDeadline(time.Now().Add(testTimeout))
		fmt.Fprintf(conn, "%d", n)
		b := make([]byte, 100)
		k, err := conn.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:k])
	}
	for i := range 50 {
		if got := ask(i); got != fmt.Sprint("1 ", i) {
			t.Errorf("%q", got)
		}
	}
	w.reload()
	w.retired(2)
	for i := range 50 {
		if got := ask(i); got != fmt.Sprint("2 ", i) {
			t.Errorf("%q", got)
		}
	}
	w.stop()
}

// TLS sessions are resumed across workers and generations: all have the ticket
// keys of the first.
func TestTLSTickets(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"x"}}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, _ := x509.MarshalPKCS8PrivateKey(key)
	os.WriteFile(filepath.Join(dir, "cert.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
	os.WriteFile(filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600)
	w := start(t, options{flags: []string{"-n", "3"}, dir: dir, app: []string{script(t, `
const fs = require('fs')
require('https').createServer({ key: fs.readFileSync('key.pem'), cert: fs.readFileSync('cert.pem') }, (q, r) => {
  r.setHeader('X-Pid', process.pid); r.end('ok')
}).listen(0)`)}})
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{
		InsecureSkipVerify: true, ServerName: "x", ClientSessionCache: tls.NewLRUClientSessionCache(4)}}}
	pids := map[string]bool{}
	full := 0
	ask := func() {
		resp, err := client.Get("https://" + w.addr + "/")
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		pids[resp.Header.Get("X-Pid")] = true
		if !resp.TLS.DidResume {
			full++
		}
	}
	for range 30 {
		ask()
	}
	w.reload()
	for range 30 {
		ask()
	}
	if full != 1 || len(pids) < 4 {
		t.Errorf("%d full handshakes of 60 with %d workers, want one", full, len(pids))
	}
	w.stop()
}

// What a program sees of cluster, and of its environment.
func TestClusterAPI(t *testing.T) {
	t.Parallel()
	w := start(t, options{flags: []string{"-n", "2", "--ready-when", "ready", "--env", "GREETING=hello"},
		env: []string{"NODE_OPTIONS=--no-deprecation --title=\"my app\"", "NOTIFY_SOCKET=/x", "LISTEN_FDS=3", "HANDOFF_X=1"},
		app: []string{script(t, `
const cluster = require('cluster'), http = require('http'), cp = require('child_process'), { Worker } = require('worker_threads')
const child = JSON.parse(cp.execFileSync(process.execPath, ['-p', 'JSON.stringify(process.env)']))
const w = cluster.worker
const seen = { isWorker: cluster.isWorker, isPrimary: cluster.isPrimary, id: w.id, state: w.state, slot: process.env.WORKER_ID,
  generation: process.env.HANDOFF_GENERATION, connected: process.connected, channel: process.env.NODE_CHANNEL_FD, unique: process.env.NODE_UNIQUE_ID,
  options: process.env.NODE_OPTIONS, childOptions: child.NODE_OPTIONS, childKeys: Object.keys(child).filter((k) => /^(NODE_C|NODE_U|HANDOFF_P|LISTEN)/.test(k)),
  notify: child.NOTIFY_SOCKET === '/x',
  greeting: process.env.GREETING, title: process.title, args: process.argv.slice(2), execArgv: process.execArgv, stdin: require('fs').readlinkSync('/proc/self/fd/0') }
new Worker('require("worker_threads").parentPort.postMessage(process.env.NODE_OPTIONS || "none")', { eval: true }).on('message', (m) => {
  seen.thread = m
  http.createServer((q, r) => r.end(JSON.stringify(seen))).listen(0, () => process.send({ cmd: 'ready' }))
})`), "--port", "80"}})
	var seen map[string]any
	if err := json.Unmarshal([]byte(get(t, fresh, "http://"+w.addr+"/")), &seen); err != nil {
		t.Fatal(err)
	}
	options := `--no-deprecation --title="my app"`
	for k, want := range map[string]any{"isWorker": true, "isPrimary": false, "generation": "1", "connected": true,
		"channel": nil, "unique": nil, "options": options, "childOptions": options, "thread": options, "greeting": "hello",
		"title": "my app", "stdin": "/dev/null", "notify": false} {
		if seen[k] != want {
			t.Errorf("%s is %v, want %v", k, seen[k], want)
		}
	}
	if fmt.Sprint(seen["args"]) != "[--port 80]" || fmt.Sprint(seen["execArgv"]) != "[]" || fmt.Sprint(seen["childKeys"]) != "[]" {
		t.Errorf("%v", seen)
	}
	first := seen["id"].(float64)
	w.reload()
	json.Unmarshal([]byte(get(t, fresh, "http://"+w.addr+"/")), &seen)
	if second := seen["id"].(float64); first < 1 || second <= first || seen["generation"] != "2" {
		t.Errorf("cluster.worker.id %v, then %v", first, second)
	}
	w.stop()
}

// "Replace me", in each of its forms: a replacement serves first.
func TestReplaceMe(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		say   string
		flags []string
	}{
		"cmd disconnect":         {"process.send({ cmd: 'disconnect' })", nil},
		"request-restart":        {"process.send({ event: 'request-restart' })", nil},
		"worker.disconnect":      {"require('cluster').worker.disconnect()", nil},
		"disconnect, no preload": {"require('cluster').worker.disconnect()", []string{"--no-preload"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := start(t, options{flags: append([]string{"-n", "2", "--respawn", "0.05"}, c.flags...), app: []string{script(t, `
require('http').createServer((q, r) => {
  if (q.url === '/leave') setImmediate(() => { `+c.say+` })
  r.setHeader('Connection', 'close')
  r.end(String(process.pid))
}).listen(0)`)}})
			run := w.load(load.Config{Clients: 8})
			run.Await(50, testTimeout)
			pid, _ := strconv.Atoi(get(t, fresh, "http://"+w.addr+"/leave"))
			if e := w.await("worker.leaving"); e.PID != pid {
				t.Errorf("worker %d leaves, want %d", e.PID, pid)
			}
			if len(c.flags) == 0 {
				w.await("worker.ready") // before:
				if e := w.await("worker.draining"); e.PID != pid {
					t.Errorf("worker %d drains, want %d", e.PID, pid)
				}
			}
			w.retired(1)
			run.Await(50, testTimeout)
			w.nothingLost(run)
			for len(w.all("worker.ready")) < 3 {
				w.await("worker.ready")
			}
			if n := len(w.all("worker.started")); n != 3 || len(w.workers()) != 2 {
				t.Errorf("%d workers were started, want one replacement; %d run", n, len(w.workers()))
			}
			w.stop()
		})
	}
}

// Huge, malformed and strange lines on the channel do no harm.
func TestHostileChannel(t *testing.T) {
	t.Parallel()
	w := start(t, options{flags: []string{"-n", "1", "--ready-when", "ready"}, app: []string{script(t, `
const fs = require('fs')
const raw = (s) => fs.writeSync(3, s)
process.channel.ref()
const big = 'x'.repeat(700 * 1024)
process.send({ big: big + big })
for (let i = 0; i < 2000; i++) process.send({ hello: i, cmd: i })
setTimeout(() => {
  raw('not json\n{"cmd":"NODE_CLUSTER","act":"nonsense"}\n{"cmd":"NODE_CLUSTER","ack":99,"accepted":false}\n{"cmd":"NODE_HANDLE_ACK"}\n')
  raw('{"cmd":"NODE_CLUSTER","act":"close","key":"no such"}\n{"cmd":"NODE_CLUSTER","act":"queryServer","port":1e99,"addressType":4}\n')
  raw('{"cmd":"NODE_CLUSTER","act":"queryServer","port":99999,"addressType":4,"seq":1000,"address":"%%"}\n[]\n"\n')
  const s = require('net').createServer().listen({ port: 0, exclusive: true }, () => process.send({ server: 1 }, s))
  require('http').createServer((q, r) => r.end('ok')).listen(0, () => process.send('ready'))
}, 200)`)}})
	if got := get(t, fresh, "http://"+w.addr+"/"); got != "ok" {
		t.Errorf("%q", got)
	}
	if n := len(w.all("worker.garbled")); n < 3 || n > 8 {
		t.Errorf("%d reports of dropped messages", n)
	}
	w.reload()
	w.stop()
}

// A worker that asks and asks and does not read what it gets is ended; the
// master's memory stays bounded.
func TestFloodingWorkerIsKilled(t *testing.T) {
	t.Parallel()
	w := launch(t, options{flags: []string{"-n", "1", "--max-failures", "1", "--contract", "node"}, app: []string{"python3", "-c", `
import socket, os
s = socket.socket(fileno=int(os.environ["NODE_CHANNEL_FD"]))
q = b'{"cmd":"NODE_CLUSTER","act":"queryServer","address":"%%","port":1,"addressType":4,"seq":%d}\n'
for i in range(1000000): s.sendall(q % i)
`}})
	if e := w.await("worker.killed"); !strings.Contains(e.Msg, "does not read") {
		t.Errorf("%+v", e)
	}
	w.exits(1)
}

// A rogue worker ends its listening socket, and makes it blocking: noticed,
// mended, and named.
func TestRogueWorker(t *testing.T) {
	t.Parallel()
	w := start(t, options{flags: []string{"-n", "2"}, app: []string{script(t, `
const { spawn } = require('child_process')
const server = require('http').createServer((q, r) => {
  if (q.url === '/shutdown') rogue('s.shutdown(2)')
  if (q.url === '/block') rogue('s.setblocking(True)')
  r.setHeader('Connection', 'close')
  r.end(String(process.pid))
}).on('error', () => {}).listen(0)
function rogue (act) {
  spawn('python3', ['-c', 'import socket; s = socket.socket(fileno=3); ' + act], { stdio: ['ignore', 'inherit', 'inherit', server._handle.fd] })
}`)}})
	pid, _ := strconv.Atoi(get(t, fresh, "http://"+w.addr+"/shutdown"))
	if e := w.await("address.mended"); e.PID != pid || !strings.Contains(e.Msg, "shutdown") {
		t.Errorf("%+v, want worker %d", e, pid)
	}
	// Its listening socket serves again, in the right place of the group.
	seen := map[string]int{}
	for range 60 {
		seen[get(t, fresh, "http://"+w.addr+"/")]++
	}
	if len(seen) != 2 {
		t.Errorf("served by %v", seen)
	}
	pid, _ = strconv.Atoi(get(t, fresh, "http://"+w.addr+"/block"))
	run := w.load(load.Config{Clients: 2}) // looked at while connections come
	if e := w.await("address.mended"); e.PID != pid || !strings.Contains(e.Msg, "O_NONBLOCK") {
		t.Errorf("%+v, want worker %d", e, pid)
	}
	w.nothingLost(run)
	w.stop()
}

// ESM with top-level await, a shell before node, node's own options.
func TestForms(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "app.mjs"), []byte(`
import http from 'node:http'
await new Promise((resolve) => setTimeout(resolve, 20))
http.createServer((q, r) => r.end('ok')).listen(0)`), 0o644)
	os.WriteFile(filepath.Join(dir, "app.cjs"), []byte(`require('http').createServer((q, r) => r.end(global.x || 'ok')).listen(0)`), 0o644)
	os.WriteFile(filepath.Join(dir, "x.cjs"), []byte(`global.x = 'ok'`), 0o644)
	for name, app := range map[string][]string{
		"mjs":     {"app.mjs"},
		"cjs":     {"app.cjs"},
		"shell":   {"sh", "-c", "node app.cjs"},
		"exec":    {"sh", "-c", "exec node app.cjs"},
		"require": {"node", "--require", "./x.cjs", "app.cjs"},
		"import":  {"node", "--import", "./x.cjs", "app.mjs"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := start(t, options{flags: []string{"-n", "2"}, dir: dir, app: app})
			run := w.load(load.Config{Clients: 8, Mode: load.KeepAlive})
			run.Await(50, testTimeout)
			w.reload()
			w.retired(2)
			w.nothingLost(run)
			w.stop()
		})
	}
}

// A server on a descriptor that the program has from elsewhere.
func TestListenFD(t *testing.T) {
	t.Parallel()
	app := script(t, "require('http').createServer((q, r) => r.end('ok')).listen({ fd: 9 })")
	w := start(t, options{flags: []string{"-n", "1", "--contract", "node"}, app: []string{"python3", "-c", `
import socket, os, sys
s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen()
os.dup2(s.fileno(), 9)
print(s.getsockname()[1], flush=True)
os.execvp("node", ["node", sys.argv[1]])
`, app}})
	port := strings.TrimSpace(w.out.String())
	if got := get(t, fresh, "http://127.0.0.1:"+port+"/"); got != "ok" {
		t.Errorf("%q", got)
	}
	w.stop()
}

// A program behind a line protocol, to see a plain net server drain.
func TestNetServer(t *testing.T) {
	t.Parallel()
	w := start(t, options{flags: []string{"-n", "2"}, app: []string{script(t, `
require('net').createServer((c) => { c.on('error', () => {}); c.on('data', (d) => c.write(process.env.HANDOFF_GENERATION + ' ' + d)); c.on('end', () => c.end()) }).listen(0)`)}})
	c, err := net.Dial("tcp", w.addr)
	if err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(c)
	say := func(s string) string {
		fmt.Fprintln(c, s)
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(line)
	}
	if got := say("a"); got != "1 a" {
		t.Errorf("%q", got)
	}
	w.reload()
	w.retired(1) // the other one has the connection
	if got := say("b"); got != "1 b" {
		t.Errorf("%q: the connection does not live through the reload", got)
	}
	c.Close()
	w.retired(1)
	w.stop()
}
