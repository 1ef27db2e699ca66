// Package integration speaks to handoff as its users do: processes, signals,
// sockets, and the event stream of its log.
package integration

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"handoff/internal/load"
)

var (
	long = flag.Bool("long", false, "full numbers of reloads and repetitions")
	raw  = flag.Bool("race-binary", false, "build handoff with the race detector")
)

var (
	binary   string // the handoff under test
	programs string // the folder of the programs of testdata/any that are Go
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "handoff-integration")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary, programs = filepath.Join(dir, "handoff"), filepath.Join(dir, "programs")
	if err := build(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	os.Setenv("HANDOFF_STATE_DIR", filepath.Join(dir, "state"))
	os.Setenv("HANDOFF_RUNTIME_DIR", filepath.Join(dir, "run"))
	return m.Run()
}

// build builds handoff and all Go programs that it runs, at once. The programs
// are without libc and the race detector.
func build() error {
	handoff, others := goBuild("-tags", "nethttpomithttp2", "-o", binary, "handoff/cmd/handoff"), goBuild("-o", programs+"/", "./testdata/any/...")
	if *raw {
		handoff = exec.Command("go", "build", "-race", "-o", binary, "handoff/cmd/handoff")
	}
	errs := make(chan error, 2)
	for _, cmd := range []*exec.Cmd{handoff, others} {
		go func() { // ends with the build
			out, err := cmd.CombinedOutput()
			if err != nil {
				err = fmt.Errorf("cannot build: %v: %w\n%s", cmd, err, out)
			}
			errs <- err
		}()
	}
	return errors.Join(<-errs, <-errs)
}

