package worker

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The test binary is the program too: with WORKER_ROLE it is a server that
// speaks on stdout.
func TestMain(m *testing.M) {
	if os.Getenv("WORKER_ROLE") == "server" {
		os.Exit(server())
	}
	os.Exit(m.Run())
}

func server() int {
	w := New()
	l, err := w.Listen("tcp", os.Getenv("ADDR"))
	if err == nil && os.Getenv("NAMED") != "" {
		l, err = w.Named(os.Getenv("NAMED"))
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	ctx, cancel := w.Context(context.Background())
	defer cancel()
	go w.Watchdog(ctx, nil)
	w.Ready()
	w.Status("slot %d\nof generation %d", w.Slot(), w.Generation())
	fmt.Println("serving", l.Addr(), w.Managed())
	if err := w.ServeHTTP(&http.Server{Handler: http.HandlerFunc(ok)}, l); err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("drained", context.Cause(ctx))
	return 0
}

type program struct {
	t   *testing.T
	cmd *exec.Cmd
	out *bufio.Reader
}

func run(t *testing.T, files []*os.File, env ...string) *program {
	t.Helper()
	p := &program{t: t, cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(os.Environ(), append(env, "WORKER_ROLE=server")...)
	if len(files) > 0 { // LISTEN_PID is its own
		p.cmd = exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$0"`, os.Args[0])
		p.cmd.Env = append(os.Environ(), append(env, "WORKER_ROLE=server", "LISTEN_FDS="+strconv.Itoa(len(files)))...)
	}
	p.cmd.ExtraFiles = files
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.cmd.Process.Kill(); p.cmd.Wait() })
	p.out = bufio.NewReader(out)
	return p
}

func (p *program) says(want string) string {
	p.t.Helper()
	line, _ := p.out.ReadString('\n')
	rest, ok := strings.CutPrefix(strings.TrimSpace(line), want)
	if !ok {
		p.t.Fatalf("it says %q, want %q…", line, want)
	}
	return rest
}

// Alone, the same program serves and drains at SIGTERM.
func TestAlone(t *testing.T) {
	p := run(t, nil, "ADDR=127.0.0.1:0", "HANDOFF_KEEPALIVE_LINGER=10ms")
	addr, managed, _ := strings.Cut(p.says("serving "), " ")
	if managed != "false" {
		t.Error("it thinks that it is managed")
	}
	resp, err := http.Get("http://" + addr)
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, resp.Body)
	p.cmd.Process.Signal(syscall.SIGTERM)
	p.says("drained the worker drains")
	if err := p.cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// A second signal has its default effect.
func TestSecondSignal(t *testing.T) {
	p := run(t, nil, "ADDR=127.0.0.1:0", "HANDOFF_KEEPALIVE_LINGER=1h", "HANDOFF_DRAIN_SIGNAL=WINCH")
	addr, _, _ := strings.Cut(p.says("serving "), " ")
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p.cmd.Process.Signal(syscall.SIGWINCH)
	for {
		d, err := net.Dial("tcp", addr)
		if err != nil {
			break // it drains
		}
		d.Close()
	}
	p.cmd.Process.Signal(syscall.SIGTERM)
	p.cmd.Wait()
	if got := p.cmd.ProcessState.Sys().(syscall.WaitStatus).Signal(); got != syscall.SIGTERM {
		t.Errorf("ended by %v, want SIGTERM", got)
	}
}

// Passed sockets are found by address, by name, or not at all.
func TestPassed(t *testing.T) {
	for name, env := range map[string][]string{
		"by address": {"ADDR=%"},
		"by name":    {"ADDR=127.0.0.1:0", "NAMED=web", "LISTEN_FDNAMES=other:web"},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			other, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			f1, _ := other.(*net.UnixListener).File()
			f2, _ := l.(*net.TCPListener).File()
			defer f1.Close()
			defer f2.Close()
			for i := range env {
				env[i] = strings.Replace(env[i], "%", l.Addr().String(), 1)
			}
			p := run(t, []*os.File{f1, f2}, env...)
			if addr, _, _ := strings.Cut(p.says("serving "), " "); addr != l.Addr().String() {
				t.Errorf("it serves %s, want %s", addr, l.Addr())
			}
		})
	}
}

// What it says, it says by systemd's protocol.
func TestNotices(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p := run(t, nil, "ADDR=127.0.0.1:0", "NOTIFY_SOCKET="+path, "WATCHDOG_USEC=30000", "HANDOFF_GENERATION=3", "WORKER_ID=1")
	p.says("serving ")
	want := map[string]int{"READY=1": 1, "WATCHDOG=1": 3, "STATUS=slot 1 of generation 3": 1, "STOPPING=1": 1}
	buf := make([]byte, 256)
	c.SetReadDeadline(time.Now().Add(testTimeout))
	for len(want) > 0 {
		n, err := c.Read(buf)
		if err != nil {
			t.Fatalf("%v; still missing: %v", err, want)
		}
		what := string(buf[:n])
		if want[what]--; want[what] <= 0 {
			delete(want, what)
		}
		if len(want) == 1 && want["STOPPING=1"] > 0 {
			p.cmd.Process.Signal(unix.SIGTERM)
		}
	}
}

func TestMeans(t *testing.T) {
	socket := func(network, addr string) int {
		l, err := net.Listen(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		f, err := l.(interface{ File() (*os.File, error) }).File()
		l.Close()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return int(f.Fd())
	}
	port := func(fd int) string {
		sa, _ := unix.Getsockname(fd)
		switch sa := sa.(type) {
		case *unix.SockaddrInet4:
			return strconv.Itoa(sa.Port)
		case *unix.SockaddrInet6:
			return strconv.Itoa(sa.Port)
		}
		return "0"
	}
	any, four, six, lo := socket("tcp", ":0"), socket("tcp4", ":0"), socket("tcp6", ":0"), socket("tcp4", "127.0.0.1:0")
	for _, c := range []struct {
		fd            int
		network, addr string
		want          bool
	}{
		{any, "tcp", ":%", true}, {any, "tcp", "0.0.0.0:%", true}, {any, "tcp", "127.0.0.1:%", false}, {any, "tcp4", ":%", true},
		{four, "tcp", ":%", true}, {four, "tcp6", ":%", false}, {four, "tcp4", "0.0.0.0:%", true},
		{six, "tcp6", "[::]:%", true}, {six, "tcp4", ":%", false},
		{lo, "tcp", "127.0.0.1:%", true}, {lo, "tcp", "localhost:%", true}, {lo, "tcp", "127.0.0.1:1", false}, {lo, "unix", "127.0.0.1:%", false},
	} {
		if got := matches(c.fd, c.network, strings.Replace(c.addr, "%", port(c.fd), 1)); got != c.want {
			t.Errorf("%s %s: %v, want %v", c.network, c.addr, got, c.want)
		}
	}
}
