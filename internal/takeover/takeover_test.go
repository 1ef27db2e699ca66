package takeover

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Idle connections of a program that closes them are answered by the next generation.
func TestTakeOver(t *testing.T) {
	t.Parallel()
	l := listen(t, "127.0.0.1:0")
	at := l.Addr().String()
	old := run(t, "shutdown", "old", l)
	clients := make([]*client, 8)
	for i := range clients {
		clients[i] = dial(t, at)
		clients[i].asks("/", "old", false)
	}
	dial(t, at).asks("/", "old", false) // has nothing more to ask
	run(t, "shutdown", "next", listen(t, at))
	m := newMaster(t)
	j := m.job(old, at)
	j.Linger = time.Second
	m.takes(j, Armed{Taken: 9, Filtered: 9})
	clients[0].send("GET", "/", "") // in the closing window
	old.Process.Signal(unix.SIGTERM)
	m.await("owned", func(n Totals) bool { return n.Owned+n.Answered == 9 })
	for _, c := range clients[1:] {
		c.asks("/", "next", true)
		c.ends()
	}
	clients[0].hears("next", true)
	m.rests()
	if want := (Totals{Workers: 1, Taken: 9, Answered: 8, Idle: 1}); m.all != want {
		t.Errorf("totals %+v, not %+v", m.all, want)
	}
}

// What the filter has dropped comes again after the linger, if that is short.
func TestSentAgain(t *testing.T) {
	t.Parallel()
	l := listen(t, "127.0.0.1:0")
	at := l.Addr().String()
	old, c := run(t, "shutdown", "old", l), dial(t, at)
	c.asks("/", "old", false)
	run(t, "shutdown", "next", listen(t, at))
	m := newMaster(t)
	j := m.job(old, at)
	j.Linger = 20 * time.Millisecond
	m.takes(j, Armed{Taken: 1, Filtered: 1})
	c.send("GET", "/", "") // in the closing window
	old.Process.Signal(unix.SIGTERM)
	c.hears("next", true)
	m.rests()
}

// A request that the program has is its own, and so are its other connections.
func TestBusyIsLeft(t *testing.T) {
	t.Parallel()
	l, far := listen(t, "127.0.0.1:0"), listen(t, "127.0.0.1:0")
	at := l.Addr().String()
	old := run(t, "shutdown", "old", l)
	busy, idle := dial(t, at), dial(t, at)
	busy.send("GET", "/slow", "")
	old.says(t, "busy")
	idle.asks("/", "old", false)
	m := newMaster(t)
	j := m.job(old, at)
	j.Linger = 200 * time.Millisecond
	j.Held = append(j.Held, far.Addr().(*net.TCPAddr).AddrPort())
	m.takes(j, Armed{Taken: 2, Filtered: 1})
	finish := dial(t, at)
	finish.asks("/finish", "old", false)
	busy.hears("old", false)
	old.Process.Signal(unix.SIGTERM)
	busy.ends()
	m.await("closed", func(n Totals) bool { return n.Idle == 1 })
	idle.Close()
	m.rests()
}

// What comes on an owned connection, and is no request of HTTP/1, is closed unread.
func TestOtherProtocols(t *testing.T) {
	t.Parallel()
	l := listen(t, "127.0.0.1:0")
	at := l.Addr().String()
	old := run(t, "shutdown", "old", l)
	tls, slow := dial(t, at), dial(t, at)
	tls.asks("/", "old", false)
	slow.asks("/", "old", false)
	m := newMaster(t)
	j := m.job(old, at)
	j.Linger = 500 * time.Millisecond
	m.takes(j, Armed{Taken: 2, Filtered: 2})
	old.Process.Signal(unix.SIGTERM)
	m.await("owned", func(n Totals) bool { return n.Owned == 2 })
	tls.Write([]byte{0x16, 3, 1, 0, 5, 1, 2, 3, 4, 5})
	slow.Write([]byte("G")) // and waits
	m.rests()
	if want := (Totals{Workers: 1, Taken: 2, Closed: 1, Idle: 1}); m.all != want {
		t.Errorf("totals %+v, not %+v", m.all, want)
	}
}

