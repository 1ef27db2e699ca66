package listener

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// listen listens on a port of the kernel's choice.
func listen(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

func TestWho(t *testing.T) {
	t.Setenv("HANDOFF_RUNTIME_DIR", "")
	port := listen(t)
	if got, want := Who(port), fmt.Sprintf("(pid %d) listens there", os.Getpid()); !strings.HasSuffix(got, want) || !strings.HasPrefix(got, "listener.test") {
		t.Errorf("%q, want %q", got, want)
	}
	if got := Who(0); got != "a process that handoff may not inspect listens there" {
		t.Errorf("on port 0: %q", got)
	}
	// This process becomes a master: it has a control socket.
	dir := t.TempDir()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "web.sock.1"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if got, want := Who(port), "the handoff service web listens there (`HANDOFF_RUNTIME_DIR="+dir+" handoff stop web` stops it)"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	t.Setenv("HANDOFF_RUNTIME_DIR", dir)
	if got, want := Who(port), "the handoff service web listens there (`handoff stop web` stops it)"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestServiceOf(t *testing.T) {
	for path, want := range map[string]string{
		"/run/handoff/web.sock.12": "/run/handoff web", "/run/handoff/a-b/a-b.sock.1": "/run/handoff/a-b a-b",
		"/run/docker.sock": " ", "": " ", "@/x.sock.1": " ", "/run/a b.sock.1": " ", "/x/`id`.sock.1": " ",
	} {
		if dir, service := serviceOf(path); dir+" "+service != want {
			t.Errorf("%s: %q %q", path, dir, service)
		}
	}
}

func TestComplaint(t *testing.T) {
	for text, want := range map[string]uint16{
		"Error: listen EADDRINUSE: address already in use :::3000\n    at Server.setupListenHandle [as _listen2] (node:net:1817:16)": 3000,
		"Error: listen EADDRINUSE: address already in use 127.0.0.1:3001":                                                            3001,
		"2026/01/02 03:04:05 listen tcp 127.0.0.1:3002: bind: address already in use":                                                3002,
		"nginx: [emerg] bind() to 0.0.0.0:3003 failed (98: Address already in use)":                                                  3003,
		"ERROR: [Errno 98] error while attempting to bind on address ('127.0.0.1', 3004): address already in use":                    3004,
		"OSError: [Errno 98] Address already in use":                                                                                 0,
		"Address already in use - bind(2) for \"0.0.0.0\" port 3005 (Errno::EADDRINUSE)":                                             3005,
		"uncaught: EADDRINUSE\n  code: 'EADDRINUSE',\n  port: 3006\n}":                                                               3006,
	} {
		if port, ok := Complaint(strings.Split(text, "\n")); !ok || port != want {
			t.Errorf("%s: %d, %v, want %d", text, port, ok, want)
		}
	}
	if _, ok := Complaint([]string{"Error: connect ECONNREFUSED 127.0.0.1:5432"}); ok {
		t.Error("a refused connection is an address in use")
	}
}
