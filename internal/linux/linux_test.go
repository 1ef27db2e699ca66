package linux

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain is also the program that tests start: it does what HANDOFF_TEST_ROLE
// says.
func TestMain(m *testing.M) {
	switch os.Getenv("HANDOFF_TEST_ROLE") {
	case "": // the tests
		os.Exit(m.Run())
	case "wait": // until stdin ends
		os.Stdout.WriteString("waiting\n")
		io.Copy(io.Discard, os.Stdin)
	case "family": // a child in the group, whose end is ours too
		c := exec.Command("/proc/self/exe")
		c.Env = []string{"HANDOFF_TEST_ROLE=wait", "ROLE=child"}
		c.Stdin = os.Stdin
		c.Stdout = os.Stdout
		if c.Start() != nil {
			os.Exit(1)
		}
		c.Wait()
	}
}

// child starts this program in a role, in a process group of its own. It ends, and
// is reaped, with the test at the latest.
func child(t *testing.T, role string, env ...string) (p *Pidfd, cmd *exec.Cmd, stdin io.Closer, stdout io.Reader) {
	t.Helper()
	cmd = exec.Command("/proc/self/exe", "an argument", "")
	cmd.Env = append(env, "HANDOFF_TEST_ROLE="+role)
	cmd.Dir = t.TempDir()
	fd := -1
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, PidFD: &fd}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err = cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if p, err = NewPidfd(cmd.Process.Pid, fd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Signal(unix.SIGKILL)
		stdin.Close()
		cmd.Wait()
		p.Close()
	})
	return p, cmd, stdin, stdout
}

func soon() time.Time { return time.Now().Add(10 * time.Second) }

func TestPidfd(t *testing.T) {
	p, cmd, _, _ := child(t, "wait")
	if p.PID() != cmd.Process.Pid || p.Dead() || p.Signal(0) != nil || p.FD() < 0 {
		t.Fatal("a process that runs is dead, or another")
	}
	if err := p.AwaitDeath(time.Unix(1, 0)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("it runs: %v", err)
	}
	if _, err := p.Exit(); err != ErrUnknownExit {
		t.Errorf("the end of one that runs: %v", err)
	}
	other, err := OpenPidfd(p.PID())
	if err != nil {
		t.Fatal(err)
	}
	fd, err := other.Duplicate()
	if err != nil {
		t.Fatal(err)
	}
	other.Close()
	again, err := NewPidfd(p.PID(), fd)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := again.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.AwaitDeath(soon()); err != nil || !p.Dead() {
		t.Fatalf("it got SIGTERM: %v", err)
	}
	cmd.Wait()
	p.AwaitReaped(10 * time.Second)
	status, err := again.Exit()
	if err == ErrUnknownExit {
		t.Log("this kernel does not tell how it ended")
	} else if err != nil || Ended(status) != "killed by SIGTERM" {
		t.Errorf("%s, %v", Ended(status), err)
	}
	if err := p.Signal(unix.SIGTERM); err != unix.ESRCH {
		t.Errorf("a signal to one that was reaped: %v", err)
	}
	if err := p.TrySignal(unix.SIGTERM); err != nil {
		t.Errorf("one that may have been reaped: %v", err)
	}
}

func TestClosedPidfd(t *testing.T) {
	p, _, _, _ := child(t, "wait")
	done := make(chan error, 1)
	go func() { done <- p.AwaitDeath(time.Time{}) }() // ends with Close
	p.Close()
	if err := <-done; !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
	if _, err := p.Duplicate(); err == nil || p.FD() != -1 || p.Signal(0) == nil {
		t.Error("it is closed, and was used")
	}
	if _, err := p.Getfd(0); err == nil {
		t.Error("it is closed, and was used")
	}
	// so that it ends
	q, err := OpenPidfd(p.PID())
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	q.Signal(unix.SIGKILL)
}

func TestNoProcess(t *testing.T) {
	const none = 1 << 22 // the kernel's PID_MAX_LIMIT
	if _, err := OpenPidfd(none); err != unix.ESRCH && err != unix.EINVAL {
		t.Error(err)
	}
	if _, err := OpenThread(none); err == nil {
		t.Error("no error")
	}
	if _, err := NewPidfd(1, -1); err != unix.EBADF {
		t.Error(err)
	}
	if _, err := ReadStat(none); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if Environ(none) != nil || Arguments(none) != nil || Children(none) != nil || Image(none) != "" || has(none, 1, 10) || Descends(none, 1) {
		t.Error("a process that does not exist has something")
	}
}

