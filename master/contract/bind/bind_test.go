package bind

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/bindintercept"
	"handoff/internal/cmsg"
	"handoff/internal/keeper/fdstore"
	"handoff/internal/linux"
	"handoff/master/contract"
	"handoff/master/contract/contracttest"
	"handoff/master/listeners"
)

// world is a contract, and the loop around it.
type world struct {
	*contracttest.Loop
	contract *Contract
}

func start(t *testing.T) *world {
	w := &world{Loop: contracttest.New(t)}
	w.contract = New(w.Loop, true)
	w.contract.aside = func(f func()) { f() }
	w.Queued = w.contract.Queued
	return w
}

func (w *world) session(id listeners.Worker, slot int) *Session {
	w.T.Helper()
	s := w.contract.Start(w.Worker(id, slot, 0), nil).(*Session)
	w.Sessions[id] = s
	w.T.Cleanup(s.End)
	return s
}

// fake is a call by a script: the program is this process, its descriptor a socket
// of the test's.
type fake struct {
	r     bindintercept.Request
	gives error // what Give answers
	ends  []string
	given int    // what was put in the place of the socket; -1: nothing
	then  func() // of a Remove
}

func (f *fake) About() bindintercept.Request { return f.r }

// Continue does what the kernel does.
func (f *fake) Continue() {
	f.ends = append(f.ends, "continued")
	if f.r.Kind != bindintercept.TCP {
		return
	}
	call := func() error {
		return unix.Bind(f.r.FD, &unix.SockaddrInet4{Port: int(f.r.Addr.Port()), Addr: f.r.Addr.Addr().As4()})
	}
	if f.r.Listen {
		call = func() error { return unix.Listen(f.r.FD, 1) }
	}
	err := call()
	if e, ok := err.(unix.Errno); ok {
		f.ends = append(f.ends, unix.ErrnoName(e))
	}
}
func (f *fake) Beside() { unix.SetsockoptInt(f.r.FD, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) }
func (f *fake) Bind() unix.Errno {
	f.ends = append(f.ends, "by handoff")
	return 0
}
func (f *fake) BindAlone() unix.Errno { return f.Bind() }
func (f *fake) Answer(e unix.Errno) {
	if f.ends = append(f.ends, "answered"); e != 0 {
		f.ends = append(f.ends, unix.ErrnoName(e))
	}
}
func (f *fake) Socket() (int, error) { return unix.FcntlInt(uintptr(f.r.FD), unix.F_DUPFD_CLOEXEC, 3) }
func (f *fake) Caller() (*linux.Pidfd, error) {
	return linux.OpenPidfd(f.r.TGID)
}

func (f *fake) RemoveSource() { f.Answer(0) }
func (f *fake) LinkInstead()  { f.Answer(0) }

// Remove begins; what it is about is removed by the test.
func (f *fake) Remove(then func()) { f.then = then }
func (f *fake) BindBeside(_ string, then func(bindintercept.Beside)) {
	then(bindintercept.Beside{Err: unix.EPERM})
}
func (f *fake) MoveBeside(_ string, then func(bindintercept.Beside)) {
	then(bindintercept.Beside{Err: unix.EPERM})
}
func (f *fake) Folder() int { return -1 }

// Give replaces the test's own descriptor, as the real one does the program's.
func (f *fake) Give(held int) error {
	if f.gives != nil {
		return f.gives
	}
	f.given = held
	return unix.Dup3(held, f.r.FD, unix.O_CLOEXEC)
}

// socket is a program's new one.
func socket(t *testing.T) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func inode(fd int) uint64 {
	var st unix.Stat_t
	unix.Fstat(fd, &st)
	return st.Ino
}

func port(fd int) int {
	sa, _ := unix.Getsockname(fd)
	in, _ := sa.(*unix.SockaddrInet4)
	if in == nil {
		return -1
	}
	return in.Port
}

// bind is a call of bind(2) by a program, listen one of listen(2).
func bind(fd int, addr string) *fake {
	return &fake{given: -1, r: bindintercept.Request{PID: os.Getpid(), TGID: os.Getpid(), FD: fd, Addr: netip.MustParseAddrPort(addr), Inode: inode(fd), User: os.Geteuid()}}
}

func listen(fd int) *fake {
	f := bind(fd, fmt.Sprint("127.0.0.1:", max(port(fd), 0)))
	f.r.Listen = true
	return f
}

