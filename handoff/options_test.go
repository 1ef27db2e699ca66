package handoff

import (
	"bytes"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// optionsGroup is a group of n sockets that workers have, all of them targets.
func optionsGroup(t *testing.T, addr string, n int) (*Watch, *Group, []*Socket) {
	t.Helper()
	w, err := NewWatch()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	g, err := w.Listen(Config{Addr: netip.MustParseAddrPort(addr)})
	if err != nil {
		t.Skip(err) // no IPv6
	}
	var all []*Socket
	for slot := range n {
		s, err := g.Take(slot)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	if err := g.Steer(all); err != nil {
		t.Fatal(err)
	}
	return w, g, all
}

// repairs are what Collect tells of sockets, in words.
func repairs(w *Watch) (what string, detached int) {
	for _, e := range w.Collect(time.Now()) {
		switch e := e.(type) {
		case Repaired:
			what += e.What + "; "
		case Detached:
			detached++
		case Failed:
			what += "failed: " + e.Err.Error()
		}
	}
	return what, detached
}

// A socket that nobody has touched is as new.
func TestUntouchedSocketIsAsNew(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "0.0.0.0:0", "[::]:0", "[::1]:0"} {
		_, g, all := optionsGroup(t, addr, 2)
		_, family := sockaddr(g.addr)
		fresh, err := unix.Socket(family, unix.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range options {
			want, _ := getOption(fresh, o.level, o.id)
			for _, s := range all {
				if is, _ := getOption(s.fd, o.level, o.id); !bytes.Equal(is, want) {
					t.Errorf("%s, %s: %v, of a new socket %v", addr, o.name, is, want)
				}
			}
		}
		unix.Close(fresh)
		if changed, err := all[0].reset(true); len(changed) > 0 || err != nil {
			t.Error(addr, changed, err)
		}
	}
}

// What a worker has set on its socket is not there for the next one.
func TestOptionsOfAWorkerEndWithIt(t *testing.T) {
	w, g, all := optionsGroup(t, "127.0.0.1:0", 2)
	s := all[0]
	accept := unix.SockFilter{Code: 0x06, K: 0xffffffff}
	for _, err := range []error{
		unix.SetsockoptInt(s.fd, unix.IPPROTO_IP, ipMinTTL, 255),
		unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG, 88),
		unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4096),
		unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1),
		unix.SetsockoptSockFprog(s.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &accept}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	value := func(level, id int) int { v, _ := unix.GetsockoptInt(s.fd, level, id); return v }
	s.Release()
	// What connects now is to be as with the next worker, which may set such itself.
	if value(unix.IPPROTO_IP, ipMinTTL) != 0 || value(unix.SOL_SOCKET, unix.SO_KEEPALIVE) != 1 {
		t.Error("after its release:", value(unix.IPPROTO_IP, ipMinTTL), value(unix.SOL_SOCKET, unix.SO_KEEPALIVE))
	}
	what, detached := repairs(w)
	for _, want := range []string{"set IP_MINTTL on", "set TCP_MAXSEG on", "set SO_ATTACH_FILTER on"} {
		if !strings.Contains(what, want) || detached != 0 {
			t.Errorf("%q, %d detached; want %q", what, detached, want)
		}
	}
	again, err := g.Take(0)
	if err != nil || again != s {
		t.Fatal(again, err)
	}
	if changed, err := s.reset(true); len(changed) > 0 || err != nil || value(unix.SOL_SOCKET, unix.SO_KEEPALIVE) != 0 {
		t.Error(changed, err)
	}
	if what, detached := repairs(w); what != "" || detached != 0 {
		t.Error(what, detached)
	}
}

// One on which something cannot be undone is replaced, and at no instant do connections go
// anywhere but to the targets.
func TestSocketIsReplacedInItsPlace(t *testing.T) {
	w, g, all := optionsGroup(t, "127.0.0.1:0", 3)
	bad := all[1]
	if err := unix.SetsockoptInt(bad.fd, unix.SOL_SOCKET, soLockFilter, 1); err != nil {
		t.Fatal(err)
	}
	steered := g.Steered()
	bad.Release()
	what, detached := repairs(w)
	if !strings.Contains(what, "set SO_LOCK_FILTER on") || detached != 1 || !bad.closed {
		t.Errorf("%q, %d detached", what, detached)
	}
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for range 60 {
		c, err := net.Dial("tcp", g.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	next, err := g.Take(1)
	if err != nil || next == bad || !g.isTarget(next) || g.Steered() != steered {
		t.Fatalf("%v, target %v, %d programs more", err, g.isTarget(next), g.Steered()-steered)
	}
	sum := 0
	for _, s := range []*Socket{all[0], next, all[2]} {
		if n := s.Pending(); n == 0 {
			t.Error("a target gets nothing")
		} else {
			sum += n
		}
	}
	if sum != len(conns) {
		t.Errorf("%d of %d are at targets", sum, len(conns))
	}
	// With connections in its queue it stays, until a worker is to have it.
	if err := unix.SetsockoptInt(next.fd, unix.SOL_SOCKET, soLockFilter, 1); err != nil {
		t.Fatal(err)
	}
	next.Release()
	if _, detached := repairs(w); detached != 0 || next.closed {
		t.Error("connections were reset that somebody may still take")
	}
	if s, err := g.Take(1); err != nil || s == next || !next.closed {
		t.Error(err)
	}
}
