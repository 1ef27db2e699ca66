package handoff

import (
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"handoff/internal/load"
)

// another owner goes on with the sockets of one that is killed, of which one was lost:
// who was steered to is still, and who is steered to next is the right one.
func TestRestore(t *testing.T) {
	before := own(t, Config{})
	workers := before.generation(4, 1)
	before.steer(workers)
	var state State
	kept := map[uint64]int{}
	before.call(func() { state = before.group.State() })
	b, _ := json.Marshal(state)
	for _, s := range before.group.Sockets() {
		kept[s.Inode()], _ = unix.FcntlInt(uintptr(s.FD()), unix.F_DUPFD_CLOEXEC, 3)
	}
	lost := before.group.Sockets()[1]
	unix.Close(kept[lost.Inode()])
	delete(kept, lost.Inode())
	workers[slices.IndexFunc(workers, func(s *server) bool { return s.socket == lost })].listener.Close()

	var again State
	if err := json.Unmarshal(b, &again); err != nil {
		t.Fatal(err)
	}
	w, err := NewWatch()
	if err != nil {
		t.Fatal(err)
	}
	before.call(before.group.Close) // the lost one is closed everywhere
	g, err := w.Restore(again, func(inode uint64) int {
		if fd, ok := kept[inode]; ok {
			return fd
		}
		return -1
	})
	if err != nil {
		t.Fatal(err)
	}
	o := run(t, w, g)
	for i, s := range g.Sockets() {
		for _, was := range workers {
			if was.socket.Inode() != s.Inode() {
				continue
			}
			if s.Slot() != was.slot || s.Holders() != 1 {
				t.Errorf("socket %d: slot %d, %d holders", i, s.Slot(), s.Holders())
			}
			o.call(func() {
				if err := g.Steer([]*Socket{s}); err != nil {
					t.Error(err)
				}
			})
			had := was.served.Load()
			run := o.load(load.Config{Clients: 2})
			run.Await(20, wait)
			if r := run.Stop(); was.served.Load()-had != r.Requests {
				t.Errorf("socket %d: %d of %v", i, was.served.Load()-had, r)
			}
		}
	}
	for _, s := range workers {
		s.listener.Close()
		s.wg.Wait()
	}
}

func TestRestoreErrors(t *testing.T) {
	w, err := NewWatch()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	fd, err := bind(netip.MustParseAddrPort("127.0.0.1:0"), false, true, traits{})
	if err != nil {
		t.Fatal(err)
	}
	state := State{Addr: netip.MustParseAddrPort("127.0.0.1:1"), Sockets: []SocketState{{Inode: 1}}}
	if _, err := w.Restore(state, func(uint64) int { return fd }); err == nil {
		t.Error("a socket of another port is taken over")
	}
	if _, err := unix.Getsockname(fd); !errors.Is(err, unix.EBADF) {
		t.Errorf("it is still open: %v", err)
	}
	if _, err := w.Restore(state, func(uint64) int { return -1 }); !errors.Is(err, unix.ENOENT) {
		t.Errorf("without a socket: %v", err)
	}
	if _, err := w.Listen(Config{}); !errors.Is(err, unix.EINVAL) {
		t.Errorf("without an address: %v", err)
	}
}

// serves tells whether a group with two more sockets steers.
func serves(t *testing.T, w *Watch, g *Group) {
	t.Helper()
	o := run(t, w, g)
	old, next := o.generation(2, 1), o.generation(2, 2)
	o.steer(old)
	run := o.load(load.Config{Clients: 4})
	run.Await(50, wait)
	o.steer(next)
	run.Await(50, wait)
	o.quiet(old)
	zero(t, run.Stop())
	if next[0].served.Load() == 0 || next[1].served.Load() == 0 {
		t.Error("a worker got nothing")
	}
	for _, s := range append(old, next...) {
		s.leave()
	}
}

