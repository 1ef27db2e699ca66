package programs

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/logtest"
)

// handoff is the handoff under test.
var handoff string

// patience is for failure only.
const patience = 60 * time.Second

const drainTimeout = 10 * time.Second

// place is where a row runs.
type place struct {
	dir, port, sock string
}

// newPlace makes a row's folder, with its files in it.
func newPlace(t *testing.T, r row) place {
	t.Helper()
	dir, err := os.MkdirTemp("", "hp") // short: it has a socket's path
	if err == nil {
		err = os.Chmod(dir, 0o777)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := place{dir: dir, port: freePort(t), sock: dir + "/s.sock"}
	if err := os.CopyFS(dir, os.DirFS("../testdata/any")); err != nil {
		t.Fatal(err)
	}
	for name, text := range r.files {
		put(t, dir+"/"+name, p.fill(text))
	}
	if r.pkg != "" {
		if err := goBuild("handoff/integration/testdata/any/"+r.pkg, p.dir+"/program"); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func (p place) fill(s string) string {
	return strings.NewReplacer("%DIR%", p.dir, "%PORT%", p.port, "%SOCK%", p.sock, "%CACHE%", cache(), "%MOJO%", strings.ReplaceAll(p.sock, "/", "%2F")).Replace(s)
}

func (p place) all(list []string) []string {
	filled := make([]string, len(list))
	for i, s := range list {
		filled[i] = p.fill(s)
	}
	return filled
}

// command is the program, or what runs it.
func (p place) command(r row, before ...string) *exec.Cmd {
	args := append(before, p.all(r.args)...)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = p.dir
	cmd.Env = append(os.Environ(), "PORT="+p.port, "HOST=127.0.0.1", "SOCK="+p.sock, "NODE_PATH="+cache()+"/node_modules", "HOME="+p.dir, "NODE_ENV=production")
	cmd.Env = append(cmd.Env, p.all(r.env)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// service is one handoff under test.
type service struct {
	t       *testing.T
	cmd     *exec.Cmd
	workers int
	*logtest.Log
}

// start starts a program under handoff, and waits until it serves.
func start(t *testing.T, r row, p place) *service {
	t.Helper()
	run := append([]string{handoff, "run", "-n", "2", "--log", "json", "--drain-timeout", drainTimeout.String(), "--kill-grace", "2s", "--ready-delay", "0"}, p.all(r.flags)...)
	workers := 2
	if slices.Contains(r.flags, "1") { // -n 1
		workers = 1
	}
	s := &service{t: t, workers: workers, cmd: p.command(r, append(run, "--")...), Log: logtest.New()}
	pipe, end, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s.cmd.Env = append(s.cmd.Env, "HANDOFF_STATE_DIR="+p.dir+"/.state", "HANDOFF_RUNTIME_DIR="+p.dir+"/.run")
	s.cmd.Stdout, s.cmd.Stderr = end, end
	err = s.cmd.Start()
	end.Close()
	if err != nil {
		t.Fatal(err)
	}
	go s.Read(bufio.NewReaderSize(pipe, 1<<20)) // ends with handoff and its workers
	t.Cleanup(s.end)
	started := s.await("cluster.started", 1)
	want := ":" + p.port
	if r.kind == path {
		want = p.sock
	}
	if !strings.Contains(started.Addresses, want) { // it listens on something of its own first
		t.Logf("started on %q", started.Addresses)
		awaitListener(t, string(r.kind), strings.Replace(want, ":", "127.0.0.1:", 1))
	}
	return s
}

// await waits for the event's nth line.
func (s *service) await(event string, n int) logtest.Line {
	s.t.Helper()
	var found []logtest.Line
	if !s.Until(patience, func() bool { found = logtest.Named(s.Lines, event); return len(found) >= n }) {
		s.t.Fatalf("%d of %d %s within %v", len(found), n, event, patience)
	}
	return found[n-1]
}

// reload is the nth reload: it waits for the new generation, and for the end of the old one.
func (s *service) reload(n int) {
	s.t.Helper()
	if err := unix.Kill(s.cmd.Process.Pid, unix.SIGUSR2); err != nil {
		s.t.Fatal(err)
	}
	s.await("cluster.reloaded", n)
	s.await("worker.shutdown", s.workers*n)
}

// end stops the service.
func (s *service) end() {
	s.cmd.Process.Signal(unix.SIGTERM)
	if !s.Until(40*time.Second, func() bool { return s.Ended }) {
		s.t.Errorf("handoff does not end within 40 s of SIGTERM")
		unix.Kill(-s.cmd.Process.Pid, unix.SIGKILL)
	}
	s.cmd.Wait()
	s.Mu.Lock()
	defer s.Mu.Unlock()
	if s.t.Failed() || testing.Verbose() {
		for _, l := range s.Lines {
			if l.Level == "WARN" || l.Level == "ERROR" || s.t.Failed() {
				s.t.Logf("%s %s slot=%d pid=%d %s %s %s %s %s", l.Time, l.Level, l.Slot, l.PID, l.Event, l.Msg, l.Reason, l.Error, l.Stderr)
			}
		}
	}
	if s.t.Failed() {
		s.t.Log(strings.Join(s.Other[max(0, len(s.Other)-30):], "\n"))
	}
}

var nextPort atomic.Int64

// freePort is one below the ephemeral ones, where neither TCP nor UDP has anybody.
func freePort(t *testing.T) string {
	t.Helper()
	for range 1000 {
		port := strconv.Itoa(20000 + (os.Getpid()*37+int(nextPort.Add(1)))%5000)
		ln, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err != nil {
			continue
		}
		ln.Close()
		if pc, err := net.ListenPacket("udp", "127.0.0.1:"+port); err == nil {
			pc.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return ""
}

// bareStops is how often a bare program is stopped under kept connections.
const bareStops = 5

// signal of a bare program's graceful end.
func (r row) signal() syscall.Signal {
	if r.drain == "" {
		return unix.SIGTERM
	}
	return unix.SignalNum("SIG" + r.drain)
}

// bareLosses stops the bare program under kept connections, as handoff would, and counts what
// was lost on those that had already answered.
func bareLosses(t *testing.T, r row) counts {
	var sum counts
	for range bareStops {
		p := newPlace(t, r)
		r.front(t, p)
		cmd := p.command(r)
		cmd.Env = append(cmd.Env, r.bare...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		gone := make(chan error, 1)
		go func() { gone <- cmd.Wait() }() // ends with the program
		if r.kind == path {
			awaitListener(t, "unix", p.sock)
		} else {
			awaitListener(t, "tcp", "127.0.0.1:"+p.port)
		}
		l := r.load(t, p, true)
		l.await(t, 200)
		cmd.Process.Signal(r.signal())
		select {
		case <-gone:
		case <-time.After(drainTimeout): // as under handoff
		}
		unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		c := l.stop().onReused()
		if r.protocol() != "" { // what nginx cannot connect to has no part in it
			c = counts{requests: c.requests}
			c.add("status", p.frontLosses(t))
		}
		sum.merge(c)
	}
	return sum
}

// awaitListener waits until somebody listens.
func awaitListener(t *testing.T, network, addr string) {
	t.Helper()
	for deadline := time.After(patience); ; {
		if c, err := net.Dial(network, addr); err == nil {
			c.Close()
			return
		}
		select {
		case <-deadline:
			t.Fatalf("nobody listens on %s", addr)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// result is what a row has seen.
type result struct {
	fresh, kept, bare counts
	quiet             time.Duration // the longest answer on a kept connection, no reload being under way
	reloads           int
	machine           string // how many ran on it before
}

// measure reloads a program under clients that make a connection for each request, then under
// those that keep theirs.
func measure(t *testing.T, r row) (res result) {
	res.machine = loadAverage()
	p := newPlace(t, r)
	r.front(t, p)
	s := start(t, r, p)
	res.reloads = times(*reloads, 2)
	if r.slow {
		res.reloads = times((*reloads+1)/2, 1)
	}
	n := 0
	under := func(kept bool, times int) counts {
		l := r.load(t, p, kept)
		l.await(t, 50)
		for range times {
			n++
			s.reload(n)
			l.await(t, 20)
		}
		return l.stop()
	}
	res.fresh = under(false, res.reloads)
	if !*long {
		return res
	}
	res.quiet = r.undisturbed(t, p)
	all := under(true, res.reloads)
	res.kept = all.onReused()
	res.fresh.merge(all.onNew())
	if res.kept.lost > 0 && r.kind != udp && !slices.Contains(r.flags, "--listen") {
		res.bare = bareLosses(t, r)
	}
	return res
}

// undisturbed is the longest answer on a kept connection within some seconds without a reload.
func (r row) undisturbed(t *testing.T, p place) time.Duration {
	l := r.load(t, p, true)
	l.await(t, 20)
	<-time.After(2 * time.Second)
	return l.stop().longest
}

// loadAverage is that of the last minute.
func loadAverage() string {
	b, _ := os.ReadFile("/proc/loadavg")
	first, _, _ := strings.Cut(string(b), " ")
	return first
}

func (c counts) String() string {
	return fmt.Sprintf("%d of %d lost%s, since %s\n%s", c.lost, c.requests, c.classes(), c.since.UTC().Format("15:04:05.000"), strings.Join(c.samples, "\n"))
}
