package integration

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"handoff/internal/load"
)

// modules skips a test whose npm packages are not there; CI has them.
func modules(t *testing.T, name string) {
	t.Helper()
	if _, err := os.Stat(filepath.Join("node_modules", name)); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("node_modules/%s is missing: make node_modules", name)
		}
		t.Skipf("node_modules/%s is missing: make node_modules", name)
	}
}

// example is one of examples/node, as its users run it.
func example(t *testing.T, name string) options {
	modules, _ := filepath.Abs("node_modules")
	return options{flags: []string{"-n", "4", "--ready-when", "ready"}, env: []string{"NODE_PATH=" + modules, "BOOT_MS=100", "PORT=" + freePort(t)},
		app: []string{data("../../examples/node/" + name + "/server.js")}}
}

func TestFrameworks(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"express", "fastify", "koa"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			modules(t, name)
			for range times(3, 1) {
				o := options{flags: []string{"-n", fmt.Sprint(times(4, 2))}, app: []string{data(name + ".js")}}
				if name == "express" {
					o = example(t, "express")
				}
				w := start(t, o)
				reload := times(50, 4)
				fresh := w.load(load.Config{Clients: 4})
				reloads(t, w, load.Config{Mode: load.KeepAlive, Clients: 32}, reload)
				w.nothingLost(fresh)
				w.stop()
			}
		})
	}
}

// A websocket lives through reloads until the drain timeout ends its worker.
func TestWebsocketLivesUntilTheDrainTimeout(t *testing.T) {
	t.Parallel()
	modules(t, "ws")
	w := start(t, options{flags: []string{"-n", "2", "--drain-timeout", "2s"}, app: []string{data("ws.js")}})
	ws := dialWebsocket(t, w.addr)
	if got := ws.say("a"); got != "1 a" {
		t.Errorf("%q", got)
	}
	w.reload()
	w.retired(1)
	if got := ws.say("b"); got != "1 b" {
		t.Errorf("%q", got)
	}
	if got := dialWebsocket(t, w.addr).say("c"); got != "2 c" {
		t.Errorf("%q", got)
	}
	w.await("worker.terminated")
	w.retired(1)
	if _, err := ws.in.ReadByte(); err == nil {
		t.Error("the websocket outlives its worker")
	}
	w.signal(15)
	w.exits(0)
}

type websocket struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

func dialWebsocket(t *testing.T, addr string) *websocket {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(testTimeout))
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	in := bufio.NewReader(conn)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if line == "\r\n" {
			return &websocket{t, conn, in}
		}
	}
}

// say sends a short text frame (masked with zeros) and returns the answer.
func (ws *websocket) say(s string) string {
	ws.t.Helper()
	ws.conn.Write(append([]byte{0x81, 0x80 | byte(len(s)), 0, 0, 0, 0}, s...))
	head := make([]byte, 2)
	if _, err := io.ReadFull(ws.in, head); err != nil {
		ws.t.Fatal(err)
	}
	body := make([]byte, head[1]&0x7f)
	if _, err := io.ReadFull(ws.in, body); err != nil {
		ws.t.Fatal(err)
	}
	return string(body)
}

// An HTTP/2 session: the stream in flight finishes across a reload.
func TestHTTP2StreamFinishes(t *testing.T) {
	t.Parallel()
	w := start(t, options{flags: []string{"-n", "2"}, app: []string{data("h2c.js")}})
	client := exec.Command("node", data("h2c-client.js"), "http://"+w.addr)
	in, _ := client.StdinPipe()
	out, _ := client.StdoutPipe()
	client.Stderr = os.Stderr
	if err := client.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); client.Process.Kill(); client.Wait() })
	lines := bufio.NewScanner(out)
	next := func() string {
		if !lines.Scan() {
			t.Fatal("the session ended")
		}
		return strings.TrimSpace(lines.Text())
	}
	fmt.Fprintln(in, "/")
	if got := next(); got != "1 ok" {
		t.Errorf("%q", got)
	}
	fmt.Fprintln(in, "/?ms=3000")
	fmt.Fprintln(in, "/") // it is in when this one is answered
	if got := next(); got != "1 ok" {
		t.Errorf("%q", got)
	}
	w.reload()
	w.retired(1)
	if got := next(); got != "1 ok" {
		t.Errorf("the stream in flight: %q", got)
	}
	in.Close()
	client.Process.Kill()
	w.retired(1)
	w.stop()
}

// socket.io: a session survives reloads, with what its worker knows of it, while new
// clients get the new code.
func TestSocketIOSessionsSurvive(t *testing.T) {
	t.Parallel()
	modules(t, "socket.io")
	modules(t, "socket.io-client")
	nodeModules, _ := filepath.Abs("node_modules")
	w := start(t, options{flags: []string{"-n", "2", "--balance", "sticky", "--drain-timeout", "60s", "--keepalive-linger", "100ms"},
		app: []string{data("../../examples/node/socketio/server.js")}, env: []string{"PORT=" + freePort(t), "NODE_PATH=" + nodeModules}})
	type client struct {
		in    io.Writer
		lines *bufio.Scanner
	}
	connect := func() client {
		cmd := exec.Command("node", data("socketio-client.js"), "http://"+w.addr)
		cmd.Env = append(os.Environ(), "NODE_PATH="+nodeModules)
		in, _ := cmd.StdinPipe()
		out, _ := cmd.StdoutPipe()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		c := client{in, bufio.NewScanner(out)}
		if !c.lines.Scan() || c.lines.Text() != "connected websocket" {
			t.Fatalf("%q", c.lines.Text())
		}
		return c
	}
	count := func(c client) (n int, session, generation string) {
		fmt.Fprintln(c.in)
		if !c.lines.Scan() {
			t.Fatal("the client has ended")
		}
		if k, _ := fmt.Sscanf(c.lines.Text(), "%d %s %s", &n, &session, &generation); k != 3 {
			t.Fatalf("%q", c.lines.Text())
		}
		return n, session, generation
	}
	old := connect()
	_, session, _ := count(old)
	for gen := 2; gen < 5; gen++ {
		w.reload()
		n, s, generation := count(old)
		if n != gen || s != session || generation != "1" {
			t.Errorf("after reload %d: count %d of session %s, generation %s", gen-1, n, s, generation)
		}
		if _, _, generation := count(connect()); generation != fmt.Sprint(gen) {
			t.Errorf("a new client gets generation %s, want %d", generation, gen)
		}
	}
	w.signal(syscall.SIGTERM)
	w.await("cluster.shutdown")
	w.signal(syscall.SIGINT)
	w.exits(128 + int(syscall.SIGINT))
}
