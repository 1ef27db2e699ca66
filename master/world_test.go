package master

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/api"
	"handoff/internal/bindintercept"
	"handoff/internal/cmsg"
	"handoff/internal/keeper/fdstore"
	"handoff/internal/sdnotify"
	conns "handoff/internal/takeover"
	"handoff/master/fleet"
	"handoff/master/listeners"
	"handoff/master/process"
)

// The test binary plays every worker; a role that no test uses fails the run.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == bindintercept.Word {
		os.Exit(bindintercept.Trampoline(os.Args[2:])) // becomes the worker
	}
	if len(os.Args) > 1 && os.Args[1] == conns.Word {
		os.Exit(conns.Process())
	}
	if role := os.Getenv("MASTER_TEST_ROLE"); role != "" {
		unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0) // nobody outlives the test
		if play := roles[role]; play != nil {
			os.Exit(play())
		}
		fmt.Fprintln(os.Stderr, "no role", role)
		os.Exit(2)
	}
	code := m.Run()
	if code == 0 && !testing.Short() && len(os.Args) < 2 {
		for role := range roles {
			if !slices.Contains(played, role) {
				fmt.Println("no test uses the role", role)
				code = 1
			}
		}
	}
	os.Exit(code)
}

var played []string // roles that a test has used

var roles = map[string]func() int{
	"activation": func() int { return serve(inherited(3)) },
	"bind": func() int {
		l, err := net.Listen("tcp", os.Getenv("ADDRESS"))
		return serve(l, err)
	},
	"activation-and-bind": func() int { // binds another address, of generation FROM on
		if os.Getenv("HANDOFF_GENERATION") >= os.Getenv("FROM") {
			if _, err := net.Listen("tcp", os.Getenv("ADDRESS")); err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
		}
		return serve(inherited(3))
	},
	"bind-itself": func() int { // asks nobody for a socket, and does not say that it is ready
		l, err := net.Listen("tcp", os.Getenv("ADDRESS"))
		for err == nil {
			_, err = l.Accept()
		}
		fmt.Fprintln(os.Stderr, err)
		return 1
	},
	"crash": func() int {
		fmt.Fprintln(os.Stderr, "no database")
		return 3
	},
	"second-generation-crashes": func() int {
		if os.Getenv("HANDOFF_GENERATION") == "2" {
			fmt.Fprintln(os.Stderr, "generation 2 has no database")
			return 3
		}
		return serve(inherited(3))
	},
	"later-workers-crash": func() int { // once FILE is there
		if _, err := os.Stat(os.Getenv("FILE")); err == nil {
			fmt.Fprintln(os.Stderr, "the database is gone")
			return 3
		}
		return serve(inherited(3))
	},
	"second-generation-hangs": func() int {
		if os.Getenv("HANDOFF_GENERATION") == "2" {
			fmt.Fprintln(os.Stderr, "waiting for the database")
			unix.Pause()
		}
		return serve(inherited(3))
	},
	"locks-filter": func() int { // at SIGUSR1, or, with LOCK=all, from the second generation on
		return serve(lockFilter(inherited(3)))
	},
	"silent": func() int { // never ready
		c := make(chan os.Signal, 1)
		signal.Notify(c, unix.SIGTERM)
		<-c
		return 0
	},
	"background": func() int { // goes into it
		if err := exec.Command("/usr/bin/setsid", "-f", "/bin/sh", "-c", `trap "" TERM; while :; do sleep 1; done`).Run(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	},
	"background-unseen": func() int { // with an environment of its own
		if err := exec.Command("/usr/bin/setsid", "-f", "/usr/bin/env", "-i", "OF=background-unseen", "/bin/sh", "-c", `trap "" TERM; while :; do sleep 1; done`).Run(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	},
	"boot-held": bootHeld,
	"two-ports": twoPorts,
	"task":      func() int { return 0 },
	"node":      playNode,
}

func inherited(fd int) (net.Listener, error) {
	f := os.NewFile(uintptr(fd), "listener")
	defer f.Close()
	return net.FileListener(f)
}

// lockFilter has the kernel refuse programs by way of this socket.
func lockFilter(l net.Listener, err error) (net.Listener, error) {
	if err != nil {
		return nil, err
	}
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		return nil, err
	}
	lock := func() {
		raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_LOCK_FILTER, 1) })
		sdnotify.Send(os.Getenv("NOTIFY_SOCKET"), "STATUS=locked")
	}
	if os.Getenv("LOCK") == "all" && os.Getenv("HANDOFF_GENERATION") != "1" {
		lock()
	}
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGUSR1)
	go func() {
		for range c {
			lock()
		}
	}()
	return l, nil
}