func goBuild(args ...string) *exec.Cmd {
	cmd := exec.Command("go", append([]string{"build"}, args...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	return cmd
}

// times returns n in the long run, else short.
func times(n, short int) int {
	if *long {
		return n
	}
	return short
}

// testTimeout is for failure only.
const testTimeout = 40 * time.Second

// event is one line of handoff's log.
type event struct {
	Name       string    `json:"event"`
	Level      string    `json:"level"`
	Msg        string    `json:"msg"`
	Slot       int       `json:"slot"`
	PID        int       `json:"pid"`
	Generation int       `json:"generation"`
	Worker     int       `json:"worker"`
	Workers    int       `json:"workers"`
	Addresses  string    `json:"addresses"`
	Address    string    `json:"address"`
	Reason     string    `json:"reason"`
	Stderr     string    `json:"stderr"`
	File       string    `json:"file"`
	Conns      int       `json:"connections"`
	Code       int       `json:"code"`
	KilledBy   string    `json:"killed_by"`
	After      float64   `json:"after_seconds"`
	Time       time.Time `json:"time"`
}

// world is one handoff under test.
type world struct {
	t    *testing.T
	cmd  *exec.Cmd
	dir  string
	addr string // host:port of the first address
	out  *lockedBuffer

	mu       sync.Mutex // guards events, ended
	events   []event
	other    []string // lines that are not handoff's
	more     chan struct{}
	ended    bool
	cursor   int      // of await
	keeper   int      // pid of the one after the first
	instance string   // of its workers
	errors   *os.File // write end of its stderr, for another start; nil: closed
	gone     int      // of retired
}

type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// options of a world; the zero value runs testdata/server.js.
type options struct {
	flags []string
	app   []string // program and arguments; relative to the test's folder
	env   []string // "K=V"
	dir   string   // of handoff
	// passed are sockets that it gets as from a service manager.
	passed  []*os.File
	behind  []string // a command that runs handoff
	binary  string   // the handoff to run, if it is not the one under test
	again   bool     // it is started more than once
	bare    bool     // flags are the whole command line
	stdout  *os.File // of handoff; nil: it is read
	session bool     // it leads a session, and stdout is the terminal of that
}

// launch starts handoff without waiting for anything.
func launch(t *testing.T, o options) *world {
	t.Helper()
	if len(o.app) == 0 {
		o.app = []string{data("server.js")}
	}
	if o.dir == "" {
		o.dir = t.TempDir()
	}
	w := &world{t: t, dir: o.dir, more: make(chan struct{}, 1), out: &lockedBuffer{}}
	args := append([]string{"run", "--log", "json", "--drain-timeout", "20s", "--kill-grace", "2s", "--ready-delay", "0"}, o.flags...)
	if !slices.Contains(o.flags, "--hold") { // of all the programs' PORT=0, one is held
		args = append(args, "--hold", "0")
	}
	if o.binary == "" {
		o.binary = binary
	}
	w.cmd = exec.Command(o.binary, append(append(args, "--"), o.app...)...)
	if o.bare {
		w.cmd = exec.Command(o.binary, o.flags...)
	}
	if len(o.passed) > 0 {
		w.cmd = exec.Command("sh", append([]string{"-c", fmt.Sprintf(`LISTEN_PID=$$ LISTEN_FDS=%d exec "$0" "$@"`, len(o.passed)), binary}, w.cmd.Args[1:]...)...)
		w.cmd.ExtraFiles = o.passed
	}
	if len(o.behind) > 0 {
		w.cmd = exec.Command(o.behind[0], append(o.behind[1:], w.cmd.Args...)...)
	}
	w.cmd.Dir = o.dir
	w.cmd.Env = append(os.Environ(), "PORT=0")
	if !*long { // masters are killed again and again
		w.cmd.Env = append(w.cmd.Env, "HANDOFF_KEEPER_WAITS=backoff-max=200ms")
	}
	w.cmd.Env = append(w.cmd.Env, o.env...)
	w.cmd.Stdout = w.out
	w.cmd.WaitDelay = 5 * time.Second // for workers that have outlived it
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if o.stdout != nil {
		w.cmd.Stdout = o.stdout
	}
	if o.session {
		w.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 1}
	}
	pipe, end, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	w.cmd.Stderr = end
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if o.again {
		w.errors = end
	} else {
		end.Close()
	}
	go w.read(bufio.NewReaderSize(pipe, 1<<20)) // ends with handoff's stderr
	t.Cleanup(func() {
		if !w.over() {
			syscall.Kill(w.pid(), syscall.SIGQUIT)
			syscall.Kill(w.pid(), syscall.SIGTERM) // at once
			w.errors.Close()
			if !w.awaitEnd(10 * time.Second) {
				master := w.master()
				syscall.Kill(w.pid(), syscall.SIGKILL)
				if master > 0 {
					syscall.Kill(master, syscall.SIGKILL)
				}
				w.killWorkers()
			}
			w.cmd.Wait()
		}
		if *raw && strings.Contains(w.stderr(), "WARNING: DATA RACE") {
			t.Error("a data race")
		}
		if t.Failed() {
			w.dump()
		}
	})
	return w
}

// start launches handoff and waits until its first generation serves.
func start(t *testing.T, o options) *world {
	t.Helper()
	w := launch(t, o)
	e := w.await("cluster.started")
	if first, _, _ := strings.Cut(e.Addresses, " "); first != "" {
		w.addr = first
		if port, ok := strings.CutPrefix(first, "[::]:"); ok {
			w.addr = "127.0.0.1:" + port
		}
	}
	return w
}

func data(name string) string {
	path, err := filepath.Abs(filepath.Join("testdata", name))
	if err != nil {
		panic(err)
	}
	return path
}

func (w *world) read(r *bufio.Reader) {
	for {
		line, err := r.ReadString('\n')
		var e event
		ok := json.Unmarshal([]byte(line), &e) == nil && e.Name != ""
		w.mu.Lock()
		switch {
		case ok:
			w.events = append(w.events, e)
		case line != "":
			w.other = append(w.other, line)
		}
		if err != nil {
			w.ended = true
		}
		w.mu.Unlock()
		select {
		case w.more <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

// killWorkers ends what a handoff that was killed has left behind.
func (w *world) killWorkers() {
	gone := map[int]bool{}
	for _, name := range []string{"worker.shutdown", "worker.crashed"} {
		for _, e := range w.all(name) {
			gone[e.PID] = true
		}
	}
	for _, e := range w.all("worker.started") {
		if !gone[e.PID] && e.PID > 1 {
			syscall.Kill(-e.PID, syscall.SIGKILL)
		}
	}
}

func (w *world) over() bool { return w.cmd.ProcessState != nil }

// pid is the keeper's.
func (w *world) pid() int {
	if w.keeper != 0 {
		return w.keeper
	}
	return w.cmd.Process.Pid
}

// await returns the next event of that name after the last one awaited.
func (w *world) await(name string) event {
	w.t.Helper()
	return w.awaitWhere(name, func(event) bool { return true })
}

func (w *world) awaitWhere(name string, ok func(event) bool) event {
	w.t.Helper()
	deadline := time.NewTimer(testTimeout)
	defer deadline.Stop()
	for {
		w.mu.Lock()
		for w.cursor < len(w.events) {
			e := w.events[w.cursor]
			w.cursor++
			if e.Name == name && ok(e) {
				w.mu.Unlock()
				return e
			}
		}
		ended := w.ended
		w.mu.Unlock()
		if ended {
			w.t.Fatalf("handoff ended while %s was awaited", name)
		}
		select {
		case <-w.more:
		case <-deadline.C:
			w.stacks()
			w.t.Fatalf("no %s within %v", name, testTimeout)
		}
	}
}

// all returns the events of a name so far.
func (w *world) all(name string) []event {
	w.mu.Lock()
	defer w.mu.Unlock()
	var es []event
	for _, e := range w.events {
		if e.Name == name {
			es = append(es, e)
		}
	}
	return es
}

// stderr returns the lines on stderr that are not handoff's own.
func (w *world) stderr() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.other, "")
}

func (w *world) signal(s syscall.Signal) {
	w.t.Helper()
	if err := syscall.Kill(w.pid(), s); err != nil {
		w.t.Fatal(err)
	}
}

// reload asks for one and waits until the new generation serves.
func (w *world) reload() event {
	w.t.Helper()
	w.signal(syscall.SIGUSR2)
	w.await("cluster.reloading")
	return w.await("cluster.reloaded")
}

// retired waits until n more workers are gone than at the last call.
func (w *world) retired(n int) {
	w.t.Helper()
	w.gone += n
	deadline := time.NewTimer(testTimeout)
	defer deadline.Stop()
	for len(w.all("worker.shutdown")) < w.gone {
		select {
		case <-w.more:
		case <-deadline.C:
			w.stacks()
			w.t.Fatalf("%d workers are gone, want %d", len(w.all("worker.shutdown")), w.gone)
		}
	}
}

// stop asks handoff to end with drain, and checks its exit code.
func (w *world) stop() {
	w.t.Helper()
	w.signal(syscall.SIGTERM)
	w.exits(0)
}

// exits waits for the end of handoff.
func (w *world) exits(code int) {
	w.t.Helper()
	w.errors.Close()
	if !w.awaitEnd(testTimeout) {
		w.stacks()
		w.t.Fatalf("handoff does not end within %v", testTimeout)
	}
	err := w.cmd.Wait()
	if got := w.cmd.ProcessState.ExitCode(); got != code && w.keeper == 0 {
		w.t.Errorf("handoff ended with %v, want exit code %d", err, code)
	}
}

// awaitEnd waits for the end of handoff's stderr, which its workers share.
func (w *world) awaitEnd(most time.Duration) bool {
	deadline := time.NewTimer(most)
	defer deadline.Stop()
	for {
		w.mu.Lock()
		ended := w.ended
		w.mu.Unlock()
		if ended {
			return true
		}
		select {
		case <-w.more:
		case <-deadline.C:
			return false
		}
	}
}

// stacks makes handoff print its goroutines.
func (w *world) stacks() {
	if master := w.master(); master > 0 {
		syscall.Kill(master, syscall.SIGABRT)
	}
	w.awaitEnd(2 * time.Second)
}

func (w *world) dump() {
	w.mu.Lock()
	defer w.mu.Unlock()
	from := max(0, len(w.events)-60)
	for _, e := range w.events[from:] {
		w.t.Logf("%s %s slot=%d pid=%d generation=%d worker=%d %s %s", e.Level, e.Msg, e.Slot, e.PID, e.Generation, e.Worker, e.Reason, e.Stderr)
	}
	for _, l := range w.other[max(0, len(w.other)-40):] {
		w.t.Log("stderr: " + strings.TrimSuffix(l, "\n"))
	}
}

// master returns the pid of the keeper's master, 0 while there is none.
func (w *world) master() int {
	for _, pid := range children(w.pid()) {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if args := strings.Split(string(b), "\x00"); len(args) > 1 && args[1] == "__master" {
			return pid
		}
	}
	return 0
}

// workers returns the pids of the workers: the master's children, and those
// that it has adopted, which are the keeper's.
func (w *world) workers() []int {
	w.t.Helper()
	master := w.master()
	pids := children(master)
	for _, pid := range children(w.pid()) {
		if pid != master {
			pids = append(pids, pid)
		}
	}
	if w.instance == "" {
		w.instance = environ(master, "HANDOFF_INSTANCE")
	}
	if w.keeper != 0 { // those whose keeper has died as well are the system's
		entries, _ := os.ReadDir("/proc")
		for _, e := range entries {
			if pid, err := strconv.Atoi(e.Name()); err == nil && !slices.Contains(pids, pid) && environ(pid, "HANDOFF_INSTANCE") == w.instance && environ(pid, "HANDOFF_WORKER") != "" {
				pids = append(pids, pid)
			}
		}
	}
	pids = slices.DeleteFunc(pids, relays)
	slices.Sort(pids)
	return pids
}

// relays reports whether a process is the one that passes connections on: it is there for as
// long as they are open.
func relays(pid int) bool {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return strings.Contains(string(b), "\x00__relay\x00")
}

// environ is a variable of another process.
func environ(pid int, name string) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	for kv := range strings.SplitSeq(string(b), "\x00") {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}

func children(pid int) []int {
	var pids []int
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

// ledger lists the descriptors of keeper and master, for a comparison.
// What has just ended is still being let go of: it is read until it rests.
func (w *world) ledger() []string {
	w.t.Helper()
	fds, same := w.descriptors(), 0
	for deadline := time.After(testTimeout); same < 20; {
		select {
		case <-deadline:
			w.t.Fatal("the descriptors do not come to rest")
		case <-time.After(10 * time.Millisecond):
		}
		if now := w.descriptors(); slices.Equal(now, fds) && !slices.ContainsFunc(append(children(w.master()), children(w.pid())...), relays) {
			same++
		} else {
			fds, same = now, 0
		}
	}
	return fds
}

func (w *world) descriptors() []string {
	w.t.Helper()
	var fds []string
	for _, pid := range []int{w.pid(), w.master()} {
		dir := fmt.Sprintf("/proc/%d/fd", pid)
		entries, err := os.ReadDir(dir)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, e := range entries {
			to, err := os.Readlink(filepath.Join(dir, e.Name()))
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			kind, _, _ := strings.Cut(to, ":")
			fds = append(fds, kind)
		}
	}
	slices.Sort(fds)
	return fds
}

// load starts a load on the first address.
func (w *world) load(cfg load.Config) *load.Run {
	cfg.Addr = w.addr
	return startLoad(cfg)
}

// pace and pauses are requests a second, for clients without and with a pause, of
// the loads in a run without -long. A closed loop takes all of two CPUs, and so
// starves what is under test; with -long that is wanted.
const (
	pace   = 300
	pauses = 150
)

// paced is a rate for a run without -long, 0 (a closed loop) with it.
func paced(rate float64) float64 {
	if *long {
		return 0
	}
	return rate
}

func startLoad(cfg load.Config) *load.Run {
	switch {
	case *long || cfg.Rate > 0:
	case cfg.Pause > 0:
		cfg.Rate, cfg.Pause = pauses, 0
	default:
		cfg.Rate = pace
	}
	cfg.Follow, cfg.Shed = true, !*long // without a rate they mean nothing
	return load.Start(cfg)
}

// nothingLostMixed is nothingLost where two generations may answer in turns.
func (w *world) nothingLostMixed(run *load.Run) {
	w.t.Helper()
	r := run.Stop()
	delete(r.Failed, load.Order)
	r.Samples = slices.DeleteFunc(r.Samples, func(f load.Failure) bool { return f.Class == load.Order })
	w.t.Log(r)
	if n := r.Lost(); n > 0 {
		w.t.Errorf("%d requests lost", n)
	}
}

// nothingLost ends a load and checks that every request was answered rightly.
func (w *world) nothingLost(run *load.Run) load.Result {
	w.t.Helper()
	r := run.Stop()
	w.t.Log(r)
	if n := r.Lost(); n > 0 {
		w.t.Errorf("%d requests lost", n)
	}
	return r
}

// awaitLine waits for a line on stderr that is not a JSON event.
func (w *world) awaitLine(part string) {
	w.t.Helper()
	deadline := time.NewTimer(testTimeout)
	defer deadline.Stop()
	for !strings.Contains(w.stderr(), part) {
		select {
		case <-w.more:
		case <-deadline.C:
			w.t.Fatalf("no %q on stderr:\n%s", part, w.stderr())
		}
	}
}

// awaitFile waits until a file holds a text.
func awaitFile(t *testing.T, path, part string) {
	t.Helper()
	for deadline := time.After(testTimeout); ; {
		if b, _ := os.ReadFile(path); strings.Contains(string(b), part) {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("no %q in %s", part, path)
		case <-time.After(time.Millisecond):
		}
	}
}
