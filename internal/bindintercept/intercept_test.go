package bindintercept

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func uintptrOf(n *int32) uintptr { return uintptr(unsafe.Pointer(n)) }

// Which calls stop, and what is read of them; all of them go on.
func TestReported(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	for name, c := range map[string]struct {
		steps, calls, says []string
	}{
		"IPv4": {
			[]string{"socket tcp4", "set 1 15 1", "bind 127.0.0.1:0", "listen"},
			[]string{"bind 127.0.0.1:0 reuseport", "listen 127.0.0.1:N reuseport"},
			[]string{"socket ok", "set ok", "bind ok", "listen ok"},
		},
		"IPv6 alone": {
			[]string{"socket tcp6", "set 41 26 1", "bind [::1]:0", "listen"},
			[]string{"bind [::1]:0 v6only", "listen [::1]:N v6only"},
			[]string{"socket ok", "set ok", "bind ok", "listen ok"},
		},
		"both families": {
			[]string{"socket tcp6", "set 41 26 0", "bind [::]:0"},
			[]string{"bind [::]:0"},
			[]string{"socket ok", "set ok", "bind ok"},
		},
		"a listen without a bind": {
			[]string{"socket tcp4", "listen"},
			[]string{"listen 0.0.0.0:0"},
			[]string{"socket ok", "listen ok"},
		},
		"a thread": {
			[]string{"thread", "socket tcp4", "bind 127.0.0.1:0"},
			[]string{"bind 127.0.0.1:0 thread"},
			[]string{"socket ok", "bind ok"},
		},
		"a child": {
			[]string{"child", "socket tcp4", "bind 127.0.0.1:0"},
			[]string{"bind 127.0.0.1:0 child"},
			[]string{"socket ok", "bind ok"},
		},
		"other kinds of sockets": {
			[]string{"socket unix", "bind " + path, "listen", "socket udp4", "bind 127.0.0.1:0"},
			[]string{"bind s", "listen s", "bind udp 127.0.0.1:0"},
			[]string{"socket ok", "bind ok", "listen ok", "socket ok", "bind ok"},
		},
		"what the kernel refuses": {
			[]string{"descriptor 99", "bind 127.0.0.1:0", "stdin", "bind 127.0.0.1:0", "socket tcp6", "bind 127.0.0.1:0", "bindnowhere"},
			nil,
			[]string{"descriptor ok", "bind EBADF", "stdin ok", "bind ENOTSOCK", "socket ok", "bind EINVAL", "bindnowhere EFAULT"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t, c.steps...)
			var calls []string
			for {
				call := p.next()
				if call == nil {
					break
				}
				calls = append(calls, say(call, p.cmd.Process.Pid))
				call.Continue()
			}
			p.wants(append(c.says, "the end")...)
			if !reflect.DeepEqual(calls, c.calls) {
				t.Errorf("calls %q, want %q", calls, c.calls)
			}
		})
	}
}

func say(c *Call, leader int) string {
	s := "bind "
	if c.Listen {
		s = "listen "
	}
	switch c.Kind {
	case Unix:
		return s + filepath.Base(c.Spot.Path)
	case UDP:
		s += "udp "
	}
	if s += c.Addr.String(); c.Listen && c.Addr.Port() != 0 {
		s = strings.TrimSuffix(s, fmt.Sprint(c.Addr.Port())) + "N"
	}
	for word, is := range map[string]bool{" v6only": c.V6Only, " reuseport": c.ReusePort, " child": c.TGID != leader, " thread": c.PID != c.TGID && c.TGID == leader} {
		if is {
			s += word
		}
	}
	return s
}

// held is a listening socket of the test's.
func held(t *testing.T) (fd int, l net.Listener) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); f.Close() })
	return int(f.Fd()), l
}

// The program's socket is replaced under its own descriptor, with what it has set.
func TestGive(t *testing.T) {
	t.Parallel()
	fd, l := held(t)
	p := start(t, "socket mptcp", "set 6 1 1", "set 1 9 1", "set 1 8 50000", "linger", "bind 127.0.0.1:1", "listen", "flags", "port", "accept",
		"socket tcp4", "nonblock", "inherit", "bind 127.0.0.1:1", "flags")
	c := p.next()
	if c == nil || c.Listen || !p.has(c.Inode) {
		t.Fatalf("%+v", c)
	}
	if err := c.Give(fd); err != nil {
		t.Fatal(err)
	}
	own, _ := inode(fd)
	if p.has(c.Inode) || !p.has(own) {
		t.Error("the socket of the program's own was not replaced")
	}
	c.Answer(0)
	if c = p.next(); !c.Listen || c.Inode != own {
		t.Errorf("listen on socket %d, want %d", c.Inode, own)
	}
	c.Answer(0)
	p.wants("socket ok", "set ok", "set ok", "set ok", "linger ok", "bind ok", "listen ok", "flags ok cloexec=true nonblock=false")
	p.wants("port ok " + fmt.Sprint(l.Addr().(*net.TCPAddr).Port))
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if said, err := io.ReadAll(conn); string(said) != "hello" {
		t.Errorf("the program says %q, %v", said, err)
	}
	conn.Close()
	if o := optionsOf(fd); option(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY) != 1 || option(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE) != 1 || o.rcvbuf != 100000 || o.linger.Linger != 7 {
		t.Errorf("the held socket has %+v", o)
	}
	p.wants("accept ok", "socket ok", "nonblock ok", "inherit ok")
	c = p.next()
	if err := c.Give(fd); err != nil {
		t.Fatal(err)
	}
	c.Answer(0)
	p.wants("bind ok", "flags ok cloexec=false nonblock=true")
}

