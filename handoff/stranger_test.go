package handoff

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A second copy of the program, started by hand, that listens with SO_REUSEPORT has a place
// in the kernel's order: nothing is steered to it, and all goes to the targets, while it is
// there, when it leaves, and for the next owner.
func TestStranger(t *testing.T) {
	w, g, all := optionsGroup(t, "127.0.0.1:0", 2)
	join := func() int {
		t.Helper()
		fd, err := bind(g.Addr(), false, false, traits{})
		if err == nil {
			err = unix.Listen(fd, 16)
		}
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	strangers := func(left bool) (n int) {
		for _, e := range w.Collect(time.Now()) {
			if s, ok := e.(Stranger); ok && s.Left == left {
				n++
			}
		}
		return n
	}
	// goesTo opens connections, which are all to be in the queues of these.
	goesTo := func(what string, g *Group, targets ...*Socket) {
		t.Helper()
		before := make([]int, len(targets))
		for i, s := range targets {
			before[i] = s.Pending()
		}
		var conns []net.Conn
		for range 60 {
			c, err := net.Dial("tcp", g.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, c)
		}
		sum := 0
		for i, s := range targets {
			n := s.Pending() - before[i]
			if n == 0 {
				t.Errorf("%s: target %d gets nothing", what, i)
			}
			sum += n
		}
		if sum != len(conns) {
			t.Errorf("%s: %d of %d are at the targets", what, sum, len(conns))
		}
		for _, c := range conns {
			c.Close()
		}
	}
	take := func(slot int) *Socket {
		t.Helper()
		s, err := g.Take(slot)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	steer := func(targets ...*Socket) {
		t.Helper()
		if err := g.Steer(targets); err != nil {
			t.Fatal(err)
		}
	}

	one := join()
	goesTo("joined", g, all...)
	next := []*Socket{take(0), take(1)} // behind it
	if n := strangers(false); n != 1 || len(g.Sockets()) != 4 {
		t.Errorf("%d reported, %d sockets", n, len(g.Sockets()))
	}
	steer(next...)
	goesTo("a new generation", g, next...)

	// The next owner knows its place.
	state := g.State()
	w2, err := NewWatch()
	if err != nil {
		t.Fatal(err)
	}
	defer w2.Close()
	g2, err := w2.Restore(state, func(inode uint64) int {
		for _, s := range g.Sockets() {
			if s.inode == inode {
				fd, _ := unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, 3)
				return fd
			}
		}
		return -1
	})
	if err != nil {
		t.Fatal(err)
	}
	own := g2.Sockets()
	if err := g2.Steer([]*Socket{own[3], own[1]}); err != nil {
		t.Fatal(err)
	}
	goesTo("the next owner", g2, own[3], own[1])
	g.program = nil // somebody else has attached another
	steer(next[0], all[0])
	goesTo("back", g, next[0], all[0])

	unix.Close(one) // the last one takes its place
	steer(next[0], next[1])
	if n := strangers(true); n != 1 {
		t.Errorf("%d have left", n)
	}
	goesTo("left", g, next...)

	// One that comes and goes while nothing is steered is found when connections come.
	two := join()
	more := take(0)
	steer(more, all[1])
	unix.Close(two)
	for range 60 { // some go astray, which is told, until somebody looks
		c, err := net.Dial("tcp", g.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	w.Collect(time.Now().Add(2 * repairEvery))
	goesTo("left unseen", g, more, all[1])
}

func TestNoStrangers(t *testing.T) {
	_, g, _ := optionsGroup(t, "[::]:0", 1)
	// Other addresses of the same port are other groups.
	l, err := net.Listen("tcp4", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.9"), g.Addr().Port()).String())
	if err == nil {
		defer l.Close()
	}
	if g.noteStrangers() {
		t.Error("another address is in the group")
	}
	members, ok := g.members()
	if !ok || len(members) != 1 || members[0] != g.order[0].inode {
		t.Error(members, ok)
	}
}
