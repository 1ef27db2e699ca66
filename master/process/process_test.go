package process

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
)

// role is the variable that says which program the test binary is.
const role = "PROCESS_TEST_ROLE"

// roles are the programs that the test binary is where a test starts it.
var roles = map[string]func(){
	"describe": describe,
	"exit":     func() { syscall.Exit(7) },
	"wait":     wait,
	"ignore":   ignore,
	"parent":   parent,
	"talk":     talk,
	"flood":    flood,
	"become":   become,
}

// used are the roles that a test has started: one that nobody uses is dead code.
type used struct {
	sync.Mutex
	roles map[string]bool
}

var started = used{roles: map[string]bool{}}

func TestMain(m *testing.M) {
	if f := roles[os.Getenv(role)]; f != nil {
		f()
		syscall.Exit(0) // without what a test binary says at its end
	}
	fds, _ := os.ReadDir("/proc/self/fd")
	for _, fd := range fds { // what who runs the tests has left open is not the room's
		if n, err := strconv.Atoi(fd.Name()); err == nil && n > 2 {
			unix.CloseOnExec(n)
		}
	}
	code := m.Run()
	if code == 0 && !narrowed() {
		for _, name := range slices.Sorted(maps.Keys(roles)) {
			if !started.roles[name] {
				fmt.Println("no test uses the role", name)
				code = 1
			}
		}
	}
	os.Exit(code)
}

// narrowed tells whether only some tests run.
func narrowed() bool {
	return slices.ContainsFunc(os.Args, func(a string) bool {
		return strings.HasPrefix(a, "-test.run=") && a != "-test.run=" || strings.HasPrefix(a, "-test.list") || strings.HasPrefix(a, "-test.fuzz")
	})
}

// about is what a program sees of itself.
type about struct {
	Args     []string
	Env      []string
	Dir      string
	Group    bool // it leads its process group
	Stdin    string
	Blocking bool // its stderr
	Terminal bool // its stdout
	Files    map[string]string
}

func describe() {
	a := about{Args: os.Args, Env: os.Environ(), Group: unix.Getpgrp() == os.Getpid(), Files: map[string]string{}}
	a.Dir, _ = os.Getwd()
	a.Stdin, _ = os.Readlink("/proc/self/fd/0")
	flags, _ := unix.FcntlInt(2, unix.F_GETFL, 0)
	a.Blocking = flags&unix.O_NONBLOCK == 0
	_, err := unix.IoctlGetTermios(1, unix.TCGETS)
	a.Terminal = err == nil
	fds, _ := os.ReadDir("/proc/self/fd")
	for _, fd := range fds {
		n, _ := strconv.Atoi(fd.Name())
		// Those that are close-on-exec it has opened itself.
		if flags, err := unix.FcntlInt(uintptr(n), unix.F_GETFD, 0); n > 2 && err == nil && flags&unix.FD_CLOEXEC == 0 {
			a.Files[fd.Name()], _ = os.Readlink("/proc/self/fd/" + fd.Name())
		}
	}
	json.NewEncoder(os.Stdout).Encode(a)
}

// wait says that it runs, and does until it is killed.
func wait() {
	fmt.Println("runs")
	unix.Alarm(60) // a test that has failed
	unix.Pause()
}

// ignore leaves SIGTERM alone, as a program that is not Go's: that takes no real-time
// signal.
func ignore() {
	signal.Ignore(unix.SIGTERM)
	unix.Exec("/bin/sh", []string{"sh", "-c", "echo runs; exec sleep 60"}, os.Environ())
}

// parent starts a program of its group, and waits.
func parent() {
	c := exec.Command("/proc/self/exe")
	c.Env = []string{role + "=wait"}
	c.Stdout = os.Stdout
	if c.Start() == nil {
		wait()
	}
}

func talk() {
	for i := range 30 {
		fmt.Fprintf(os.Stderr, "line %d\n\n", i)
	}
	fmt.Print("an answer")
}

// flood writes more than any pipe takes.
func flood() {
	line := strings.Repeat("x", 1023) + "\n"
	for range 4 << 10 {
		if _, err := os.Stdout.WriteString(line); err != nil {
			syscall.Exit(3)
		}
	}
	fmt.Fprintln(os.Stderr, "all written")
}

