package hostile

import (
	"bufio"
	"flag"
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

	"golang.org/x/sys/unix"

	"handoff/internal/load"
	"handoff/internal/logtest"
)

// binary is the handoff under test, in a folder that everybody may enter.
var binary string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(build(m))
}

func build(m *testing.M) int {
	dir, err := os.MkdirTemp("", "handoff-hostile")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "handoff")
	cmd := exec.Command("go", "build", "-tags", "nethttpomithttp2", "-o", binary, "handoff/cmd/handoff")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%v: %v\n%s", cmd, err, out)
		return 1
	}
	return m.Run()
}

// patience is for failure only.
const patience = 40 * time.Second

const nobody = 65534

// setup is who runs what, and by which contract.
type setup struct {
	node bool // Node's contract; else Python's, whose calls are intercepted
	drop bool // handoff is root, its workers are nobody's; else all is of one unprivileged user
}

func (s setup) String() string {
	name := map[bool]string{false: "python", true: "node"}[s.node]
	return name + map[bool]string{false: "-one-user", true: "-of-root"}[s.drop]
}

// setups calls f in each setup with -long, else in the first one.
func setups(t *testing.T, all []setup, f func(t *testing.T, s setup)) {
	if !*long {
		all = all[:1]
	}
	for _, s := range all {
		if s.drop && os.Geteuid() != 0 {
			s.drop = false
		}
		t.Run(s.String(), func(t *testing.T) { f(t, s) })
	}
}

// every is all setups.
var every = []setup{{false, true}, {true, true}, {false, false}, {true, false}}

// options of a service; the zero value is of two workers that serve.
type options struct {
	setup
	flags   []string
	env     []string
	attack  string   // Python, in the first worker of the first generation: see attacker
	program []string // instead of the server
	behind  []string // a command that runs handoff
	binary  string   // another copy of handoff; "": that of the tests
}

// service is one handoff under test.
type service struct {
	t      *testing.T
	cmd    *exec.Cmd
	dir    string // of the program; everybody may write into it
	addr   string
	keeper int // its pid, if the one that was started has been killed; Mu guards it
	*logtest.Log
}

// start starts a service, and waits until it serves.
func start(t *testing.T, o options) *service {
	t.Helper()
	s := launch(t, o)
	s.await("cluster.started")
	return s
}