// The signal reaches who is in the group, and the descriptors of both are gone.
func TestSignalGroup(t *testing.T) {
	p, cmd, _, stdout := child(t, "family")
	line := make([]byte, 8)
	if _, err := io.ReadFull(stdout, line); err != nil {
		t.Fatal(err)
	}
	children := Children(p.PID())
	if len(children) != 1 {
		t.Fatalf("children %v, want one", children)
	}
	kid, err := OpenPidfd(children[0])
	if err != nil {
		t.Fatal(err)
	}
	defer kid.Close()
	if s, err := ReadStat(kid.PID()); err != nil || s.Parent != p.PID() || s.Group != p.PID() || s.PID != kid.PID() {
		t.Errorf("the child is %+v, %v", s, err)
	}
	if !Descends(kid.PID(), p.PID()) || !Descends(kid.PID(), os.Getpid()) || Descends(p.PID(), kid.PID()) {
		t.Error("a child does not descend from its parent, or a parent from its child")
	}
	stranger := exec.Command("/bin/sleep", "60") // joins the group, as anybody in the session may
	stranger.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pgid: p.PID()}
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	defer stranger.Wait()
	defer stranger.Process.Kill()
	if Descends(stranger.Process.Pid, p.PID()) {
		t.Error("one that has joined the group descends from its leader")
	}
	if LeftBehind(stranger.Process.Pid, p.PID(), os.Getppid()) || LeftBehind(kid.PID(), os.Getpid(), os.Getpid()) || LeftBehind(os.Getpid(), p.PID(), os.Getpid()) {
		t.Error("one that nobody's death has left to the reaper is left behind")
	}
	if !LeftBehind(stranger.Process.Pid, p.PID(), os.Getpid()) {
		t.Error("a child of the reaper, in the group, is not left behind")
	}
	if err := p.SignalGroup(unix.SIGKILL); err == unix.EINVAL {
		t.Skip("before Linux 6.9")
	} else if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(stdout); err != nil { // its end: both have gone
		t.Error(err)
	}
	if err := kid.AwaitDeath(soon()); err != nil {
		t.Error(err)
	}
	cmd.Wait()
}

func TestWhatAProcessIs(t *testing.T) {
	p, cmd, _, stdout := child(t, "wait", "A=1", "EMPTY=")
	if _, err := io.ReadFull(stdout, make([]byte, 8)); err != nil { // it has come to Go's main
		t.Fatal(err)
	}
	env := Environ(p.PID())
	if Lookup(env, "A") != "1" || Lookup(env, "EMPTY") != "" || Lookup(env, "HANDOFF_TEST_ROLE") != "wait" || Lookup(env, "NONE") != "" {
		t.Errorf("environment %q", env)
	}
	if args := Arguments(p.PID()); !slices.Equal(args, []string{"/proc/self/exe", "an argument", ""}) {
		t.Errorf("arguments %q", args)
	}
	if got, want := Image(p.PID()), Image(os.Getpid()); got != want || got == "" {
		t.Errorf("it executes %q, want %q", got, want)
	}
	if Directory(p.PID()) != cmd.Dir {
		t.Errorf("it is in %q, want %q", Directory(p.PID()), cmd.Dir)
	}
	f, err := OpenImage(p.PID())
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	s, err := ReadStat(p.PID())
	self, _ := ReadStat(os.Getpid())
	if err != nil || s.Parent != os.Getpid() || s.Group != p.PID() || s.RSS < 1<<20 || s.Start < self.Start || self.CPU <= 0 && self.Start == 0 {
		t.Errorf("%+v, %v", s, err)
	}
	found := false
	for s := range Processes() {
		found = found || s.PID == p.PID() && s.Parent == os.Getpid()
	}
	if !found || !slices.Contains(PIDs(), p.PID()) {
		t.Error("it is not among all processes")
	}
	threads := 0
	for range Threads(os.Getpid()) {
		threads++
	}
	if threads < 2 {
		t.Errorf("%d threads of a Go program", threads)
	}
	if flags, err := DescriptorFlags(p.PID(), 0); err != nil || flags&unix.O_CLOEXEC != 0 {
		t.Errorf("flags of its stdin %o, %v", flags, err)
	}
	if flags, err := DescriptorFlags(os.Getpid(), p.FD()); err != nil || flags&unix.O_CLOEXEC == 0 {
		t.Errorf("flags of a pidfd %o, %v", flags, err)
	}
	if _, err := DescriptorFlags(p.PID(), 1000); err == nil {
		t.Error("flags of what is not open")
	}
}

func TestThread(t *testing.T) {
	for s := range Threads(os.Getpid()) {
		p, err := OpenThread(s.PID)
		if err != nil || p.PID() != os.Getpid() {
			t.Fatalf("thread %d is of %v, %v", s.PID, p, err)
		}
		p.Close()
	}
}