// call has a session answer, and returns how the call ended.
func (s *Session) call(f *fake) string {
	f.ends = nil
	s.Handle(called{call: f})
	return strings.Join(f.ends, " ")
}

func (w *world) wants(got, want string, facts ...string) {
	w.T.Helper()
	if got != want {
		w.T.Errorf("the call was %s, want %s", got, want)
	}
	for i, f := range w.Facts {
		if i >= len(facts) || !strings.HasPrefix(f, facts[i]) {
			w.T.Errorf("facts %q, want %q", w.Facts, facts)
			break
		}
	}
	if len(w.Facts) < len(facts) {
		w.T.Errorf("facts %q, want %q", w.Facts, facts)
	}
	w.Facts = nil
}

// free is a port that nobody has.
func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// Each worker that binds an address gets a socket of its own of it.
func TestHeldAddress(t *testing.T) {
	w := start(t)
	s1, s2 := w.session(1, 0), w.session(2, 1)
	at := free(t)
	fds := []int{socket(t), socket(t)}
	for i, s := range []*Session{s1, s2} {
		own, first := inode(fds[i]), bind(fds[i], at)
		first.r.ReusePort = i == 0 // by itself
		first.Beside()
		w.wants(s.call(first), "continued")
		w.wants(s.call(listen(fds[i])), "answered", fmt.Sprint(s.ID, " Listening"))
		if inode(fds[i]) != own {
			t.Error("the program has another socket than it has created")
		}
	}
	if inode(fds[0]) == inode(fds[1]) || port(fds[0]) != port(fds[1]) {
		t.Error("the workers have not a socket each of one address")
	}
	a := w.Table.Addresses()
	if len(a) != 1 || !a[0].Accepts(1) || !a[0].Accepts(2) || a[0].Name() != at {
		t.Errorf("%+v", a)
	}
	// Once more, while the first is open: refused by the kernel, but with SO_REUSEPORT.
	w.wants(s1.call(bind(socket(t), at)), "continued EADDRINUSE")
	second := socket(t)
	unix.SetsockoptInt(second, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	third := bind(second, at)
	third.r.ReusePort = true
	w.wants(s1.call(third), "continued")
	w.wants(s1.call(listen(second)), "answered", "1 Listening")
	// The other worker's first one has it only because it is held.
	alone := bind(socket(t), at)
	alone.r.ReusePort = true
	w.wants(s2.call(alone), "by handoff answered")
	// A listen that the master before has answered, but for the answer.
	w.wants(s1.call(listen(fds[0])), "answered", "1 Listening")
}

// Probing: what a worker has closed by itself is not held any more, and an address that
// overlaps with it can be bound.
func TestClosed(t *testing.T) {
	w := start(t)
	at := free(t)
	s := w.contract.Start(w.Worker(1, 0, sleeper(t).Process.Pid), nil).(*Session)
	t.Cleanup(s.End)
	program := sleeper(t) // has no socket at all
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	s.PID = program.Process.Pid
	by := func(f *fake) *fake { f.r.TGID = s.PID; return f }
	w.wants(s.call(by(bind(fd, at))), "continued")
	w.wants(s.call(by(listen(fd))), "answered", "1 Listening")
	unix.Close(fd)
	any := strings.Replace(at, "127.0.0.1", "0.0.0.0", 1)
	again := socket(t)
	w.wants(s.call(by(bind(again, any))), "continued")
	if n := len(w.Table.Addresses()); n != 0 {
		t.Errorf("%d addresses are held, and none is listened on", n)
	}
	w.wants(s.call(by(listen(again))), "answered", "1 Listening")
}

// A port that one worker has bound, and does not listen on: others wait until it is known
// whether that is a lock. If it is, they are refused as without handoff.
func TestPromises(t *testing.T) {
	w := start(t)
	w.Serves = map[listeners.Worker]bool{}
	at := free(t)
	s1, s2 := w.session(1, 0), w.session(2, 1)
	lock := socket(t)
	w.wants(s1.call(bind(lock, at)), "continued")
	waits := bind(socket(t), at)
	w.wants(s2.call(waits), "")
	if w.contract.Deadline().IsZero() {
		t.Error("nothing looks after a call that waits")
	}
	w.Serves[1] = true
	w.contract.Tick(time.Now())
	w.wants(strings.Join(waits.ends, " "), "continued EADDRINUSE")
	// A listen ends the wait: it is a server.
	w.Serves[1] = false
	at = free(t)
	server := socket(t)
	w.wants(s1.call(bind(server, at)), "continued")
	waits = bind(socket(t), at)
	w.wants(s2.call(waits), "")
	w.wants(s1.call(listen(server)), "answered", "1 Listening")
	w.wants(strings.Join(waits.ends, " "), "continued")
	w.wants(s2.call(listen(waits.r.FD)), "answered", "2 Listening")
	// So does its end, and that of the service.
	at = free(t)
	w.wants(s1.call(bind(socket(t), at)), "continued")
	waits = bind(socket(t), at)
	w.wants(s2.call(waits), "")
	if got := s1.State().Promises; len(got) != 2 || got[1].Addr.String() != at {
		t.Errorf("promises %v", got)
	}
	s1.End()
	w.contract.Tick(time.Now().Add(time.Second))
	w.wants(strings.Join(waits.ends, " "), "continued EADDRINUSE")
	if !w.contract.Deadline().IsZero() {
		t.Error("a call waits for nothing")
	}
}

// A socket of another user than the address's is replaced at its bind: it could not be bound
// beside the others, and its owner is not changed while the program has it.
func TestSocketOfAnotherUser(t *testing.T) {
	w := start(t)
	s := w.session(1, 0)
	at := free(t)
	if _, err := w.Table.Open(listeners.TCP(netip.MustParseAddrPort(at), false)); err != nil {
		t.Fatal(err)
	}
	fd := socket(t)
	own := inode(fd)
	f := bind(fd, at)
	f.r.User = os.Geteuid() + 1
	w.wants(s.call(f), "answered")
	if inode(fd) == own || port(fd) == 0 {
		t.Error("the program has not got a socket of the address")
	}
	w.wants(s.call(listen(fd)), "answered", "1 Listening")
}

// What is not held goes its own way, and so does what comes at a bad time.
func TestContinued(t *testing.T) {
	w := start(t)
	w.Foreign = []string{"127.0.0.9"}
	s := w.session(1, 0)
	w.wants(s.call(listen(socket(t))), "continued") // not bound
	fd := socket(t)
	w.wants(s.call(bind(fd, "127.0.0.9:0")), "continued")
	foreign := listen(fd)
	foreign.r.Addr = netip.MustParseAddrPort("127.0.0.9:80")
	w.wants(s.call(foreign), "continued")

	// Where the socket cannot be seen, it is replaced at its bind.
	broken := bind(socket(t), free(t))
	broken.r.Blind = true
	broken.gives = unix.EBADF
	w.wants(s.call(broken), "continued EADDRINUSE", "1 Blind", "1 Unplaced bad file descriptor")

	own := bind(socket(t), free(t))
	own.r.Own = bindintercept.BoundToDevice
	w.wants(s.call(own), "continued")
	own.r.Listen = true
	w.wants(s.call(own), "continued", "1 Own it is bound to a network device", "1 Listening")

	w.Stops = true
	w.wants(s.call(bind(socket(t), free(t))), "continued")
	w.Stops = false
	s.Died()
	w.wants(s.call(bind(socket(t), free(t))), "continued")
	s.End()
	w.wants(s.call(bind(socket(t), free(t))), "continued")

	full := w.session(2, 1)
	for i := range contract.MaxLeases {
		if _, err := w.Table.Lease(2, 1, listeners.Endpoint{Addr: "127.0.0.1", Index: 100 + i}, nil); err != nil {
			t.Fatal(err)
		}
	}
	w.wants(full.call(bind(socket(t), free(t))), "continued")
}

func TestRefused(t *testing.T) {
	w := start(t)
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	s, fd := w.session(1, 0), socket(t)
	w.wants(s.call(bind(fd, taken.Addr().String())), "continued EADDRINUSE")
	for i := range contract.MaxReports + 1 {
		blind, facts := bind(fd, taken.Addr().String()), []string{"1 Blind", "1 Refused"}
		blind.r.Blind = true
		w.wants(s.call(blind), "answered EADDRINUSE", facts[:min(2, 1+contract.MaxReports-i)]...)
	}
}

// The first worker's port is the kernel's choice, and the others' after it; one that
// binds at the same time gets it when it listens.
func TestPortOfItsOwnChoice(t *testing.T) {
	w := start(t)
	s1, s2, s3 := w.session(1, 0), w.session(2, 1), w.session(3, 2)
	own := func(s *Session, fd int) {
		t.Helper()
		w.wants(s.call(bind(fd, "127.0.0.1:0")), "continued")
	}
	fds := []int{socket(t), socket(t), socket(t), socket(t)}
	own(s1, fds[0])
	own(s2, fds[1])
	chosen, before := port(fds[0]), inode(fds[0])
	w.wants(s1.call(listen(fds[0])), "answered", "1 Listening")
	if inode(fds[0]) != before || port(fds[0]) != chosen {
		t.Error("the first one's own socket is not held")
	}
	w.wants(s2.call(listen(fds[1])), "answered", "2 Listening")
	w.wants(s3.call(bind(fds[2], "127.0.0.1:0")), "answered")
	if port(fds[1]) != chosen || port(fds[2]) != chosen {
		t.Errorf("ports %d and %d, want %d", port(fds[1]), port(fds[2]), chosen)
	}
	if s1.State().Ports != 1 || s3.State().Ports != 1 {
		t.Errorf("%+v, %+v", s1.State(), s3.State())
	}
	// A second port is another.
	own(s1, fds[3])
	w.wants(s1.call(listen(fds[3])), "answered", "1 Listening")
	if port(fds[3]) == chosen || s1.State().Ports != 2 {
		t.Errorf("second port %d", port(fds[3]))
	}
	// A socket that is gone by then.
	gone := listen(fds[2])
	gone.r.Inode, gone.r.Addr, gone.r.FD = 1, netip.MustParseAddrPort("127.0.0.1:7"), -1
	w.wants(s2.call(gone), "answered EBADF", "2 Refused") // of the second port that is known
	s4 := w.session(4, 3)
	s4.ports = 9
	w.wants(s4.call(gone), "answered EBADF", "4 Refused")
}

// Who listens on a socket that another process has bound is not the one that drains: varnishd's
// manager binds, and starts a child again that ends.
func TestBoundForAnother(t *testing.T) {
	w := start(t)
	child, leader := sleeper(t), sleeper(t)
	s := w.contract.Start(w.Worker(1, 0, leader.Process.Pid), nil).(*Session)
	w.Sessions[1] = s
	t.Cleanup(s.End)
	f := bind(socket(t), free(t))
	f.r.TGID = leader.Process.Pid
	s.call(f)
	f.r.Listen, f.r.TGID = true, child.Process.Pid
	s.call(f)
	if got := s.State(); got.Bound != 0 || !got.Several {
		t.Errorf("%+v", got)
	}
}

// The drain goes to the one process that has bound, if that is not the leader.
func TestBoundProcess(t *testing.T) {
	w := start(t)
	child, gone := sleeper(t), sleeper(t)
	w.Worker(9, 0, 0)
	s := w.contract.Start(w.Worker(1, 0, gone.Process.Pid), nil).(*Session)
	w.Sessions[1] = s
	t.Cleanup(s.End)
	by := func(pid int) *fake {
		f := bind(socket(t), free(t))
		f.r.TGID = pid
		s.call(f)
		w.Facts = nil
		f.r.Listen = true
		return f
	}
	if err := s.Terminate(); err != nil { // nobody but the leader
		t.Error(err)
	}
	w.wants(s.call(by(child.Process.Pid)), "answered", "1 Caller", "1 Listening")
	w.wants(s.call(by(child.Process.Pid)), "answered", "1 Caller", "1 Listening")
	if got := s.State(); got.Bound != child.Process.Pid || got.Several {
		t.Errorf("%+v", got)
	}
	kept := ""
	s.Kept(func(what string, fd int) { kept += what })
	if w.Until("stored", func() bool { return len(w.Stored) > 0 }); kept != fdstore.Bound || w.Stored["1-"+fdstore.Bound] == 0 {
		t.Errorf("kept %q, stored %v", kept, w.Stored)
	}
	if err := s.Drain(contract.Drain{Signal: unix.SIGUSR1}); err != nil {
		t.Error(err)
	}
	if state, _ := child.Process.Wait(); state.Sys().(interface{ Signal() unix.Signal }).Signal() != unix.SIGUSR1 {
		t.Errorf("the process that has bound %v", state)
	}
	if err := s.Terminate(); err != nil { // it has gone, and that is no error
		t.Error(err)
	}
	// With the leader, or another, it is the leader's.
	w.wants(s.call(by(gone.Process.Pid)), "answered", "1 Listening")
	if got := s.State(); got.Bound != 0 || !got.Several {
		t.Errorf("%+v", got)
	}
	w.wants(s.call(by(os.Getpid())), "answered", "1 Caller", "1 Listening")
	s.Drain(contract.Drain{Signal: unix.SIGUSR2})
	if state, _ := gone.Process.Wait(); state.Sys().(interface{ Signal() unix.Signal }).Signal() != unix.SIGUSR2 {
		t.Errorf("the leader %v", state)
	}
}

// A process that is not the first one is reported, also when the worker has ended: the
// kernel tells that it descends from it.
func TestCaller(t *testing.T) {
	w := start(t)
	s := w.session(1, 0)
	other := bind(socket(t), free(t))
	other.r.TGID = s.PID + 1
	w.wants(s.call(other), "continued", "1 Caller")
	other.r.Kind = -1 // what becomes of the call is not looked at here
	s.Died()
	w.wants(s.call(other), "continued", "1 Caller")
	s.End()
	w.wants(s.call(other), "continued", "1 Caller")
	other.r.TGID = s.PID
	w.wants(s.call(other), "continued")
}

// sleeper is a process that waits for a signal.
func sleeper(t *testing.T) *exec.Cmd {
	t.Helper()
	c := exec.Command("/bin/sleep", "60")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	return c
}

// Connections at a socket that nobody has get a new worker for its slot.
func TestStranded(t *testing.T) {
	w := start(t)
	s1, s2 := w.session(1, 0), w.session(2, 1)
	at := free(t)
	for _, s := range []*Session{s1, s2} {
		fd := socket(t)
		s.call(bind(fd, at))
		s.call(listen(fd))
	}
	w.Table.SetTargets([]listeners.Worker{1, 0})
	w.Steer()
	conn, err := net.Dial("tcp4", at)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	w.Facts = nil
	a := w.Table.Addresses()[0]
	w.Table.Release(a, 1, time.Now()) // it has given its socket up, the connection is in the queue
	w.Table.SetTargets([]listeners.Worker{3, 2})
	w.session(3, 0)
	w.Steer()
	w.Await("3 Stranded")
	w.Starts = true
	for _, q := range a.Queues() {
		w.contract.Queued(q)
	}
	w.Stops, w.Starts = true, false
	for _, q := range a.Queues() {
		w.contract.Queued(q)
	}
	if len(w.Facts) > 0 {
		t.Errorf("facts %q", w.Facts)
	}
	w.contract.Accepted(listeners.Accepted{})
	w.contract.Retry()
	w.contract.Tick(time.Now())
	w.contract.GiveUp()
	if !w.contract.Deadline().IsZero() || w.contract.Seq() != 0 {
		t.Error("a contract without messages has a deadline, or a number")
	}
}

// Without interception a worker is there when it has begun.
func TestActivation(t *testing.T) {
	w := start(t)
	c := New(w.Loop, false)
	pair, file, err := cmsg.Pair()
	if err != nil {
		t.Fatal(err)
	}
	file.Close()
	s := c.Start(w.Worker(1, 0, 0), pair)
	w.Sessions[1] = s
	s.Serve()
	w.Await("1 Started")
	restored, err := c.Restore(w.Worker(2, 0, 0), contract.State{}, func(string) int { return -1 })
	if err != nil {
		t.Fatal(err)
	}
	restored.Serve()
	for _, s := range []contract.Session{s, restored} {
		s.Kept(func(what string, fd int) { t.Errorf("%s is kept", what) })
		s.Died()
		s.End()
	}
	if len(w.Facts) > 0 || s.Busy() {
		t.Errorf("facts %q", w.Facts)
	}
}

// The trampoline has no filter, or says nothing.
func TestNoFilter(t *testing.T) {
	for name, c := range map[string]struct {
		says []byte
		want []string
	}{
		"refused": {binary.NativeEndian.AppendUint32(nil, uint32(unix.EPERM)), []string{"1 Unfiltered operation not permitted", "1 Started"}},
		"dead":    {nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := start(t)
			pair, file, err := cmsg.Pair()
			if err != nil {
				t.Fatal(err)
			}
			s := w.contract.Start(w.Worker(1, 0, 0), pair)
			w.Sessions[1] = s
			file.Write(c.says)
			file.Close()
			s.Serve()
			w.Until("told", func() bool { return len(w.Facts) == len(c.want) })
			if !slices.Equal(w.Facts, c.want) {
				t.Errorf("facts %q, want %q", w.Facts, c.want)
			}
			s.End()
		})
	}
}

