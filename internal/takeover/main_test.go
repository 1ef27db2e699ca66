package takeover

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
)

// The test binary is the relay process, and every program.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == Word {
		os.Exit(Process())
	}
	if role := os.Getenv("TAKEOVER_TEST_ROLE"); role != "" {
		unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0) // nobody outlives the test
		os.Exit(play(role))
	}
	os.Exit(m.Run())
}

// play is a program, with a listener at descriptor 3. It answers with its name, and ends
// as net/http does.
func play(role string) int {
	f := os.NewFile(3, "listener")
	l, err := net.FileListener(f)
	f.Close()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	work := make(chan struct{}) // closed by a second request, which a slow one waits for
	s := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch r.URL.Path {
		case "/slow":
			fmt.Println("busy")
			<-work
		case "/finish":
			close(work)
		}
		fmt.Fprint(w, os.Getenv("NAME"), string(body))
	})}
	stop := make(chan os.Signal, 1)
	ended := make(chan struct{})
	switch role {
	case "shutdown":
		signal.Notify(stop, unix.SIGTERM)
	case "uncaught":
		signal.Reset(unix.SIGTERM)
	}
	go func() {
		defer close(ended)
		<-stop
		s.Shutdown(context.Background())
	}()
	fmt.Println("serves")
	s.Serve(l)
	<-ended
	return 0
}

// program is one that runs.
type program struct {
	*exec.Cmd
	out *bufio.Reader
}

// listen opens a listener beside others of its address.
func listen(t *testing.T, at string) *net.TCPListener {
	t.Helper()
	c := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
	}}
	c.SetMultipathTCP(false) // cannot be steered
	l, err := c.Listen(t.Context(), "tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	return l.(*net.TCPListener)
}

// run starts a program with a listener, which is its alone from then on.
func run(t *testing.T, role, name string, l interface{ File() (*os.File, error) }) *program {
	t.Helper()
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	self, _ := os.Executable()
	c := exec.Command(self)
	c.Env = append(os.Environ(), "TAKEOVER_TEST_ROLE="+role, "NAME="+name)
	c.ExtraFiles, c.Stderr = []*os.File{f}, os.Stderr
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	f.Close()
	l.(io.Closer).Close()
	p := &program{c, bufio.NewReader(out)}
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
	})
	p.says(t, "serves")
	return p
}

func (p *program) says(t *testing.T, want string) {
	t.Helper()
	if line, err := p.out.ReadString('\n'); strings.TrimSpace(line) != want {
		t.Fatalf("it says %q, %v; not %q", line, err, want)
	}
}

// client is one connection, without retries.
type client struct {
	t *testing.T
	net.Conn
	in *bufio.Reader
}

func dial(t *testing.T, at string) *client {
	t.Helper()
	network := "tcp"
	if strings.HasPrefix(at, "/") {
		network = "unix"
	}
	c, err := net.Dial(network, at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return &client{t, c, bufio.NewReader(c)}
}

const patience = 20 * time.Second // for failure only

func (c *client) send(method, path, body string) {
	c.t.Helper()
	fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", method, path, len(body), body)
}

// hear returns an answer, and whether it says that no other follows.
func (c *client) hear() (body string, last bool) {
	c.t.Helper()
	r, err := http.ReadResponse(c.in, nil)
	if err != nil {
		c.t.Fatalf("no answer: %v", err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return string(b), r.Close
}

func (c *client) asks(path, want string, last bool) {
	c.t.Helper()
	c.send("POST", path, "!")
	c.hears(want+"!", last)
}

func (c *client) hears(want string, last bool) {
	c.t.Helper()
	if got, close := c.hear(); got != want || close != last {
		c.t.Fatalf("answer %q, last %v; not %q, %v", got, close, want, last)
	}
}

// ends waits for the end of the connection.
func (c *client) ends() {
	c.t.Helper()
	if b, err := io.ReadAll(c.in); err != nil || len(b) > 0 {
		c.t.Fatalf("%q, %v instead of an end", b, err)
	}
}

// master is who takes over.
type master struct {
	t *testing.T
	*Client
	news chan News
	all  Totals
}

func newMaster(t *testing.T) *master {
	m := &master{t: t, news: make(chan News, 1000)}
	m.Client = NewClient(func(n News) { m.news <- n })
	t.Cleanup(m.Close)
	return m
}

func (m *master) job(p *program, at string) Job {
	target := Target{Worker: p.Process.Pid, PID: p.Process.Pid, Peers: Local}
	if addr, err := netip.ParseAddrPort(at); err == nil {
		target.Held = []netip.AddrPort{addr}
	} else {
		for inode, path := range linux.UnixListeners() {
			if path == at {
				target.Unix = append(target.Unix, inode)
			}
		}
	}
	return Job{Target: target, Patience: 10 * time.Second, Watch: 10 * time.Second, Linger: 5 * time.Second}
}

// takes makes a program ready for the signal.
func (m *master) takes(j Job, want Armed) {
	m.t.Helper()
	got, err := m.TakeOver(j)
	want.Worker = j.Worker
	if err != nil || got != want {
		m.t.Fatalf("armed %+v, %v; not %+v", got, err, want)
	}
}

// await waits for totals.
func (m *master) await(what string, ok func(Totals) bool) {
	m.t.Helper()
	late := time.After(patience)
	for !ok(m.all) {
		select {
		case n := <-m.news:
			if n.Totals != nil {
				m.all = *n.Totals
			}
		case <-late:
			m.t.Fatalf("%s: totals %+v", what, m.all)
		}
	}
}

// rests waits until nothing is left in the process, and ends it.
func (m *master) rests() {
	m.t.Helper()
	late := time.After(patience)
	for rest := false; ; {
		select {
		case n := <-m.news:
			if n.Totals != nil {
				m.all = *n.Totals
			}
			if n.Rest && !rest {
				rest = true
				m.Close()
			}
			if n.Dead {
				if !rest {
					m.t.Fatal("it has ended by itself")
				}
				return
			}
		case <-late:
			m.t.Fatalf("it does not rest: totals %+v", m.all)
		}
	}
}
