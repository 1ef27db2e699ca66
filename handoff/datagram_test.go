package handoff

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// datagrams is an owner of a group of UDP, whose first socket is that of slot 0.
type datagrams struct {
	*owner
	cfg Config
}

func ownDatagrams(t *testing.T, cfg Config) *datagrams {
	t.Helper()
	w, err := NewWatch()
	if err != nil {
		t.Fatal(err)
	}
	if !cfg.Addr.IsValid() {
		cfg.Addr = freeUDP(t, netip.MustParseAddr("127.0.0.1"))
	}
	return &datagrams{run(t, w, nil), cfg}
}

func freeUDP(t *testing.T, addr netip.Addr) netip.AddrPort {
	t.Helper()
	fd, at, err := BindUDP(netip.AddrPortFrom(addr, 0), false)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	return at
}

// echo is a worker: it has created a socket, and answers each datagram with its slot,
// its generation, and what was asked.
type echo struct {
	d                *datagrams
	socket           *Socket
	slot, generation int
	conn             *net.UDPConn
	done             chan struct{}
}

func (d *datagrams) serve(slot, generation int) *echo {
	d.t.Helper()
	e := &echo{d: d, slot: slot, generation: generation, done: make(chan struct{})}
	_, family := sockaddr(d.cfg.Addr)
	own, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		d.t.Fatal(err)
	}
	d.call(func() {
		if d.group != nil && d.group.Waiting(slot) {
			if e.socket, err = d.group.Take(slot); err == nil {
				unix.Close(own)
				own, err = unix.FcntlInt(uintptr(e.socket.FD()), unix.F_DUPFD_CLOEXEC, 3)
			}
			return
		}
		var fd int
		if fd, err = unix.FcntlInt(uintptr(own), unix.F_DUPFD_CLOEXEC, 3); err != nil {
			return
		}
		if d.group == nil {
			d.group, e.socket, err = d.watch.Bind(d.cfg, fd, slot)
		} else {
			e.socket, err = d.group.Bind(fd, slot)
		}
	})
	if err != nil {
		d.t.Fatal(err)
	}
	f := os.NewFile(uintptr(own), "udp")
	defer f.Close()
	c, err := net.FilePacketConn(f)
	if err != nil {
		d.t.Fatal(err)
	}
	e.conn = c.(*net.UDPConn)
	go e.answer()
	return e
}

func (e *echo) answer() { // ends when the socket is closed
	defer close(e.done)
	b := make([]byte, 100)
	for {
		n, from, err := e.conn.ReadFromUDPAddrPort(b[2:])
		if err != nil {
			return
		}
		b[0], b[1] = byte(e.slot), byte(e.generation)
		e.conn.WriteToUDPAddrPort(b[:2+n], from)
	}
}

// leave closes the socket, without a look at what waits in it: what was read is answered.
func (e *echo) leave() {
	e.conn.SetReadDeadline(time.Unix(1, 0))
	<-e.done
	e.conn.Close()
	e.d.call(func() { e.socket.Release() })
}

func (d *datagrams) generation(slots, generation int) (echoes []*echo) {
	for slot := range slots {
		echoes = append(echoes, d.serve(slot, generation))
	}
	return echoes
}

func (d *datagrams) steer(echoes []*echo) {
	d.t.Helper()
	targets := make([]*Socket, len(echoes))
	for i, e := range echoes {
		if e != nil {
			targets[i] = e.socket
		}
	}
	d.call(func() {
		if err := d.group.Steer(targets); err != nil {
			d.t.Error(err)
		}
	})
}

func (d *datagrams) quiet(echoes []*echo) {
	var servers []*server
	for _, e := range echoes {
		servers = append(servers, &server{o: d.owner, socket: e.socket})
	}
	d.owner.quiet(servers)
}

// ask sends one datagram, once, and returns who answers.
func ask(c *net.UDPConn, n uint32) (slot, generation int, err error) {
	b := binary.BigEndian.AppendUint32(nil, n)
	if _, err := c.Write(b); err != nil {
		return 0, 0, err
	}
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	b = make([]byte, 100)
	k, err := c.Read(b)
	if err == nil && (k != 6 || binary.BigEndian.Uint32(b[2:]) != n) {
		err = errors.New("another answer")
	}
	return int(b[0]), int(b[1]), err
}

// clients ask without a pause until stop, and count what is not answered.
type clients struct {
	asked, lost, moved atomic.Int64
	stopped            atomic.Bool
	wg                 sync.WaitGroup
}

