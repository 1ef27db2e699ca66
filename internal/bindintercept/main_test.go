package bindintercept

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/cmsg"
	"handoff/internal/linux"
)

// timeout is for failure only.
const timeout = 20 * time.Second

// programWord: the test binary is a program that takes the steps in its arguments.
const programWord = "__program"

// The program's calls are those of its leader, unless it says otherwise.
func init() {
	if len(os.Args) > 1 && os.Args[1] == programWord {
		runtime.LockOSThread()
	}
}

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case Word:
			os.Exit(Trampoline(os.Args[2:]))
		case programWord:
			steps(os.Args[2:])
			os.Exit(0)
		}
	}
	os.Setenv("GORACE", "atexit_sleep_ms=0") // of the programs, else each waits for a second
	os.Exit(m.Run())
}

// steps is the program: each step is a line of its output, with how it ended.
func steps(list []string) {
	fd := -1
	for i, step := range list {
		word, arg, _ := strings.Cut(step, " ")
		var err error
		var more string
		switch word {
		case "socket":
			fd, err = socketOf(arg)
		case "set": // level name value
			var level, name, v int
			fmt.Sscan(arg, &level, &name, &v)
			err = unix.SetsockoptInt(fd, level, name, v)
		case "linger":
			err = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 7})
		case "nonblock":
			err = unix.SetNonblock(fd, true)
		case "inherit":
			_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0)
		case "descriptor":
			fd, err = strconv.Atoi(arg)
		case "stdin":
			fd = 0
		case "bind":
			err = unix.Bind(fd, sockaddrOf(arg))
		case "bindnowhere":
			_, _, errno := unix.Syscall(unix.SYS_BIND, uintptr(fd), 8, 16)
			err = errno
		case "listen":
			err = unix.Listen(fd, 5)
		case "connect":
			err = unix.Connect(fd, sockaddrOf(arg))
		case "unlink":
			err = unix.Unlink(arg)
		case "unlinkat": // of the folder that is open
			err = unix.Unlinkat(fd, arg, 0)
		case "rename":
			from, to, _ := strings.Cut(arg, " ")
			err = unix.Rename(from, to)
		case "umask":
			var mask int
			fmt.Sscanf(arg, "%o", &mask)
			unix.Umask(mask)
		case "name":
			sa, _ := unix.Getsockname(fd)
			more = " " + sa.(*unix.SockaddrUnix).Name
		case "chdir":
			err = unix.Chdir(arg)
		case "folder":
			fd, err = unix.Open(arg, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		case "unlinks": // of names that are nobody's
			n, _ := strconv.Atoi(arg)
			for i := range n {
				unix.Unlink("/nowhere/" + strconv.Itoa(i))
			}
		case "accept":
			var c int
			if c, _, err = unix.Accept4(fd, 0); err == nil {
				unix.Write(c, []byte("hello"))
				unix.Close(c)
			}
		case "flags": // of the descriptor, and of what it stands for
			a, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
			b, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
			more = fmt.Sprint(" cloexec=", a&unix.FD_CLOEXEC != 0, " nonblock=", b&unix.O_NONBLOCK != 0)
		case "port":
			sa, _ := unix.Getsockname(fd)
			at, _ := address(sa)
			more = fmt.Sprint(" ", at.Port())
		case "hide":
			err = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
		case "thread", "child": // takes the rest
			if word == "thread" {
				var rest sync.WaitGroup
				rest.Go(func() { runtime.LockOSThread(); steps(list[i+1:]) })
				rest.Wait()
				return
			}
			c := exec.Command("/proc/self/exe", append([]string{programWord}, list[i+1:]...)...)
			c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
			c.Run()
			return
		case "pause": // until something can be read
			os.Stdin.Read(make([]byte, 1))
		case "conditions":
			more = ownConditions()
		default:
			panic(step)
		}
		end := "ok"
		if err != nil && err != unix.Errno(0) {
			end = unix.ErrnoName(err.(unix.Errno))
		}
		fmt.Println(word + " " + end + more)
	}
}

func socketOf(arg string) (int, error) {
	switch arg {
	case "tcp4":
		return unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	case "tcp6":
		return unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	case "mptcp":
		return unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_MPTCP)
	case "udp4":
		return unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	case "datagrams":
		return unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	case "raw":
		return unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	}
	return unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
}

func sockaddrOf(arg string) unix.Sockaddr {
	at, err := netip.ParseAddrPort(arg)
	switch {
	case err != nil:
		return &unix.SockaddrUnix{Name: arg}
	case at.Addr().Is4():
		return &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}
	}
	sa := &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
	if i, err := net.InterfaceByName(at.Addr().Zone()); err == nil {
		sa.ZoneId = uint32(i.Index)
	}
	return sa
}