// programWord: the test binary is a program that binds, listens, and accepts one.
const programWord = "__program"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case bindintercept.Word:
			os.Exit(bindintercept.Trampoline(os.Args[2:]))
		case programWord:
			program(os.Args[2])
			os.Exit(0)
		}
	}
	os.Setenv("GORACE", "atexit_sleep_ms=0") // of the programs, else each waits for a second
	os.Exit(m.Run())
}

func program(addr string) {
	l, err := net.Listen("tcp4", addr)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("listens")
	if c, err := l.Accept(); err == nil {
		io.WriteString(c, "hello")
		c.Close()
	}
}

// A program behind the real filter, and the next master's session with it, to which a
// call is left.
func TestProgram(t *testing.T) {
	w := start(t)
	pair, file, err := cmsg.Pair()
	if err != nil {
		t.Fatal(err)
	}
	at := free(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = bindintercept.Args(3, 0, bindintercept.Conditions{}, "/proc/self/exe", []string{"program", programWord, at})
	cmd.ExtraFiles = []*os.File{file}
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	file.Close()
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	s := w.contract.Start(w.Worker(1, 0, cmd.Process.Pid), pair).(*Session)
	w.Sessions[1] = s
	w.Table.SetTargets([]listeners.Worker{1})
	go s.Serve() // ends with the program
	w.Until("started", func() bool { return len(w.Facts) > 0 })
	if got := w.Facts[0]; strings.Contains(got, "Unfiltered") {
		t.Skip("the kernel refuses a seccomp notification filter: ", got)
	}
	w.Await("1 Started")
	var names []string
	s.Kept(func(what string, fd int) { names = append(names, what) })
	if want := []string{fdstore.Filter, fdstore.Calls}; !slices.Equal(names, want) {
		t.Errorf("kept %q, want %q", names, want)
	}
	stored := map[string]int{}
	w.Until("stored", func() bool { return len(w.Stored) == 2 })
	for _, what := range []string{fdstore.Filter, fdstore.Calls} {
		stored[what] = w.Stored["1-"+what]
	}

	// This master is gone now, with a call that it has not answered.
	var left call
	w.Sessions[1] = deaf{s, &left}
	w.Until("a call", func() bool { return left != nil })
	s.listener.Close()
	next := start(t)
	next.Table.SetTargets([]listeners.Worker{1})
	take := func(what string) int {
		fd, ok := stored[what]
		if !ok {
			return -1
		}
		dup, _ := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		return dup
	}
	s2, err := next.contract.Restore(next.Worker(1, 0, cmd.Process.Pid), contract.State{Ports: 2, Several: true}, take)
	if err != nil {
		t.Fatal(err)
	}
	next.Sessions[1] = s2
	served := make(chan struct{})
	go func() { // ends with the program
		s2.Serve()
		close(served)
	}()
	next.Await("1 Listening")
	if got := s2.State(); got.Ports != 2 || !got.Several {
		t.Errorf("%+v", got)
	}
	conn, err := net.Dial("tcp4", at)
	if err != nil {
		t.Fatal(err)
	}
	if said, err := io.ReadAll(conn); string(said) != "hello" {
		t.Errorf("the program says %q, %v", said, err)
	}
	conn.Close()
	if said, _ := io.ReadAll(out); string(said) != "listens\n" {
		t.Errorf("the program says %q", said)
	}
	cmd.Wait()
	<-served
	s.End()
	s2.End()
}

// deaf is a session that answers nothing.
type deaf struct {
	*Session
	left *call
}

func (d deaf) Handle(what any) {
	if c, ok := what.(called); ok {
		*d.left = c.call
	}
}

// What was kept and cannot be used is said, and what is half there is closed.
func TestRestoreOfRubbish(t *testing.T) {
	w := start(t)
	null := func(string) int {
		fd, _ := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return fd
	}
	s, err := w.contract.Restore(w.Worker(1, 0, 0), contract.State{}, null)
	if err != nil {
		t.Fatal(err)
	}
	w.Sessions[1] = s
	s.Serve()
	w.Await("1 Unfiltered")
	s.End()
	half, err := w.contract.Restore(w.Worker(2, 0, 0), contract.State{}, func(what string) int {
		if what == fdstore.Filter {
			return null(what)
		}
		return -1
	})
	if err != nil {
		t.Fatal(err)
	}
	half.Serve()
	half.End()
	s3 := w.session(3, 0)
	s3.Handle(hidden{unix.EPERM, true})
	if got := w.Await("3 ProtocolError"); !strings.Contains(got, "not permitted") {
		t.Error(got)
	}
	w.Await("3 Listening") // else it would never be ready
}

func TestPlan(t *testing.T) {
	if p := New(nil, true).Plan(); !p.Channel || !p.Filter || !p.Survives {
		t.Errorf("intercepted: %+v", p)
	}
	if p := New(nil, false).Plan(); p.Channel || p.Filter || !p.Survives {
		t.Errorf("activation: %+v", p)
	}
}

// A more specific address of a new generation gets its connections when that is put into
// service, and then only it.
func TestNarrowerAddress(t *testing.T) {
	w := start(t)
	s1, s2 := w.session(1, 0), w.session(2, 0)
	fds := []int{socket(t), socket(t)}
	narrow := netip.MustParseAddrPort(free(t))
	wide := netip.AddrPortFrom(netip.IPv4Unspecified(), narrow.Port())
	for i, s := range []*Session{s1, s2} {
		w.wants(s.call(bind(fds[i], []string{wide.String(), narrow.String()}[i])), "continued")
		l := listen(fds[i])
		l.r.Addr = []netip.AddrPort{wide, narrow}[i]
		w.wants(s.call(l), "answered", fmt.Sprint(s.ID, " Listening"))
		if i == 0 {
			w.Table.SetTargets([]listeners.Worker{1})
			w.Steer()
		}
	}
	goesTo := func(want int) {
		t.Helper()
		c, err := net.Dial("tcp4", narrow.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fds[want]), Events: unix.POLLIN}}, 0); n != 1 {
			t.Fatal("another generation has the connection: ", err)
		}
		if conn, _, err := unix.Accept(fds[want]); err == nil {
			unix.Close(conn)
		}
	}
	if a := w.Table.Addresses(); len(a) != 2 {
		t.Fatal(len(a), " addresses")
	}
	if os.Geteuid() == 0 { // else nobody can be kept from it
		goesTo(0)
	}
	w.Table.SetTargets([]listeners.Worker{2})
	w.Steer()
	goesTo(1)
	w.Steer()
	goesTo(1)
}