// become is a trampoline: it says with what it was called, and becomes the program.
func become() {
	if len(os.Args) < 4 {
		syscall.Exit(2)
	}
	fmt.Println("trampoline", os.Args[1])
	os.Setenv(role, "exit")
	unix.Exec(os.Args[2], os.Args[3:], os.Environ())
}

// self is how the test binary is started in a role.
func self(t *testing.T, name string) *Launch {
	t.Helper()
	started.Lock()
	started.roles[name] = true
	started.Unlock()
	if roles[name] == nil {
		t.Fatal("no role ", name)
	}
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return &Launch{Path: path, Args: []string{"program", "an argument"}, Dir: t.TempDir(), Env: []string{role + "=" + name}}
}

// run starts a program that ends, and is reaped, with the test at the latest.
func run(t *testing.T, s Spec) *Process {
	t.Helper()
	p, err := Start(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if p.Pidfd().FD() >= 0 { // not reaped
			p.Kill()
			p.AwaitDeath()
			p.Reap()
		}
	})
	return p
}

// end waits for the end of a program, and returns it in words.
func end(t *testing.T, p *Process) string {
	t.Helper()
	if err := p.Pidfd().AwaitDeath(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	p.awaitReaped()
	status, err := p.Reap()
	if err != nil {
		return err.Error()
	}
	return linux.Ended(status)
}

// read copies the output until n lines of stdout have come, or its end.
func read(t *testing.T, p *Process, n int) string {
	t.Helper()
	r, w := io.Pipe()
	p.CopyOutput(w, io.Discard)
	go func() { <-p.Copied(); w.Close() }()
	var b strings.Builder
	buf := make([]byte, 1)
	for strings.Count(b.String(), "\n") < n {
		if _, err := r.Read(buf); err != nil {
			break
		}
		b.Write(buf)
	}
	go io.Copy(io.Discard, r) // ends with the output
	return b.String()
}

// What a program is given, and nothing else.
func TestWhatAProgramGets(t *testing.T) {
	file, err := os.Open(os.DevNull) // is open, and not passed
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	passed := filepath.Join(t.TempDir(), "passed")
	f, err := os.Create(passed)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	l := self(t, "describe")
	p := run(t, Spec{Launch: l, Env: []string{"MORE=1"}, Files: []int{int(f.Fd())}, Stdout: Piped})
	var got about
	if err := json.Unmarshal([]byte(read(t, p, 1)), &got); err != nil {
		t.Fatal(err)
	}
	if s := end(t, p); s != "exited with code 0" {
		t.Error(s)
	}
	if !slices.Equal(got.Args, l.Args) || got.Dir != l.Dir || !got.Group || got.Stdin != os.DevNull || !got.Blocking {
		t.Errorf("%+v", got)
	}
	if want := []string{role + "=describe", "MORE=1"}; !slices.Equal(got.Env, want) {
		t.Errorf("environment %q, want %q", got.Env, want)
	}
	if want := map[string]string{"3": passed}; !maps.Equal(got.Files, want) {
		t.Errorf("descriptors %v, want %v", got.Files, want)
	}
}

func TestHowProgramsEnd(t *testing.T) {
	if s := end(t, run(t, Spec{Launch: self(t, "exit")})); s != "exited with code 7" {
		t.Error(s)
	}
	p := run(t, Spec{Launch: self(t, "ignore"), Stdout: Piped})
	read(t, p, 1)
	if _, err := p.Reap(); err == nil || !strings.Contains(err.Error(), "it is still running") {
		t.Errorf("reaped one that runs: %v", err)
	}
	if err := p.Signal(unix.SIGTERM); err != nil { // which it ignores
		t.Error(err)
	}
	if err := p.Signal(34 + 3); err != nil {
		t.Error(err)
	}
	if s := end(t, p); s != "killed by SIGRTMIN+3" {
		t.Error(s)
	}
	if _, err := p.Reap(); err == nil {
		t.Error("reaped twice")
	}
}

// An adopted process is reaped by somebody else; the kernel tells how it ended.
func TestAdopt(t *testing.T) {
	own := run(t, Spec{Launch: self(t, "wait"), Stdout: Piped})
	fd, err := own.Pidfd().Duplicate()
	if err != nil {
		t.Fatal(err)
	}
	pidfd, err := linux.NewPidfd(own.PID(), fd)
	if err != nil {
		t.Fatal(err)
	}
	stdout, stderr := own.Output()
	p := Adopt(pidfd, stdout, stderr)
	if !p.Adopted() || own.Adopted() || p.PID() != own.PID() {
		t.Error("who has started whom")
	}
	if got := read(t, p, 1); got != "runs\n" {
		t.Errorf("output %q", got)
	}
	if err := p.Kill(); err != nil {
		t.Error(err)
	}
	if err := p.AwaitDeath(); err != nil {
		t.Fatal(err)
	}
	if s := end(t, own); s != "killed by SIGKILL" {
		t.Error(s)
	}
	if err := p.Signal(unix.SIGTERM); err != nil {
		t.Errorf("a signal to one that was reaped: %v", err)
	}
	if err := p.SignalGroup(unix.SIGTERM); err != nil && err != unix.EINVAL {
		t.Errorf("a signal to a group that is gone: %v", err)
	}
	if s := end(t, p); s != "killed by SIGKILL" && s != linux.ErrUnknownExit.Error() {
		t.Error(s)
	}
	<-p.Copied()
}

// What a program has left behind in its group ends with it, also after its own death.
func TestGroup(t *testing.T) {
	for _, leaderFirst := range []bool{false, true} {
		p := run(t, Spec{Launch: self(t, "parent"), Stdout: Piped})
		read(t, p, 2)
		if leaderFirst {
			p.Signal(unix.SIGKILL)
			if err := p.AwaitDeath(); err != nil {
				t.Fatal(err)
			}
			if err := p.SignalGroup(unix.SIGTERM); err != nil {
				t.Error(err)
			}
		} else if err := p.Kill(); err != nil {
			t.Error(err)
		}
		select {
		case <-p.Copied(): // nobody has its stdout any more
		case <-time.After(20 * time.Second):
			t.Error("what it has left behind runs on")
		}
		end(t, p)
	}
}

func TestTrampoline(t *testing.T) {
	l := self(t, "become")
	p := run(t, Spec{Launch: l, Trampoline: []string{"handoff", "word"}, Stdout: Piped})
	if got := read(t, p, 1); got != "trampoline word\n" {
		t.Errorf("%q", got)
	}
	if s := end(t, p); s != "exited with code 7" {
		t.Error(s)
	}
}

func TestOutput(t *testing.T) {
	p := run(t, Spec{Launch: self(t, "talk"), Stdout: Piped})
	var out, errs bytes.Buffer
	p.CopyOutput(&out, &errs)
	<-p.Copied()
	if out.String() != "an answer" || strings.Count(errs.String(), "\n") != 60 {
		t.Errorf("stdout %q, stderr of %d lines", out.String(), strings.Count(errs.String(), "\n"))
	}
	if got, want := p.StderrTail(2), []string{"line 28", "line 29"}; !slices.Equal(got, want) {
		t.Errorf("the last lines are %q, want %q", got, want)
	}
	end(t, p)
}

// With a terminal as its stdout a program sees one, and what it writes comes unchanged.
func TestTerminal(t *testing.T) {
	p := run(t, Spec{Launch: self(t, "describe"), Stdout: Terminal})
	var got about
	if err := json.Unmarshal([]byte(read(t, p, 1)), &got); err != nil || !got.Terminal {
		t.Errorf("%+v, %v", got, err)
	}
	<-p.Copied() // it ends with the program
	end(t, p)
	p = run(t, Spec{Launch: self(t, "flood"), Stdout: Terminal})
	var out, errs bytes.Buffer
	p.CopyOutput(&out, &errs)
	if s := end(t, p); s != "exited with code 0" {
		t.Error(s)
	}
	<-p.Copied()
	if want := strings.Repeat(strings.Repeat("x", 1023)+"\n", 4<<10); out.String() != want {
		t.Errorf("%d bytes, want %d", out.Len(), len(want))
	}
}

// A program that nobody reads any more, since all of handoff is gone, goes on.
func TestNobodyReads(t *testing.T) {
	for _, kind := range []Stdout{Own, Piped} {
		p := run(t, Spec{Launch: self(t, "talk"), Stdout: kind})
		p.closeOutput()
		if s := end(t, p); s != "exited with code 0" {
			t.Error(s)
		}
	}
}

// flushed is a writer that wants to know of the end.
type flushed struct {
	bytes.Buffer
	ended bool
}

func (f *flushed) Flush() { f.ended = true }

// A reader of ours that is gone does not stop a program.
func TestClosedReader(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer w.Close()
	p := run(t, Spec{Launch: self(t, "flood"), Stdout: Piped})
	var errs flushed
	p.CopyOutput(w, &errs)
	if s := end(t, p); s != "exited with code 0" {
		t.Error(s)
	}
	<-p.Copied()
	if errs.String() != "all written\n" || !errs.ended {
		t.Errorf("stderr %q, flushed: %v", errs.String(), errs.ended)
	}
}

// What is left in a pipe when the copying stops is the next one's.
func TestStopCopying(t *testing.T) {
	p := run(t, Spec{Launch: self(t, "wait"), Stdout: Piped})
	stdout, _ := p.Output()
	raw, err := stdout.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var next *os.File
	raw.Control(func(fd uintptr) {
		dup, _ := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 3)
		next = os.NewFile(uintptr(dup), "next")
	})
	defer next.Close()
	read(t, p, 1)
	StopCopying(20*time.Second, p)
	select {
	case <-p.Copied():
	default:
		t.Error("it is still copied")
	}
	if err := p.Signal(0); err != nil {
		t.Errorf("the program does not run on: %v", err)
	}
	if _, err := stdout.Read(make([]byte, 1)); err == nil {
		t.Error("the read end is open")
	}
	p.Kill()
	if rest, err := io.ReadAll(next); err != nil || len(rest) != 0 {
		t.Errorf("%q is left, %v", rest, err)
	}
}

