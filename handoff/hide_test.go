package handoff

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// A hidden group gets no more connections, keeps those in its queue, and leaves the others to
// the group at the less specific address.
func TestHide(t *testing.T) {
	_, g, old := optionsGroup(t, "127.0.0.1:0", 2)
	if err := g.Steer(old); err != nil {
		t.Fatal(err)
	}
	goesTo(t, g, 3, old...)
	w, err := NewWatch()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	wide, err := w.Listen(Config{Addr: netip.AddrPortFrom(netip.IPv4Unspecified(), g.Addr().Port()), Beside: true})
	if err != nil {
		t.Fatal(err)
	}
	s, err := wide.Take(0)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Hide(); err != nil {
		t.Fatal(err)
	}
	const n = 10
	for range n {
		c, err := net.Dial("tcp4", g.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	if s.Pending() != n || old[0].Pending()+old[1].Pending() != 3 {
		t.Errorf("%d connections are at the wide address, want %d; %d at the hidden one, want 3", s.Pending(), n, old[0].Pending()+old[1].Pending())
	}
	old[0].Release()
	if ifindex, _ := unix.GetsockoptInt(old[0].fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX); ifindex == 0 || old[0].Closed() {
		t.Error("a hidden socket is reset, and gets connections again")
	}
	if !g.State().Hidden {
		t.Error("the next owner does not know it")
	}
}

// Connections to a group that is aside go to the one at a less specific address, until it is
// shown; so it is with sockets that join meanwhile.
func TestAside(t *testing.T) {
	w, wide, old := optionsGroup(t, "0.0.0.0:0", 1)
	if err := wide.Steer(old); err != nil {
		t.Fatal(err)
	}
	at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), wide.Addr().Port())
	g, err := w.Listen(Config{Addr: at, Beside: true, Aside: true})
	if err != nil {
		t.Fatal(err)
	}
	if !g.Aside() {
		t.Skip("needs CAP_NET_RAW")
	}
	if s := g.State(); !s.Aside || s.Hidden {
		t.Error("the next owner does not know it")
	}
	first, err := g.Take(0)
	if err != nil {
		t.Fatal(err)
	}
	second, err := g.Take(1)
	if err != nil {
		t.Fatal(err)
	}
	dial := func(n int) {
		t.Helper()
		for range n {
			c, err := net.Dial("tcp4", at.String())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
		}
	}
	dial(10)
	if old[0].Pending() != 10 {
		t.Errorf("%d connections are at the wide address, want 10", old[0].Pending())
	}
	if err := errors.Join(g.Steer([]*Socket{second}), g.Show()); err != nil {
		t.Fatal(err)
	}
	dial(10)
	if old[0].Pending() != 10 || first.Pending() != 0 || second.Pending() != 10 {
		t.Errorf("%d, %d and %d connections wait, want 10, 0 and 10", old[0].Pending(), first.Pending(), second.Pending())
	}
}
