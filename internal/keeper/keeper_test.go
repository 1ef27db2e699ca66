package keeper

import (
	"bytes"
	"cmp"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/keeper/fdstore"
	"handoff/internal/linux"
)

// The test binary is the masters, too: what one does is its argument.
func TestMain(m *testing.M) {
	if role := os.Getenv("KEEPER_TEST_ROLE"); role != "" {
		os.Exit(play(role))
	}
	os.Exit(m.Run())
}

const testTimeout = 20 * time.Second // for failure only

// world is a keeper, and what its masters report.
type world struct {
	t       *testing.T
	reports *net.UnixConn
	signals chan os.Signal
	code    chan int
	words   *words
	seen    []string
}

// words is what the keeper has said.
type words struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (w *words) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func (w *words) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

// short are waits that no test waits long for; what is to outlast a test is long.
var short = Waits{Stop: testTimeout, Candidate: 100 * time.Millisecond, BackoffFirst: time.Millisecond, BackoffMax: 4 * time.Millisecond, Stable: time.Hour, End: testTimeout}

// run starts a keeper whose masters have a role. It runs here: its children are the
// process's only ones.
func run(t *testing.T, role string, cfg Config, args ...string) *world {
	t.Helper()
	path := filepath.Join(t.TempDir(), "reports")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("KEEPER_TEST_ROLE", role)
	t.Setenv("KEEPER_TEST_REPORTS", path)
	w := &world{t: t, reports: c, signals: make(chan os.Signal, 64), code: make(chan int, 1), words: &words{}}
	signal.Notify(w.signals, unix.SIGCHLD)
	cfg.Path, cfg.Args, cfg.Stderr = cmp.Or(cfg.Path, os.Args[0]), args, w.words
	if cfg.Waits == (Waits{}) {
		cfg.Waits = short
	}
	done := make(chan struct{})
	go func() { // ends with the keeper
		defer close(done)
		w.code <- newKeeper(cfg).run(w.signals)
	}()
	t.Cleanup(func() {
		for len(w.code) == 0 { // it goes on where a test has failed
			select {
			case w.signals <- unix.SIGTERM:
			case <-done:
			}
			for _, pid := range linux.Children(os.Getpid()) {
				kill(pid)
			}
		}
		<-done
		signal.Stop(w.signals)
		c.Close()
		if t.Failed() {
			t.Logf("the masters: %q\nthe keeper: %s", w.seen[max(0, len(w.seen)-20):], w.words)
		}
	})
	return w
}

// await returns the next report that begins so.
func (w *world) await(begins string) (rest string) {
	w.t.Helper()
	w.reports.SetReadDeadline(time.Now().Add(testTimeout))
	buf := make([]byte, 1<<12)
	for {
		n, err := w.reports.Read(buf)
		if err != nil {
			w.t.Fatalf("no report %q: %v\nthe keeper: %s", begins, err, w.words)
		}
		w.seen = append(w.seen, string(buf[:n]))
		if rest, ok := strings.CutPrefix(string(buf[:n]), begins); ok {
			return strings.TrimSpace(rest)
		}
	}
}

func (w *world) ends(want int) {
	w.t.Helper()
	select {
	case code := <-w.code:
		w.code <- code
		if code != want {
			w.t.Errorf("exit code %d, want %d\nthe keeper: %s", code, want, w.words)
		}
	case <-time.After(testTimeout):
		w.t.Fatalf("the keeper does not end\nthe keeper: %s", w.words)
	}
}

func (w *world) said(what string) {
	w.t.Helper()
	if !strings.Contains(w.words.String(), what) {
		w.t.Errorf("the keeper did not say %q: %s", what, w.words)
	}
}