// A program that the signal ends is given time to answer.
func TestUncaught(t *testing.T) {
	t.Parallel()
	l := listen(t, "127.0.0.1:0")
	at := l.Addr().String()
	old := run(t, "uncaught", "old", l)
	busy, idle := dial(t, at), dial(t, at)
	idle.asks("/", "old", false)
	busy.send("GET", "/slow", "")
	old.says(t, "busy")
	finish := dial(t, at)
	run(t, "shutdown", "next", listen(t, at))
	m := newMaster(t)
	j := m.job(old, at)
	j.Uncaught = true
	armed := make(chan Armed)
	go func() { // ends with the test
		a, err := m.TakeOver(j)
		if err != nil {
			t.Error(err)
		}
		armed <- a
	}()
	finish.asks("/finish", "old", false)
	busy.hears("old", false)
	if got, want := <-armed, (Armed{Worker: j.Worker, Taken: 3, Filtered: 3}); got != want {
		t.Fatalf("armed %+v, not %+v", got, want)
	}
	old.Process.Signal(unix.SIGTERM)
	for _, c := range []*client{busy, idle, finish} {
		c.asks("/", "next", true)
	}
	m.rests()
	if want := (Totals{Workers: 1, Taken: 3, Answered: 3}); m.all != want {
		t.Errorf("totals %+v, not %+v", m.all, want)
	}
}

// Connections of a unix socket have no filter; what comes after the close is answered.
func TestPath(t *testing.T) {
	t.Parallel()
	at := filepath.Join(t.TempDir(), "socket")
	listen := func() *net.UnixListener {
		os.Remove(at)
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: at, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		return l
	}
	old := run(t, "shutdown", "old", listen())
	c := dial(t, at)
	c.asks("/", "old", false)
	run(t, "shutdown", "next", listen())
	m := newMaster(t)
	m.takes(m.job(old, at), Armed{Taken: 1})
	old.Process.Signal(unix.SIGTERM)
	m.await("owned", func(n Totals) bool { return n.Owned == 1 })
	c.asks("/", "next", true)
	m.rests()
}

// A relay process that is killed leaves filters, which whoever finds out takes off.
func TestSweep(t *testing.T) {
	t.Parallel()
	l := listen(t, "127.0.0.1:0")
	at := l.Addr().String()
	old := run(t, "shutdown", "old", l)
	c := dial(t, at)
	c.asks("/", "old", false)
	m := newMaster(t)
	j := m.job(old, at)
	m.takes(j, Armed{Taken: 1, Filtered: 1})
	m.proc.Signal(unix.SIGKILL)
	for n := range m.news {
		if n.Dead {
			break
		}
	}
	if n, err := Sweep(j.Target); n != 1 || err != nil {
		t.Fatalf("%d filters, %v", n, err)
	}
	c.asks("/", "old", false)
	if n, err := Sweep(j.Target); n != 0 || err != nil {
		t.Fatalf("%d filters, %v", n, err)
	}
	if _, err := m.TakeOver(j); err == nil {
		t.Error("a process that was killed takes over")
	}
}

// A master that follows continues with the process, and asks again.
func TestResume(t *testing.T) {
	t.Parallel()
	l := listen(t, "127.0.0.1:0")
	at := l.Addr().String()
	old := run(t, "shutdown", "old", l)
	c := dial(t, at)
	c.asks("/", "old", false)
	run(t, "shutdown", "next", listen(t, at))
	m := newMaster(t)
	j := m.job(old, at)
	pid, socket := -1, -1
	j.Stored = func(a, b int) {
		pid, _ = unix.FcntlInt(uintptr(a), unix.F_DUPFD_CLOEXEC, 3)
		socket, _ = unix.FcntlInt(uintptr(b), unix.F_DUPFD_CLOEXEC, 3)
	}
	m.takes(j, Armed{Taken: 1, Filtered: 1})
	m.Close()
	heir := &master{t: t, news: make(chan News, 100)}
	var err error
	if heir.Client, err = Resume(pid, socket, func(n News) { heir.news <- n }); err != nil {
		t.Fatal(err)
	}
	heir.takes(j, Armed{Taken: 1, Filtered: 1})
	old.Process.Signal(unix.SIGTERM)
	c.asks("/", "next", true)
	heir.rests()
}

