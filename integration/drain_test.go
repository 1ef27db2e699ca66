package integration

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"handoff/internal/load"
)

// The drain of HTTP/2: a GOAWAY in two steps, and no request of a strict client is
// lost; without the preload some are.
func TestReloadsHTTP2(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"", "18", "24"} {
		t.Run("node "+version, func(t *testing.T) {
			t.Parallel()
			w := start(t, options{flags: []string{"-n", "2"}, app: []string{data("h2c.js")}, env: []string{"PATH=" + nodeBin(t, version) + ":/usr/local/bin:/usr/bin:/bin"}})
			run := startH2(w.addr, 8)
			run.await(t, 100)
			for range times(20, 5) {
				w.reload()
				run.await(t, 100)
				w.retired(2)
			}
			run.end()
			if len(run.failed) > 0 || run.requests < 500 || run.goaways[1<<31-1] < 8 {
				t.Errorf("%v of %d requests failed; GOAWAYs %v", run.failed, run.requests, run.goaways)
			}
			t.Logf("%d requests, GOAWAYs by their last stream %v", run.requests, run.goaways)
			w.stop()
		})
	}
}

// A program's own handler for the drain signal, or for the messages of a drain, is called
// when kept connections have had their linger: Fastify answers each request after
// app.close() with 503.
func TestHandlerAfterTheLinger(t *testing.T) {
	t.Parallel()
	modules(t, "fastify")
	nodeModules, _ := filepath.Abs("node_modules")
	for _, c := range []struct {
		name, on   string
		flags, app []string
	}{
		{"behind npm start", "SIGTERM", nil, []string{"npm", "start", "--silent"}},
		{"by --drain-signal INT", "SIGINT", []string{"--drain-signal", "INT"}, []string{data("fastify.js")}},
		{"by {cmd: 'disconnect'}", "disconnect", nil, []string{data("fastify.js")}},
		{"by --drain-message", "shutdown", []string{"--drain-message", "shutdown"}, []string{data("fastify.js")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			put(t, filepath.Join(dir, "package.json"), `{"name": "web", "scripts": {"start": "node `+data("fastify.js")+`"}}`, 0o644)
			w := start(t, options{flags: append([]string{"-n", "1", "--keepalive-linger", "2s"}, c.flags...), app: c.app, dir: dir,
				env: []string{"PORT=" + freePort(t), "NODE_PATH=" + nodeModules, "CLOSE_ON=" + c.on}})
			run := w.load(load.Config{Mode: load.KeepAlive, Clients: 16, Rate: 200})
			for range times(5, 2) {
				run.Await(100, testTimeout)
				w.reload()
				w.retired(1)
			}
			w.awaitLine("closed by " + c.on)
			for _, e := range w.all("worker.shutdown") {
				if e.KilledBy != "" || e.Code != 0 {
					t.Errorf("it did not end by its handler: %+v", e)
				}
			}
			w.nothingLost(run)
			w.stop()
		})
	}
}

// A worker that is busy when its linger ends reads what has come meanwhile, before it
// closes idle connections.
func TestLingerOfABusyWorker(t *testing.T) {
	t.Parallel()
	w := start(t, options{flags: []string{"-n", "1", "--keepalive-linger", "100ms"}, app: []string{data("busy.js")}})
	var conns []net.Conn
	ask := func(c net.Conn) error {
		_, err := fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		return err
	}
	answer := func(c net.Conn) error {
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err == nil {
			_, err = io.ReadAll(resp.Body)
		}
		return err
	}
	for range 8 {
		c, err := net.Dial("tcp", w.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(testTimeout))
		if err := errors.Join(ask(c), answer(c)); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	w.reload()
	w.awaitLine("busy")
	for _, c := range conns {
		ask(c)
	}
	for i, c := range conns {
		if err := answer(c); err != nil {
			t.Errorf("connection %d: %v", i, err)
		}
	}
	w.retired(1)
	w.stop()
}

// Websockets are told to go when that is asked for, with the code, spread over time.
func TestWebsocketClose(t *testing.T) {
	t.Parallel()
	w := start(t, options{flags: []string{"-n", "1", "--websocket-close", "1012", "--drain-spread", "500ms", "--keepalive-linger", "100ms"}, app: []string{data("ws.js")}})
	var conns []net.Conn
	for range 10 {
		c, err := net.Dial("tcp", w.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReaderSize(c, 1), nil)
		if err != nil || resp.StatusCode != 101 {
			t.Fatalf("%v %v", resp, err)
		}
		conns = append(conns, c)
	}
	w.reload()
	var first, last time.Time
	for i, c := range conns {
		c.SetReadDeadline(time.Now().Add(testTimeout))
		frame := make([]byte, 4)
		if _, err := io.ReadFull(c, frame); err != nil || frame[0] != 0x88 || int(frame[2])<<8|int(frame[3]) != 1012 {
			t.Errorf("connection %d: % x %v", i, frame, err)
		}
		if last = time.Now(); first.IsZero() {
			first = last
		}
		c.Write([]byte{0x88, 0x82, 0, 0, 0, 0, frame[2], frame[3]}) // as a client has to
		if _, err := io.Copy(io.Discard, c); err != nil {
			t.Errorf("connection %d: %v", i, err)
		}
	}
	if spread := last.Sub(first); spread < 200*time.Millisecond {
		t.Errorf("all within %v", spread)
	}
	w.retired(1)
	w.stop()
}

// A server that the cluster module does not know is closed in the drain, too: its
// requests are finished, and the worker ends by itself.
func TestDrainOfExclusiveServers(t *testing.T) {
	t.Parallel()
	w := start(t, options{flags: []string{"-n", "1", "--keepalive-linger", "100ms"}, app: []string{data("exclusive.js")}, env: []string{"PORT=" + freePort(t)}})
	w.awaitLine("exclusive ")
	w.mu.Lock()
	_, port, _ := strings.Cut(strings.TrimSpace(strings.Join(w.other, "")), "exclusive ")
	w.mu.Unlock()
	answered := make(chan error, 1)
	go func() {
		resp, err := fresh.Get("http://127.0.0.1:" + port + "/?ms=1000")
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			resp.Body.Close()
		}
		answered <- err
	}()
	run := w.load(load.Config{Clients: 2})
	run.Await(20, testTimeout)
	w.reload()
	if err := <-answered; err != nil {
		t.Error(err)
	}
	w.retired(1)
	if n := len(w.all("worker.terminated")); n > 0 {
		t.Error("it had to be told to end")
	}
	w.nothingLost(run)
	w.stop()
}