// play does what a role is, and returns its exit code.
func play(name string) int {
	m := begin()
	switch name {
	case "serve":
		return m.serve()
	case "fail":
		return 3
	case "leaves": // with its notice
		m.keep.Stopping()
		return 7
	case "dies": // of its first signal
		m.ready()
		<-m.signals
		kill(os.Getpid())
	case "hang-once":
		if os.Getenv(EnvRestarts) != "0" {
			return m.serve()
		}
		fallthrough
	case "hang":
		m.ready()
		unix.Kill(os.Getpid(), unix.SIGSTOP)
	case "deaf": // ready once, with a worker
		if os.Getenv(EnvRestarts) == "0" {
			m.child("worker", os.Args[0])
			m.ready()
		}
	case "family": // so is this one; the worker has a child in a group of its own
		if os.Getenv(EnvRestarts) == "0" {
			m.child("elder", os.Args[0])
			m.ready()
		}
	case "elder":
		m.report("grandchild %d", m.child("worker", os.Args[0]).Pid)
	case "idle":
		m.report("ends by %v", <-m.signals)
		return 5
	case "keeps":
		m.keeps()
		return m.serve()
	case "upgrade":
		m.ready()
		m.upgrade()
		return 0
	case "candidate":
		m.announce()
		return m.serve()
	case "newer": // a candidate as handoff is one: ready when its master has ended
		m.succeeds()
		fallthrough
	case "brittle": // dies soon, if it is the new binary
		m.ready()
		if image, _ := os.Readlink("/proc/self/exe"); image == os.Getenv("KEEPER_TEST_NEWER") {
			return 2
		}
		m.report("serves")
		return m.serve()
	case "newer-hangs": // as newer, and hangs when it is ready
		m.succeeds()
		m.keep.Ready()
	case "unready": // a candidate that ends instead
		m.succeeds()
		return 3
	case "shy": // a candidate that is never ready
		m.announce()
	case "liar":
		m.ready()
		m.lies()
		return m.serve()
	case "lie":
		m.announce()
		return 0
	}
	select {} // a worker
}

// role is a master's own view.
type role struct {
	keep    *fdstore.Client
	signals chan os.Signal
	to      net.Conn
}

func begin() *role {
	r := &role{signals: make(chan os.Signal, 10)}
	signal.Notify(r.signals, unix.SIGTERM, SignalBase+unix.SIGTERM, SignalBase+unix.SIGUSR2, SignalBase+unix.SIGHUP)
	r.to, _ = net.Dial("unixgram", os.Getenv("KEEPER_TEST_REPORTS"))
	r.keep, _ = fdstore.Dial(os.Getenv("NOTIFY_SOCKET"), nil)
	r.report("begins %d restarts %s reason %s", os.Getpid(), os.Getenv(EnvRestarts), os.Getenv(EnvReason))
	if failed := os.Getenv(EnvUpgradeFailed); failed != "" {
		r.report("upgrade failed: %s", failed)
	}
	return r
}

func (r *role) report(format string, args ...any) { fmt.Fprintf(r.to, format, args...) }

func (r *role) ready() {
	r.keep.Ready()
	r.keep.Runs()
	r.keep.Flush()
	r.report("ready %d", os.Getpid())
}

func kill(pid int) { unix.Kill(pid, unix.SIGKILL) }

// serve takes signals until it is told to stop.
func (r *role) serve() int {
	r.ready()
	for s := range r.signals {
		own := s.(unix.Signal) - SignalBase
		r.report("signal %v", unix.SignalName(own))
		r.took(own)
		if own == unix.SIGTERM {
			r.keep.Stopping()
			return 7
		}
	}
	return 0
}

func (r *role) took(s unix.Signal) {
	f, _ := os.Open(os.DevNull)
	defer f.Close()
	r.keep.StoreState(int(f.Fd()), []unix.Signal{s})
	r.keep.Flush()
	r.report("took %s", unix.SignalName(s))
}

// child starts a binary in another role: a worker as the leader of a group.
func (r *role) child(name, binary string) *os.Process {
	os.Setenv("KEEPER_TEST_ROLE", name)
	attr := os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		Sys: &unix.SysProcAttr{Setpgid: name == "worker"}}
	p, err := os.StartProcess(binary, os.Args, &attr)
	if err != nil {
		r.report("cannot start a child: %v", err)
	}
	return p
}