// Nothing is started for a worker without connections, nor for clients that are not to be
// taken over.
func TestNothing(t *testing.T) {
	t.Parallel()
	l := listen(t, "127.0.0.1:0")
	at := l.Addr().String()
	old := run(t, "shutdown", "old", l)
	m := newMaster(t)
	if a, err := m.TakeOver(m.job(old, at)); a != (Armed{}) || err != nil {
		t.Errorf("armed %+v, %v", a, err)
	}
	j := m.job(old, "127.0.0.2"+at[len("127.0.0.1"):])
	dial(t, at).asks("/", "old", false)
	if a, err := m.TakeOver(j); a != (Armed{}) || err != nil {
		t.Errorf("of another address: armed %+v, %v", a, err)
	}
	if _, _, ok := m.Kept(); ok {
		t.Error("a process was started")
	}
}

func TestHeld(t *testing.T) {
	all := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:80"), netip.MustParseAddrPort("[::]:81")}
	for _, c := range []struct {
		local string
		held  bool
	}{{"127.0.0.1:80", true}, {"127.0.0.2:80", false}, {"127.0.0.1:81", true}, {"[::1]:81", true}, {"[::1]:80", false}, {"127.0.0.1:5432", false}} {
		if got := held(all, netip.MustParseAddrPort(c.local)); got != c.held {
			t.Errorf("%s: %v", c.local, got)
		}
	}
}

// A worker may put another socket in the place of one that was found.
func TestSwapped(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	defer l.Close()
	at := l.Addr().(*net.TCPAddr).AddrPort()
	dial(t, at.String())
	c, err := l.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	all, err := find(Target{PID: os.Getpid(), Held: []netip.AddrPort{at}, Peers: Local})
	if err != nil || len(all) != 1 || len(all[0].holders) == 0 {
		t.Fatalf("%+v, %v", all, err)
	}
	opened := pidfds{}
	defer opened.close()
	fd, err := all[0].take(opened.open)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	other, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(other)
	for i := range all[0].holders {
		all[0].holders[i].FD = other
	}
	if fd, err := all[0].take(opened.open); !errors.Is(err, errSwapped) {
		t.Errorf("descriptor %d, %v", fd, err)
	}
}

// A filter drops what has data, and is known again; that of the program is left alone.
func TestFilter(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	defer l.Close()
	theirs := dial(t, l.Addr().String())
	c, err := l.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, _ := c.SyscallConn()
	raw.Control(func(n uintptr) {
		fd := int(n)
		if w := filterOf(fd); w != nobodys {
			t.Errorf("at first: %v", w)
		}
		if err := attach(fd); err != nil || filterOf(fd) != ours {
			t.Errorf("with ours: %v, %v", filterOf(fd), err)
		}
		if g, err := look(fd); err != nil || !g.idle() || !g.certain() {
			t.Errorf("a new connection is %+v, %v", g, err)
		}
		theirs.Write([]byte("lost, until it is sent again"))
		if n, err := unix.IoctlGetInt(fd, unix.SIOCINQ); n != 0 || err != nil {
			t.Errorf("%d bytes have come, %v", n, err)
		}
		if err := detach(fd); err != nil || filterOf(fd) != nobodys {
			t.Errorf("without: %v, %v", filterOf(fd), err)
		}
	})
	buf := make([]byte, 100)
	if n, err := c.Read(buf); err != nil || fmt.Sprintf("%.4s", buf[:n]) != "lost" {
		t.Errorf("%q, %v", buf[:n], err)
	}
	raw.Control(func(n uintptr) {
		own := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0xffff}}
		unix.SetsockoptSockFprog(int(n), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &own[0]})
		if w := filterOf(int(n)); w != anothers {
			t.Errorf("the program's: %v", w)
		}
	})
}

func FuzzMessage(f *testing.F) {
	f.Add([]byte(`{"take":{"worker":1,"connections":[{"inode":1,"holders":[{"pid":1,"fd":3}]}]}}`))
	f.Add([]byte(`{"armed":{"worker":1}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var m message
		parse(b, &m)
	})
}

func FuzzConnections(f *testing.F) {
	f.Add(make([]byte, 16+72))
	f.Fuzz(func(t *testing.T, b []byte) {
		var all []connection
		parseConnections(b, 80, &all)
		for _, c := range all {
			if c.Local.Port() != 80 || c.Inode == 0 {
				t.Errorf("%+v", c)
			}
		}
	})
}