// A program has bound port 0 itself, with Multipath TCP or without.
func TestAdopt(t *testing.T) {
	for name, protocol := range map[string]int{"tcp": unix.IPPROTO_TCP, "mptcp": unix.IPPROTO_MPTCP} {
		t.Run(name, func(t *testing.T) {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
			if err != nil {
				t.Skip(err)
			}
			inode := inodeOf(fd)
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
			if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
				t.Fatal(err)
			}
			at, _ := Bound(fd)
			w, err := NewWatch()
			if err != nil {
				t.Fatal(err)
			}
			g, err := w.Adopt(Config{}, fd)
			if err != nil {
				t.Fatal(err)
			}
			if g.Addr() != at || g.Balance() != Even || !g.Steerable() {
				t.Errorf("%v, %v, steerable %v", g.Addr(), g.Balance(), g.Steerable())
			}
			if same := g.Sockets()[0].Inode() == inode; same != (name == "tcp") {
				t.Errorf("the same socket: %v", same)
			}
			serves(t, w, g)
		})
	}
}

// A service manager's socket is joined by others; where it cannot be, it is shared.
func TestInherit(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	f, _ := ln.(*net.TCPListener).File()
	fd, _ := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	f.Close()
	w, err := NewWatch()
	if err != nil {
		t.Fatal(err)
	}
	g, why, err := w.Inherit(Config{}, fd)
	if err != nil {
		t.Fatal(err)
	}
	if protocol, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL); protocol == unix.IPPROTO_MPTCP {
		if why == nil || g.Balance() != Shared || g.Steerable() {
			t.Errorf("%v, %v", why, g.Balance())
		}
		one, _ := g.Take(0)
		two, _ := g.Take(1)
		if one != two || one.Holders() != 2 {
			t.Error("it is not shared")
		}
		if err := g.SetBalance(Even); err == nil {
			t.Error("the balance of a shared socket was changed")
		}
		w.Close()
	} else {
		serves(t, w, g)
	}

	w, _ = NewWatch()
	fd, err = bind(netip.MustParseAddrPort("127.0.0.1:0"), false, true, traits{})
	if err != nil {
		t.Fatal(err)
	}
	unix.Listen(fd, 1)
	if g, why, err = w.Inherit(Config{}, fd); err != nil || why != nil {
		t.Fatal(why, err)
	}
	serves(t, w, g)
}

// The balance changes under load: nobody notices, but that clients have a slot of
// their own then.
func TestSetBalance(t *testing.T) {
	o := own(t, Config{})
	workers := o.generation(4, 1)
	o.steer(workers)
	run := o.load(load.Config{Clients: 4})
	run.Await(100, wait)
	set := func(b Balance) {
		o.call(func() {
			if err := o.group.SetBalance(b); err != nil || o.group.Balance() != b {
				t.Error(b, err)
			}
		})
	}
	set(Sticky)
	zero(t, run.Stop())
	run = o.load(load.Config{Clients: 4})
	var had []int64
	for _, w := range workers {
		had = append(had, w.served.Load())
	}
	run.Await(100, wait)
	busy := 0
	for i, w := range workers {
		if w.served.Load() > had[i] {
			busy++
		}
	}
	if busy != 1 { // the one client address has one slot
		t.Errorf("%d slots serve one client", busy)
	}
	set(Sticky)
	set(Even)
	run.Await(100, wait)
	zero(t, run.Stop())
	o.call(func() {
		if err := o.group.SetBalance(Shared); err == nil {
			t.Error("set to shared")
		}
		if other, _ := o.watch.Listen(Config{Addr: netip.MustParseAddrPort("127.0.0.1:0")}); other.Steer([]*Socket{workers[0].socket}) == nil {
			t.Error("steered to a socket of another group")
		}
	})
	for _, w := range workers {
		w.leave()
	}
}

// Beside binds where others of the same user are, on another address of loopback's.
func TestBeside(t *testing.T) {
	o := own(t, Config{Addr: netip.MustParseAddrPort("[::]:0")})
	port := strconv.Itoa(int(o.group.Addr().Port()))
	o.call(func() {
		g, err := o.watch.Listen(Config{Addr: netip.MustParseAddrPort("127.1.2.3:" + port), Beside: true})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := o.watch.Listen(Config{Addr: netip.MustParseAddrPort("127.1.2.4:" + port)}); !errors.Is(err, unix.EADDRINUSE) {
			t.Error(err)
		}
		g.Close()
	})
}

func TestBindUDP(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
		fd, got, err := BindUDP(netip.MustParseAddrPort(at), true)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if _, _, err := BindUDP(got, true); !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("twice: %v", err)
		}
		c, err := net.Dial("udp", got.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.Write([]byte("x"))
		unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 20_000)
		if n, _, err := unix.Recvfrom(fd, make([]byte, 9), 0); n != 1 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	}
}