func TestAnswer(t *testing.T) {
	t.Parallel()
	p := start(t, "socket tcp4", "bind 127.0.0.1:1", "bind 127.0.0.1:0", "listen", "pause")
	p.next().Answer(unix.EADDRINUSE)
	p.wants("socket ok", "bind EADDRINUSE")
	p.next().Continue()
	c := p.next()
	fd, err := c.Socket()
	if n, _ := inode(fd); err != nil || n != c.Inode {
		t.Fatalf("duplicate of socket %d is %d, %v", c.Inode, n, err)
	}
	unix.Close(fd)
	c.Inode++
	if _, err := c.Socket(); err != unix.EBADF {
		t.Errorf("another socket than the program called with: %v", err)
	}
	c.Answer(0)
	p.wants("bind ok", "listen ok")
}

// A socket that is connected does not listen, and is not looked at: close(2) of it
// could take the time of its SO_LINGER.
func TestConnectedIsNotReported(t *testing.T) {
	t.Parallel()
	_, l := held(t)
	p := start(t, "socket tcp4", "connect "+l.Addr().String(), "listen", "bind 127.0.0.1:0")
	if c := p.next(); c == nil || c.Listen {
		t.Fatalf("%+v", c)
	} else {
		c.Continue()
	}
	p.wants("socket ok", "connect ok", "listen EINVAL", "bind EINVAL", "the end")
}

// A call that one listener has received and not answered is received by the next.
func TestPendingCallOutlivesItsListener(t *testing.T) {
	t.Parallel()
	p := start(t, "socket tcp4", "bind 127.0.0.1:1", "bind 127.0.0.1:2", "pause")
	first := p.next()
	p.listener.Close()
	p.attend(func(receive func()) { receive() })
	again := p.next()
	if again.id != first.id || again.Addr != first.Addr {
		t.Fatalf("%+v, want %+v again", again, first)
	}
	again.Answer(unix.EACCES)
	p.wants("socket ok", "bind EACCES")

	// One whose program has ended meanwhile is not.
	p.next()
	p.listener.Close()
	p.cmd.Process.Kill()
	p.cmd.Wait()
	p.attend(func(receive func()) { receive() })
	if c := p.next(); c != nil {
		t.Errorf("a call of a dead program: %+v", c)
	}
	if free := len(p.listener.pending.free); free < maxPending-1 {
		t.Errorf("%d entries are free", free)
	}
}

func TestAnswersToADeadProgram(t *testing.T) {
	t.Parallel()
	fd, _ := held(t)
	p := start(t, "socket tcp4", "bind 127.0.0.1:1")
	c := p.next()
	p.cmd.Process.Kill()
	p.cmd.Wait()
	if err := c.Give(fd); err == nil {
		t.Error("a socket was given to a dead program")
	}
	if _, err := c.Socket(); err == nil {
		t.Error("a dead program has a socket")
	}
	c.Answer(0)
	if c := p.next(); c != nil {
		t.Errorf("%+v", c)
	}
}

// A program that may not be inspected binds for itself, and that is said.
func TestHiddenProgram(t *testing.T) {
	t.Parallel()
	p := start(t, "pause", "socket tcp4", "hide", "bind 127.0.0.1:0")
	p.listener.Close()
	p.attend(func(receive func()) {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		dropCapabilities(t)
		receive()
	})
	p.stdin.Write([]byte("x"))
	p.wants("pause ok", "socket ok", "hide ok", "bind ok")
	if c := p.next(); c != nil {
		t.Errorf("%+v", c)
	}
	if said := <-p.hidden; !strings.Contains(said, unix.EPERM.Error()) {
		t.Error(said)
	}
}

// dropCapabilities drops those of this thread.
func dropCapabilities(t *testing.T) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&header, &none[0]); err != nil {
		t.Error(err)
	}
}

func TestBadDescriptors(t *testing.T) {
	t.Parallel()
	var pipe [2]int
	unix.Pipe2(pipe[:], unix.O_CLOEXEC)
	defer unix.Close(pipe[1])
	small, _ := unix.MemfdCreate("small", unix.MFD_CLOEXEC)
	if l, err := NewListener(pipe[0], small); err == nil {
		l.Close()
		t.Error("a file that is too small was taken")
	}
	if _, err := unix.FcntlInt(uintptr(small), unix.F_GETFD, 0); err != unix.EBADF {
		t.Error("it was not closed")
	}
}