func (d *datagrams) clients(n int) *clients {
	c := &clients{}
	for range n {
		conn := dialUDP(d.t, d.cfg.Addr)
		c.wg.Go(func() {
			defer conn.Close()
			at, newest := -1, 0
			for i := uint32(0); !c.stopped.Load(); i++ {
				slot, generation, err := ask(conn, i)
				if c.asked.Add(1); err != nil {
					d.t.Error(err)
					c.lost.Add(1)
					return
				}
				if at >= 0 && slot != at || generation < newest {
					c.moved.Add(1)
				}
				at, newest = slot, generation
			}
		})
	}
	return c
}

func dialUDP(t *testing.T, to netip.AddrPort) *net.UDPConn {
	t.Helper()
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *clients) stop(t *testing.T) {
	t.Helper()
	c.stopped.Store(true)
	c.wg.Wait()
	t.Logf("%d asked, %d not answered, %d moved", c.asked.Load(), c.lost.Load(), c.moved.Load())
	if c.lost.Load() > 0 {
		t.Errorf("%d of %d not answered", c.lost.Load(), c.asked.Load())
	}
}

func TestDatagramHandoversLoseNothing(t *testing.T) {
	for _, addr := range []string{"127.0.0.1", "0.0.0.0", "::1", "::"} {
		t.Run(addr, func(t *testing.T) {
			d := ownDatagrams(t, Config{Addr: freeUDP(t, netip.MustParseAddr(addr))})
			live := d.generation(3, 1)
			d.steer(live)
			c := d.clients(16)
			for i := range count(200, 20) {
				next := d.generation(3, i%200+2)
				d.steer(next)
				d.quiet(live)
				for _, e := range live {
					e.leave()
				}
				live = next
			}
			c.stop(t)
			if n := c.moved.Load(); n > 0 && testing.Short() {
				t.Errorf("clients changed their slot, or went back to an old generation, %d times", n)
			}
			d.call(func() {
				if n := len(d.group.order); n > 7 { // IPv6: the oldest stays
					t.Errorf("%d sockets", n)
				}
			})
			for _, e := range live {
				e.leave()
			}
		})
	}
}

// What waits in the socket of a worker that was killed is the next one's.
func TestDatagramsOfADeadWorker(t *testing.T) {
	d := ownDatagrams(t, Config{})
	live := d.generation(2, 1)
	d.steer(live)
	var conns []*net.UDPConn
	for range 20 {
		c := dialUDP(t, d.cfg.Addr)
		defer c.Close()
		conns = append(conns, c)
	}
	for _, e := range live { // they stop reading
		e.conn.SetReadDeadline(time.Unix(1, 0))
		<-e.done
	}
	for i, c := range conns {
		c.Write(binary.BigEndian.AppendUint32(nil, uint32(i)))
	}
	live[0].leave()
	d.steer([]*echo{nil, live[1]})
	live[1].leave()
	next := d.generation(2, 2)
	d.steer(next)
	for i, c := range conns {
		b := make([]byte, 10)
		c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if n, err := c.Read(b); err != nil || n != 6 || b[1] != 2 || b[5] != byte(i) {
			t.Errorf("%d: %v %v", i, b[:n], err)
		}
	}
	for _, e := range next {
		e.leave()
	}
}

func TestDatagramsAreRestored(t *testing.T) {
	d := ownDatagrams(t, Config{})
	live := d.generation(2, 1)
	d.steer(live)
	c := d.clients(8)
	var state State
	fds := map[uint64]int{}
	d.call(func() {
		state = d.group.State()
		for _, s := range d.group.Sockets() {
			fds[s.Inode()], _ = unix.FcntlInt(uintptr(s.FD()), unix.F_DUPFD_CLOEXEC, 3)
		}
	})
	d.stop()
	w, err := NewWatch()
	if err != nil {
		t.Fatal(err)
	}
	g, err := w.Restore(state, func(inode uint64) int { return fds[inode] })
	if err != nil {
		t.Fatal(err)
	}
	second := &datagrams{run(t, w, g), d.cfg}
	for _, e := range live { // the same workers
		i := slices.IndexFunc(g.order, func(s *Socket) bool { return s.inode == e.socket.inode })
		e.socket, e.d = g.order[i], second
	}
	second.steer(live)
	next := second.generation(2, 2)
	second.steer(next)
	second.quiet(live)
	for _, e := range live {
		e.leave()
	}
	c.stop(t)
	if n := c.moved.Load(); n > 0 {
		t.Errorf("%d clients changed their slot", n)
	}
	for _, e := range next {
		e.leave()
	}
}