// launch starts a service without waiting for it.
func launch(t *testing.T, o options) *service {
	t.Helper()
	s := &service{t: t, dir: folder(t), Log: logtest.New()}
	port := freePort(t)
	s.addr = "127.0.0.1:" + port
	write := func(name, text string) string {
		path := filepath.Join(s.dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	attack := write("attack.py", attacker+o.attack)
	program := o.program
	switch {
	case program != nil:
	case o.node:
		program = []string{write("server.js", nodeServer)}
	default:
		program = []string{python3(), write("server.py", pythonServer)}
	}
	if o.binary == "" {
		o.binary = binary
	}
	args := append([]string{o.binary, "run", "-n", "2", "--log", "json", "--drain-timeout", "2s", "--kill-grace", "1s", "--ready-delay", "0"}, o.flags...)
	if o.drop {
		args = append(args, "--user", "nobody")
	}
	args = append(append(o.behind, args...), append([]string{"--"}, program...)...)
	s.cmd = exec.Command(args[0], args[1:]...)
	s.cmd.Dir = s.dir
	s.cmd.Env = append(os.Environ(), "PORT="+port, "HOST=127.0.0.1", "HOME="+s.dir, "ATTACK="+attack, "PYTHON="+python3(), "HANDOFF_KEEPER_WAITS=backoff-max=200ms")
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	own := folder(t)
	if !o.drop && os.Geteuid() == 0 {
		s.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
		os.Chown(own, nobody, nobody)
	}
	os.Chmod(own, 0o755)
	s.cmd.Env = append(append(s.cmd.Env, "HANDOFF_STATE_DIR="+filepath.Join(own, "state"), "HANDOFF_RUNTIME_DIR="+filepath.Join(own, "run")), o.env...)
	pipe, end, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s.cmd.Stdout, s.cmd.Stderr = end, end
	err = s.cmd.Start()
	end.Close()
	if err != nil {
		t.Fatal(err)
	}
	go s.Read(bufio.NewReaderSize(pipe, 1<<20)) // ends with handoff and its workers
	t.Cleanup(s.end)
	return s
}

// folder is one of the test's that everybody may use; testing's own is for one user.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "hostile")
	if err == nil {
		err = os.Chmod(dir, 0o777)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// python3 is one that nobody may run, too.
func python3() string {
	const system = "/usr/bin/python3"
	if _, err := os.Stat(system); err == nil {
		return system
	}
	return "python3"
}

var nextPort atomic.Int64

func freePort(t *testing.T) string {
	t.Helper()
	for range 1000 {
		port := strconv.Itoa(15000 + (os.Getpid()*37+int(nextPort.Add(1)))%5000)
		if ln, err := net.Listen("tcp", "127.0.0.1:"+port); err == nil {
			ln.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return ""
}

// end stops the service, with what it has left behind.
func (s *service) end() {
	if s.cmd.ProcessState == nil {
		s.cmd.Process.Signal(unix.SIGTERM)
		if !s.Until(15*time.Second, func() bool { return s.Ended }) {
			s.t.Errorf("handoff does not end within 15 s of SIGTERM")
			for _, pid := range append(s.workers(), s.master(), s.cmd.Process.Pid) {
				if pid > 1 {
					unix.Kill(pid, unix.SIGKILL)
				}
			}
		}
		s.cmd.Wait()
	}
	if left := s.attacking(); len(left) > 0 {
		s.t.Errorf("%d processes of the attacker are left when handoff has ended", len(left))
		for ; len(left) > 0; left = s.attacking() {
			for _, signal := range []unix.Signal{unix.SIGSTOP, unix.SIGKILL} { // one that is stopped does not fork
				for _, pid := range left {
					unix.Kill(pid, signal)
				}
			}
		}
	}
	if s.t.Failed() {
		for _, l := range s.Lines[max(0, len(s.Lines)-60):] {
			s.t.Logf("%s %v slot=%d pid=%d generation=%d %s", l.Level, l, l.Slot, l.PID, l.Generation, l.Time)
		}
		s.t.Log(strings.Join(s.Other[max(0, len(s.Other)-30):], "\n"))
	}
}

// await waits for the event's nth line, the first without n.
func (s *service) await(event string, n ...int) logtest.Line {
	s.t.Helper()
	var found []logtest.Line
	want := 1
	if len(n) > 0 {
		want = n[0]
	}
	if !s.Until(patience, func() bool { found = logtest.Named(s.Lines, event); return len(found) >= want }) {
		s.t.Fatalf("no %s within %v", event, patience)
	}
	return found[want-1]
}

// said are the lines of an event so far.
func (s *service) said(event string) []logtest.Line {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	return logtest.Named(s.Lines, event)
}

// says is the first line of any of the events as the table has it; "": there is none.
func (s *service) says(events ...string) string {
	for _, e := range events {
		if all := s.said(e); len(all) > 0 {
			return all[0].String()
		}
	}
	return ""
}

// reload asks for one, and waits until the next generation serves and the one before has gone.
func (s *service) reload() {
	s.t.Helper()
	n := len(s.said("cluster.reloaded"))
	gone := len(s.said("worker.shutdown"))
	s.cmd.Process.Signal(unix.SIGUSR2)
	s.await("cluster.reloaded", n+1)
	if !s.Until(patience, func() bool { return len(logtest.Named(s.Lines, "worker.shutdown")) >= gone+2 }) {
		s.t.Fatal("the old generation does not end")
	}
}

// stop ends the service, which must end by itself.
func (s *service) stop() {
	s.t.Helper()
	s.cmd.Process.Signal(unix.SIGTERM)
	if !s.Until(patience, func() bool { return s.Ended }) {
		s.t.Fatal("handoff does not end")
	}
	s.cmd.Wait()
}

// mark writes a file that the program's folder is watched for; marked waits for one.
func (s *service) mark(name string) {
	if err := os.WriteFile(filepath.Join(s.dir, name), nil, 0o644); err != nil {
		s.t.Fatal(err)
	}
}

func (s *service) marked(name string) string {
	s.t.Helper()
	for deadline := time.After(patience); ; {
		if b, err := os.ReadFile(filepath.Join(s.dir, name)); err == nil {
			return string(b)
		}
		select {
		case <-deadline:
			s.t.Fatalf("the attack does not say %q", name)
		case <-time.After(time.Millisecond):
		}
	}
}

// outlived waits until no process of the attack is left: handoff ends what a worker leaves.
func (s *service) outlived() {
	s.t.Helper()
	for deadline := time.After(patience); ; {
		left := s.attacking()
		if len(left) == 0 {
			return
		}
		select {
		case <-deadline:
			s.t.Fatalf("the attack outlives its worker: %d", left)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// attacking are the processes that run the attack.
func (s *service) attacking() (pids []int) {
	path := filepath.Join(s.dir, "attack.py")
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range all {
		if b, _ := os.ReadFile(file); strings.Contains(string(b), path) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// master is its pid, 0 while there is none; workers are its children's.
func (s *service) master() int {
	for _, pid := range children(s.cmd.Process.Pid) {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if args := strings.Split(string(b), "\x00"); len(args) > 1 && args[1] == "__master" {
			return pid
		}
	}
	return 0
}

func (s *service) workers() []int { return children(s.master()) }

func children(pid int) (pids []int) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, task := range tasks {
		b, _ := os.ReadFile(task)
		for _, f := range strings.Fields(string(b)) {
			child, _ := strconv.Atoi(f)
			pids = append(pids, child)
		}
	}
	return pids
}

// clients are the clients of one service: half of them make a connection for each request,
// half keep theirs. None retries. With sticky balance each is always a slot's, and so it
// can be told whose requests are lost.
type clients struct {
	*load.Run
	mu   sync.Mutex // guards slot
	slot map[int]string
}

// crowd is how many clients there are. Each has an address of its own.
const crowd = 16

func (s *service) clients() *clients {
	c := &clients{slot: map[int]string{}}
	cfg := load.Config{Addr: s.addr, Clients: crowd, Mode: load.Mixed, Rate: 300, Shed: true, Part: "before", Timeout: 5 * time.Second}
	for i := range crowd {
		cfg.Sources = append(cfg.Sources, net.IPv4(127, 9, 9, byte(i+1)))
	}
	cfg.Observe = func(client int, h http.Header) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.slot[client] == "" {
			c.slot[client] = h.Get("X-Slot")
		}
	}
	cfg.Inside = func(local string) bool {
		host, _, _ := net.SplitHostPort(local)
		ip := net.ParseIP(host).To4()
		c.mu.Lock()
		defer c.mu.Unlock()
		return ip != nil && c.slot[int(ip[3])-1] == "0" // the attacker's
	}
	c.Run = load.Start(cfg)
	return c
}

// more waits until n more requests have had an answer, or none.
func (c *clients) more(t *testing.T, n int64) {
	t.Helper()
	if !c.Await(n, patience) {
		t.Fatalf("no %d requests within %v", n, patience)
	}
}

// count ends the load, and adds it to the report. Before the part "after", what clients of the
// attacker's slot lost is counted as its own, with sticky. What a worker of the version before
// has answered is not lost: it was queued where nobody accepted, for example.
func (c *clients) count(t *testing.T, r *report, sticky bool) {
	t.Helper()
	c.Stop()
	for _, p := range c.Parts() {
		got := p.Result()
		own, stale := int64(0), got.Failed[load.Order]
		if sticky && p.Name != "after" { // a request of before may end in the attack
			own = got.Failed[load.Inside]
		}
		r.count(got.Requests-own, got.Lost()-own-stale, own)
		r.late(stale)
		if n := got.Lost() - own - stale; n > 0 && (r.limit == "" || p.Name == "after") {
			t.Errorf("others lost %d of %d in the part %q", n, got.Requests, p.Name)
		}
		if got.Lost() > 0 {
			t.Logf("%s: %v", p.Name, got)
		}
	}
}
