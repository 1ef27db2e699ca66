package handoff

import (
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
