package handoff

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// programs is a group that begins with a program's own socket.
func programs(t *testing.T) *owner {
	t.Helper()
	w, err := NewWatch()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := bind(netip.MustParseAddrPort("127.0.0.1:0"), false, true, traits{})
	if err != nil {
		t.Fatal(err)
	}
	g, err := w.Adopt(Config{}, fd)
	if err != nil {
		t.Fatal(err)
	}
	o := run(t, w, g)
	o.join = true
	return o
}

// Each worker listens with a socket that it has bound by itself; the group is bounded, and
// nothing is lost.
func TestHandoversOfOwnSockets(t *testing.T) { handoversOf(programs(t), Config{}, count(300, 20)) }

// A socket that waits for a worker is not passed by: its connections are the next one's.
func TestWaits(t *testing.T) {
	o := programs(t)
	o.call(func() {
		g := o.group
		first, err := g.Take(0)
		if err != nil {
			t.Fatal(err)
		}
		if g.Waits(0) || g.Waits(1) {
			t.Error("a socket waits, and none is steered to")
		}
		if err := g.Steer([]*Socket{first}); err != nil {
			t.Fatal(err)
		}
		first.Release() // its worker has died
		c, err := net.Dial("tcp", g.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if !g.Waits(0) {
			t.Error("no socket waits, and one is steered to")
		}
		fd, err := bind(g.Addr(), false, false, traits{})
		if err != nil {
			t.Fatal(err)
		}
		second, err := g.Join(fd, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Steer([]*Socket{second}); err != nil {
			t.Fatal(err)
		}
		if !g.Waits(0) {
			t.Error("no socket waits, and one has a connection in its queue")
		}
	})
}

// Sockets that the group makes have what the first one has, without which the kernel would
// not bind them beside it: its user, and IP_FREEBIND.
func TestTraits(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_FREEBIND, 1)
	nobody := unix.Fchown(fd, 65534, -1) == nil
	sa, _ := sockaddr(netip.MustParseAddrPort("192.0.2.7:0")) // nobody has it
	if err := unix.Bind(fd, sa); err != nil {
		t.Fatal(err)
	}
	w, err := NewWatch()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	g, err := w.Adopt(Config{}, fd)
	if err != nil {
		t.Fatal(err)
	}
	for slot := range 2 {
		s, err := g.Take(slot)
		if err != nil {
			t.Fatal(err)
		}
		if got := traitsOf(s.fd); !got.freebind || nobody && (got.uid != 65534 || g.Owner() != 65534) {
			t.Errorf("socket %d has %+v", slot, got)
		}
	}
}

// A socket on which the kernel refuses to listen stays what it was.
func TestRefusedListen(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	sa, _ := sockaddr(l.Addr().(*net.TCPAddr).AddrPort())
	if err := unix.Connect(fd, sa); err != nil {
		t.Fatal(err)
	}
	w, err := NewWatch()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Adopt(Config{}, dup); !errors.Is(err, unix.EINVAL) {
		t.Errorf("it listens on a connection: %v", err)
	}
	if on, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT); on != 0 {
		t.Error("SO_REUSEPORT stays set", err)
	}
}