// serve answers each connection with slot, generation and pid, until it is told to stop:
// then it finishes what it has accepted.
func serve(l net.Listener, err error) int {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGTERM)
	sdnotify.Send(os.Getenv("NOTIFY_SOCKET"), "READY=1\nSTATUS=serves")
	var busy sync.WaitGroup
	go func() {
		<-stop
		l.Close()
	}()
	for {
		c, err := l.Accept()
		if err != nil {
			break
		}
		busy.Add(1)
		go func() {
			defer busy.Done()
			defer c.Close()
			answer(c)
		}()
	}
	busy.Wait()
	return 0
}

// answer does what a line asks for.
func answer(c net.Conn) {
	line, _ := bufio.NewReader(c).ReadString('\n')
	switch strings.TrimSpace(line) {
	case "crash":
		os.Exit(7)
	case "replace me":
		sdnotify.Send(os.Getenv("NOTIFY_SOCKET"), "STOPPING=1")
	case "requests":
		sdnotify.Send(os.Getenv("NOTIFY_SOCKET"), "X_REQUESTS=1000")
	}
	fmt.Fprintf(c, "%s %s %d\n", os.Getenv("WORKER_ID"), os.Getenv("HANDOFF_GENERATION"), os.Getpid())
}

// world is a master that runs in this process, and what it says.
type world struct {
	t       *testing.T
	cfg     Config
	control Control
	began   chan struct{} // closed when there is a control
	end     chan int      // its exit code
	log     *logged
	at      netip.AddrPort
}

const testTimeout = 20 * time.Second // for failure only

// logged is what was logged.
type logged struct {
	mu   sync.Mutex
	all  []string
	news chan struct{} // closed, and made anew, at each event
}

func (e *logged) Enabled(context.Context, slog.Level) bool { return true }
func (e *logged) WithAttrs([]slog.Attr) slog.Handler       { return e }
func (e *logged) WithGroup(string) slog.Handler            { return e }
func (e *logged) Handle(_ context.Context, r slog.Record) error {
	line := ""
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "event" {
			line = a.Value.String() + line
		} else {
			line += fmt.Sprintf(" %s=%v", a.Key, a.Value)
		}
		return true
	})
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, line+": "+r.Message)
	close(e.news)
	e.news = make(chan struct{})
	return nil
}

// base is a configuration with short times.
func base(role string, contract Contract) Config {
	self, _ := os.Executable()
	played = append(played, role)
	return Config{Name: "test", Version: "1", Contract: contract, Output: func(int, int, int) (io.Writer, io.Writer) { return os.Stdout, io.Discard }, Reopen: func() error { return nil },
		Live: Live{
			Fleet: fleet.Config{Slots: 2, ReadyTimeout: 10 * time.Second, QuietTimeout: time.Second, DrainTimeout: 10 * time.Second, KillGrace: time.Second,
				DrainedGrace: time.Second, Respawn: 10 * time.Millisecond, Backoff: 50 * time.Millisecond, Stable: time.Minute, MaxFailures: 2},
			MaxSlots: 4, ReadyWhen: Listening, DrainSignal: unix.SIGTERM, QuietGrace: 5 * time.Millisecond,
			Holds:   func(netip.AddrPort) bool { return true },
			Command: process.Command{Args: []string{self}, Dir: "/", Env: []string{"MASTER_TEST_ROLE=" + role}}}}
}