// ownConditions says what the program runs under.
func ownConditions() string {
	nice, _ := unix.Getpriority(unix.PRIO_PROCESS, 0)
	var set unix.CPUSet
	unix.SchedGetaffinity(0, &set)
	var limit unix.Rlimit
	unix.Getrlimit(unix.RLIMIT_CORE, &limit)
	umask := unix.Umask(0)
	groups, _ := unix.Getgroups()
	var death int32
	unix.Prctl(unix.PR_GET_PDEATHSIG, uintptrOf(&death), 0, 0, 0)
	return fmt.Sprintf(" nice=%d cpus=%d core=%d:%d umask=%03o uid=%d gid=%d groups=%v death=%d listen=%v",
		20-nice, set.Count(), limit.Cur, limit.Max, umask, os.Getuid(), os.Getgid(), groups, death, os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getpid()))
}

// program is one that runs behind the filter.
type program struct {
	t        *testing.T
	cmd      *exec.Cmd
	stdin    *os.File // ours
	out      *bufio.Scanner
	filter   int // notification descriptor, of which the listener has a duplicate
	pending  int // likewise
	listener *Listener
	names    Names
	calls    chan *Call  // closed when no process has the filter any more
	hidden   chan string // what could not be inspected
}

// start runs a program behind the filter; the test is skipped where the kernel
// refuses one.
func start(t *testing.T, list ...string) *program {
	t.Helper()
	ours, theirs, err := cmsg.Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	in, stdin, _ := os.Pipe()
	out, stdout, _ := os.Pipe()
	p := &program{t: t, stdin: stdin, out: bufio.NewScanner(out)}
	p.cmd = exec.Command("/proc/self/exe")
	p.cmd.Args = Args(3, 0, Conditions{}, "/proc/self/exe", append([]string{"program", programWord}, list...))
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr, p.cmd.ExtraFiles = in, stdout, os.Stderr, []*os.File{theirs}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	stdout.Close()
	theirs.Close()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		p.cmd.Wait()
		for _, f := range []*os.File{stdin, out} {
			f.Close()
		}
	})
	ours.SetReadDeadline(time.Now().Add(timeout))
	fd, refused, err := ReadFilter(ours)
	if refused != 0 {
		t.Skip("the kernel refuses a seccomp notification filter: ", refused)
	}
	if err != nil {
		t.Fatal(err)
	}
	p.filter = fd
	if p.pending, err = NewPendingCalls(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(p.filter); unix.Close(p.pending) })
	p.attend(func(receive func()) { receive() })
	return p
}

// attend starts a listener, as another master would.
func (p *program) attend(under func(receive func())) {
	p.t.Helper()
	fd := duplicate(p.filter)
	pending := duplicate(p.pending)
	l, err := NewListener(fd, pending)
	if err != nil {
		p.t.Fatal(err)
	}
	l.Concern(&p.names)
	calls, hidden := make(chan *Call), make(chan string, 9)
	done := make(chan struct{})
	p.listener, p.calls, p.hidden = l, calls, hidden
	p.t.Cleanup(func() {
		p.cmd.Process.Kill() // ends Receive
		<-done
		l.Close()
	})
	go under(func() { // ends with the program, or the listener
		defer close(done)
		defer close(calls)
		for {
			c, err := l.Receive(func(_ Request, err error) { hidden <- err.Error() })
			if err != nil {
				return
			}
			calls <- c
		}
	})
}

// next is the next call, nil at the end.
func (p *program) next() *Call {
	p.t.Helper()
	select {
	case c := <-p.calls:
		return c
	case <-time.After(timeout):
		p.t.Fatal("no call comes")
		return nil
	}
}

// line is the next line that the program writes.
func (p *program) line() string {
	p.t.Helper()
	if !p.out.Scan() {
		return "the end"
	}
	return p.out.Text()
}

func (p *program) wants(lines ...string) {
	p.t.Helper()
	for _, want := range lines {
		if got := p.line(); got != want {
			p.t.Fatalf("the program says %q, want %q", got, want)
		}
	}
}

// duplicate is close-on-exec: programs of other tests start meanwhile.
func duplicate(fd int) int {
	n, _ := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	return n
}

// has reports whether the program has a socket.
func (p *program) has(inode uint64) bool {
	return linux.OpenSockets([]int{p.cmd.Process.Pid}, []uint64{inode}, 999)[inode]
}