// stuck is a reader of ours that does not read.
type stuck chan struct{}

func (s stuck) Write(p []byte) (int, error) { <-s; return len(p), nil }

func TestStopCopyingToAReaderThatIsStuck(t *testing.T) {
	p := run(t, Spec{Launch: self(t, "wait"), Stdout: Piped})
	s := stuck(make(chan struct{}))
	p.CopyOutput(s, io.Discard)
	StopCopying(time.Millisecond, p) // returns
	close(s)
	<-p.Copied()
}

func TestDescriptorsAfterFailures(t *testing.T) {
	count := func() int {
		fds, _ := os.ReadDir("/proc/self/fd")
		return len(fds)
	}
	before := count()
	l := self(t, "exit")
	for what, broken := range map[string]Launch{"no program": {Path: "/nowhere"}, "no directory": {Path: l.Path, Dir: "/nowhere"}} {
		if p, err := Start(Spec{Launch: &broken, Stdout: Piped}); err == nil || p != nil || !strings.HasPrefix(err.Error(), "cannot run "+broken.Path+": ") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if after := count(); after != before {
		t.Errorf("%d descriptors, before %d", after, before)
	}
}

// What a dead program said last is waited for: as long as somebody reads it, but not for
// those who have the other ends still.
func TestAwaitRead(t *testing.T) {
	p := run(t, Spec{Launch: self(t, "parent"), Stdout: Piped}) // a child of it has its output
	read(t, p, 2)
	p.Signal(unix.SIGKILL)
	p.AwaitDeath()
	never, reads := make(chan struct{}), 0
	p.AwaitRead(time.Millisecond, never, func() bool { reads++; return reads < 3 })
	if reads != 3 {
		t.Errorf("asked %d times whether somebody reads", reads)
	}
	select {
	case <-p.Copied():
		t.Error("its output has ended: the test shows nothing")
	default:
	}
	p.SignalGroup(unix.SIGKILL)
	heard := make(chan struct{})
	close(heard)
	p.AwaitRead(time.Hour, heard, func() bool { return true })
	<-p.Copied()
}