// run starts a master.
func run(t *testing.T, cfg Config) *world {
	t.Helper()
	w := &world{t: t, began: make(chan struct{}), end: make(chan int, 1), log: &logged{news: make(chan struct{})}}
	cfg.Log = slog.New(w.log)
	cfg.Control = func(c Control) func(bool) {
		w.control = c
		close(w.began)
		return func(bool) {}
	}
	w.cfg = cfg
	go func() { w.end <- Run(cfg) }()
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(strings.Join(w.log.all, "\n"))
		}
		select {
		case code := <-w.end:
			w.end <- code
		default:
			w.control.Stop(t.Context(), true)
			w.ends()
		}
	})
	return w
}

// activated starts a master that listens for its workers, and awaits that it serves.
func activated(t *testing.T, cfg Config) *world {
	t.Helper()
	cfg.Listen = []listeners.Listen{{Addr: netip.MustParseAddrPort("127.0.0.1:0"), UID: -1, GID: -1}}
	w := run(t, cfg)
	w.await("cluster.started")
	w.at = netip.MustParseAddrPort(w.status().Addresses[0].Address)
	return w
}

// await waits until an event with all of the words was logged, n times with n.
func (w *world) await(words ...string) string {
	w.t.Helper()
	late := time.After(testTimeout)
	for {
		w.log.mu.Lock()
		all, news := slices.Clone(w.log.all), w.log.news
		w.log.mu.Unlock()
		for _, line := range all {
			if !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(line, word) }) {
				return line
			}
		}
		select {
		case <-news:
		case <-late:
			pprof.Lookup("goroutine").WriteTo(os.Stderr, 1)
			w.t.Fatalf("no event %q in\n%s", words, strings.Join(all, "\n"))
		}
	}
}

// count is how many events of a name were logged.
func (w *world) count(name string) (n int) {
	w.log.mu.Lock()
	defer w.log.mu.Unlock()
	for _, line := range w.log.all {
		if strings.HasPrefix(line, name) {
			n++
		}
	}
	return n
}

// ends waits for the end, and returns the exit code.
func (w *world) ends() int {
	w.t.Helper()
	select {
	case code := <-w.end:
		w.end <- code
		return code
	case <-time.After(testTimeout):
		pprof.Lookup("goroutine").WriteTo(os.Stderr, 1)
		w.t.Fatal("the master does not end")
		return 0
	}
}

func (w *world) status() api.Status {
	w.t.Helper()
	<-w.began
	s, err := w.control.Status(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// ask makes a connection, asks, and returns what is answered.
func (w *world) ask(line string) (slot, generation, pid int) {
	w.t.Helper()
	c, err := net.Dial("tcp", w.at.String())
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(testTimeout))
	fmt.Fprintln(c, line)
	if _, err := fmt.Fscan(c, &slot, &generation, &pid); err != nil {
		w.t.Fatalf("%q is not answered: %v", line, err)
	}
	return slot, generation, pid
}

// code is the code of an error of the control API.
func code(err error) string {
	var e api.Error
	if errors.As(err, &e) {
		return string(e.Code)
	}
	return fmt.Sprint(err)
}

// keeper holds what a master tells it, as internal/keeper does.
type keeper struct {
	address string
	conn    *cmsg.Conn
	server  fdstore.Server
	done    chan struct{}
}

func newKeeper(t *testing.T) *keeper {
	t.Helper()
	k := &keeper{address: filepath.Join(t.TempDir(), "keeper"), done: make(chan struct{})}
	var err error
	if k.conn, err = cmsg.Listen(k.address); err != nil {
		t.Fatal(err)
	}
	go func() { // ends with the socket
		defer close(k.done)
		buf := make([]byte, 4096)
		for {
			m, err := k.conn.Receive(buf)
			if err != nil {
				return
			}
			k.server.Handle(fdstore.Parse(string(buf[:m.N])), m.FDs)
		}
	}()
	t.Cleanup(func() {
		k.conn.Close()
		<-k.done
		for _, n := range slices.Clone(k.server.Held()) {
			k.server.Remove(n.Name)
		}
	})
	return k
}

// takeAll gives what the keeper holds, as to a master that starts.
func (k *keeper) takeAll(t *testing.T) []cmsg.Named {
	t.Helper()
	all, err := fdstore.TakeAll(k.address)
	if err != nil {
		t.Fatal(err)
	}
	return all
}