// A bind that has failed promises nothing: the next one is not its conflict, nor is another
// worker's.
func TestFailedBindIsForgotten(t *testing.T) {
	w := start(t)
	s1, s2 := w.session(1, 0), w.session(2, 0)
	fds := []int{socket(t), socket(t), socket(t)}
	at := netip.MustParseAddrPort(free(t))
	nowhere := netip.AddrPortFrom(netip.MustParseAddr("192.0.2.9"), at.Port())
	wide := netip.AddrPortFrom(netip.IPv4Unspecified(), at.Port())
	w.wants(s1.call(bind(fds[0], nowhere.String())), "continued EADDRNOTAVAIL")
	next := bind(fds[1], wide.String())
	next.r.Failed = []bindintercept.Failed{{Inode: inode(fds[0]), Addr: nowhere}}
	w.wants(s1.call(next), "continued")
	l := listen(fds[1])
	l.r.Addr = wide
	w.wants(s1.call(l), "answered", "1 Listening")
	if len(s1.promises) != 0 {
		t.Error(s1.promises)
	}
	// What is bound is not bound again, nor is the promise another.
	w.wants(s2.call(bind(fds[2], at.String())), "continued")
	again := bind(fds[2], nowhere.String())
	again.r.Has = at
	w.wants(s2.call(again), "continued EADDRNOTAVAIL")
	if len(s2.promises) != 1 || s2.promises[0].at != at {
		t.Error(s2.promises)
	}
}