func TestSockets(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st unix.Stat_t
	unix.Fstat(int(f.Fd()), &st)
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	listening := false
	for s := range TCPSockets() {
		listening = listening || s.Listening && s.Local == port && s.Inode == st.Ino
	}
	if !listening {
		t.Error("its socket is not among all")
	}
	path := filepath.Join(t.TempDir(), "a b.sock")
	u, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if !slices.Contains(slices.Collect(maps.Values(UnixListeners())), path) {
		t.Error("its unix socket is not among all")
	}
	if !has(os.Getpid(), st.Ino, 4096) || !has(os.Getppid(), st.Ino, 1<<20) {
		t.Error("this process does not have its socket, or its parent's descendants do not")
	}
	if has(os.Getpid(), 1, 4096) {
		t.Error("it has a socket that nobody has")
	}
	if !has(os.Getpid(), 1, 1) {
		t.Error("too many to look at, and the answer is no")
	}
	p, err := OpenPidfd(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	fd, err := p.Getfd(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	var dup unix.Stat_t
	if unix.Fstat(fd, &dup); dup.Ino != st.Ino {
		t.Error("the duplicate is of another socket")
	}
}

func TestMemfd(t *testing.T) {
	fd, err := Memfd("test", []byte("content"))
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "test")
	defer f.Close()
	if b, err := io.ReadAll(f); err != nil || string(b) != "content" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := Memfd(strings.Repeat("x", 300), nil); err == nil {
		t.Error("a name that is too long, and no error")
	}
}

func TestSignalName(t *testing.T) {
	for s, want := range map[unix.Signal]string{unix.SIGTERM: "SIGTERM", 34: "SIGRTMIN", 37: "SIGRTMIN+3", 49: "SIGRTMIN+15",
		50: "SIGRTMAX-14", 63: "SIGRTMAX-1", 64: "SIGRTMAX", 32: "signal 32", 65: "signal 65", 0: "signal 0"} {
		if got := SignalName(s); got != want {
			t.Errorf("%d is %s, want %s", int(s), got, want)
		}
	}
}

func TestEnded(t *testing.T) {
	for status, want := range map[unix.WaitStatus]string{0: "exited with code 0", 7 << 8: "exited with code 7", 9: "killed by SIGKILL",
		0x80 | 11: "killed by SIGSEGV (core dumped)", 37: "killed by SIGRTMIN+3"} {
		if got := Ended(status); got != want {
			t.Errorf("%#x: %s, want %s", int(status), got, want)
		}
	}
}

const line = "7 (a) b) S 1 42 0 0 0 0 0 0 0 0 150 50 0 0 0 0 0 0 1234 0 3 0"

func TestParseStat(t *testing.T) {
	s, err := ParseStat(line)
	want := Stat{PID: 7, Name: "a) b", State: 'S', Parent: 1, Group: 42, Start: 1234, CPU: 2 * time.Second, RSS: 3 * int64(os.Getpagesize())}
	if err != nil || s != want {
		t.Errorf("%+v, %v, want %+v", s, err, want)
	}
	for _, bad := range []string{"", "7", "7 (a", ") (", "(a) S 1", strings.Replace(line, "42", "x", 1), strings.Replace(line, "7", "x", 1), line[:len(line)-4]} {
		if s, err := ParseStat(bad); err == nil || s != (Stat{}) && s.PID != 0 {
			t.Errorf("%q is %+v, %v", bad, s, err)
		}
	}
}

// The name is the program's to choose.
func FuzzParseStat(f *testing.F) {
	f.Add(line)
	f.Add(") (")
	f.Add("7 (x) R 1 2 3 0 0 0 0 0 0 0 9223372036854775807 9223372036854775807 0 0 20 0 1 0 5 0 9223372036854775807")
	f.Fuzz(func(t *testing.T, name string) {
		if s, err := ParseStat(name); err == nil && (strings.ContainsAny(string(s.State), " )") || s.CPU < 0 || s.RSS < 0) {
			t.Errorf("%q: %+v", name, s)
		}
		s, err := ParseStat("7 (" + name + line[strings.LastIndexByte(line, ')'):])
		if err != nil || s.Name != name || s.PID != 7 || s.Group != 42 {
			t.Errorf("a name of %q: %+v, %v", name, s, err)
		}
	})
}

func TestParseTCP(t *testing.T) {
	s, ok := parseTCP("   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4321 1 0000000000000000 100 0 0 10 0")
	if !ok || s != (TCPSocket{Local: 8080, Listening: true, Inode: 4321}) {
		t.Errorf("%+v %v", s, ok)
	}
	if _, ok := parseTCP("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"); ok {
		t.Error("the heading is a socket")
	}
}

// has reports whether a process, or a descendant, has one socket.
func has(pid int, inode uint64, most int) bool {
	return OpenSockets([]int{pid}, []uint64{inode}, most)[inode]
}