func TestStopInGoodOrder(t *testing.T) {
	w := run(t, "serve", Config{})
	w.await("ready")
	w.signals <- unix.SIGUSR2
	w.await("took SIGUSR2")
	w.signals <- unix.SIGTERM
	w.await("signal SIGTERM")
	w.ends(7)
}

// A master that is killed is followed by the next one, with growing waits, which is told
// why it is there, and what the one before had not taken note of.
func TestMasterIsKilled(t *testing.T) {
	w := run(t, "serve", Config{})
	for i := range 4 {
		pid, _ := strconv.Atoi(w.await("ready"))
		kill(pid)
		if rest := w.await("begins"); !strings.HasSuffix(rest, fmt.Sprintf("restarts %d reason killed by SIGKILL", i+1)) {
			t.Errorf("%q", rest)
		}
	}
	w.await("ready")
	w.signals <- unix.SIGTERM
	w.ends(7)
}

func TestSignalIsToldTheNextMaster(t *testing.T) {
	w := run(t, "dies", Config{Waits: Waits{Stop: testTimeout, BackoffFirst: time.Millisecond, BackoffMax: time.Millisecond}})
	w.await("ready")
	t.Setenv("KEEPER_TEST_ROLE", "serve")
	w.signals <- unix.SIGUSR2
	w.await("ready")
	w.await("signal SIGUSR2")
	w.await("took SIGUSR2")
	w.signals <- unix.SIGTERM
	w.ends(7)
}

// The first master fails: it has said why.
func TestFirstMasterFails(t *testing.T) {
	w := run(t, "fail", Config{})
	w.ends(3)
}

// A stop before anything serves goes to the master as it is.
func TestStopBeforeReady(t *testing.T) {
	w := run(t, "idle", Config{})
	w.await("begins")
	w.signals <- unix.SIGTERM
	w.await("ends by terminated")
	w.ends(5)
}

// A master that hangs does not handle a stop: it is killed, the next one does.
func TestStopOfAMasterThatHangs(t *testing.T) {
	w := run(t, "hang-once", Config{Waits: Waits{Stop: time.Second, BackoffFirst: time.Millisecond}})
	w.await("ready")
	w.signals <- unix.SIGTERM
	w.await("signal SIGTERM")
	w.ends(7)
	w.said("did not stop within 1s")
}

// Where each master hangs, or dies of being ready, the keeper stops the workers.
func TestStopWithoutAMaster(t *testing.T) {
	waits := short
	waits.Stop = 50 * time.Millisecond
	for _, role := range []string{"hang", "dies", "deaf"} {
		t.Run(role, func(t *testing.T) {
			w := run(t, role, Config{Waits: waits})
			pid, _ := strconv.Atoi(w.await("ready"))
			if role == "deaf" {
				kill(pid)
				w.await("begins")
			}
			w.signals <- unix.SIGTERM
			if role == "deaf" {
				w.signals <- unix.SIGTERM // once more: at once
			}
			w.ends(1)
			w.said("cannot start a master to stop the workers")
		})
	}
}

// What is killed last is everything that descends from the keeper, and nothing that was
// its child before it became one.
func TestStopEndsTheWholeTree(t *testing.T) {
	other := exec.Command("sleep", "1000")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	waits := short
	waits.Stop = 50 * time.Millisecond
	w := run(t, "family", Config{Waits: waits})
	master, _ := strconv.Atoi(w.await("ready"))
	grandchild, _ := strconv.Atoi(w.await("grandchild"))
	kill(master)
	w.signals <- unix.SIGTERM
	w.ends(1)
	if s, err := linux.ReadStat(grandchild); err == nil && s.State != 'Z' {
		t.Errorf("the worker's child is left: %+v", s)
	}
	if s, err := linux.ReadStat(other.Process.Pid); err != nil || s.State == 'Z' {
		t.Errorf("a child of before is gone: %+v, %v", s, err)
	}
	other.Process.Kill()
	other.Wait()
}