func TestDatagramSecondInstanceIsRefused(t *testing.T) {
	d := ownDatagrams(t, Config{})
	e := d.serve(0, 1)
	for _, reuse := range []bool{false, true} {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if reuse {
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		}
		w, _ := NewWatch()
		if _, _, err := w.Bind(d.cfg, fd, 0); !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("second instance: %v", err)
		}
		if on, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT); (on == 1) != reuse {
			t.Errorf("SO_REUSEPORT is %d now", on)
		}
		unix.Close(fd)
		w.Close()
	}
	e.leave()
}

// A worker that connects its socket leaves the group by that, and another program's socket
// joins and leaves: the others stay where they are.
func TestDatagramOrderIsKept(t *testing.T) {
	for _, addr := range []string{"127.0.0.1", "0.0.0.0"} {
		t.Run(addr, func(t *testing.T) {
			d := ownDatagrams(t, Config{Addr: freeUDP(t, netip.MustParseAddr(addr))})
			old := d.generation(2, 1)
			live := d.generation(2, 2)
			d.steer(live)
			to := unix.SockaddrInet4{Port: 9, Addr: [4]byte{127, 0, 0, 1}}
			raw, _ := old[0].conn.SyscallConn()
			raw.Control(func(fd uintptr) { unix.Connect(int(fd), &to) })
			other, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			unix.SetsockoptInt(other, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
			if err := bindTo(other, d.cfg.Addr); err != nil {
				t.Fatal(err)
			}
			third := d.generation(2, 3)
			d.steer(third)
			answered := func() {
				t.Helper()
				for i := range 50 {
					c := dialUDP(t, d.cfg.Addr)
					if _, generation, err := ask(c, uint32(i)); err != nil || generation != 3 {
						t.Errorf("generation %d answers: %v", generation, err)
					}
					c.Close()
				}
			}
			answered()
			unix.Close(other)
			d.call(func() {
				d.group.noteStrangers()
				if err := d.group.reattach(); err != nil {
					t.Error(err)
				}
			})
			answered()
			for _, e := range slices.Concat(old, live, third) {
				e.leave()
			}
		})
	}
}

func TestDatagramsUnprivileged(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("already unprivileged")
	}
	asNobody(t, "^TestDatagram")
}

// A worker of another user than the group's gets a socket in the place of its own, whose
// owner stays what it was.
func TestDatagramOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make a socket of another user")
	}
	w, err := NewWatch()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	made := func(uid int) int {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Fchown(fd, uid, -1)
		}
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	probe := made(0)
	unix.Bind(probe, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	at, err := Bound(probe)
	unix.Close(probe)
	if err != nil {
		t.Fatal(err)
	}
	g, first, err := w.Bind(Config{Addr: at}, made(65534), 0)
	if err != nil {
		t.Fatal(err)
	}
	own := made(0)
	theirs, _ := unix.FcntlInt(uintptr(own), unix.F_DUPFD_CLOEXEC, 3) // the program's descriptor
	defer unix.Close(theirs)
	s, err := g.Bind(own, 1)
	if err != nil {
		t.Fatal(err)
	}
	if s.Inode() == inodeOf(theirs) || traitsOf(theirs).uid != 0 || traitsOf(s.FD()).uid != traitsOf(first.FD()).uid {
		t.Errorf("the program's socket is of user %d, the group's of %d and %d", traitsOf(theirs).uid, traitsOf(s.FD()).uid, traitsOf(first.FD()).uid)
	}
}

// A socket that was connected has left its group, also when it is connected no longer: the
// last one is in its place.
func TestDatagramDisconnected(t *testing.T) {
	d := ownDatagrams(t, Config{})
	echoes := d.generation(3, 1)
	d.steer(echoes)
	c, err := echoes[0].conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	c.Control(func(fd uintptr) {
		if err := unix.Connect(int(fd), &unix.SockaddrInet4{Port: 9, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			t.Error(err)
		}
		var unspec [16]byte
		if _, _, errno := unix.Syscall(unix.SYS_CONNECT, fd, uintptr(unsafe.Pointer(&unspec)), 16); errno != 0 {
			t.Error(errno)
		}
	})
	d.steer([]*echo{nil, echoes[1], echoes[2]})
	d.call(func() {
		if o := d.group.order; len(o) != 2 || o[0] != echoes[2].socket || o[1] != echoes[1].socket {
			t.Errorf("%d are in their places", len(o))
		}
	})
	d.steer([]*echo{nil, echoes[1], nil})
	for _, e := range echoes {
		e.leave()
	}
}
