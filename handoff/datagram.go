package handoff

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// A group of UDP has the sockets that programs have created, bound here. A datagram socket is
// a member of its group from bind(2) on, so the order of those calls is the kernel's index
// order. Their options are the programs' own, and no socket is made or reset by the group.
//
//   - The first is bound with its program attached already: the kernel refuses such a
//     socket beside any other (EADDRINUSE), while later ones, which have only
//     SO_REUSEPORT, can join it (udp_lib_lport_inuse).
//   - A client, by address and port, has the same slot across generations.
//   - A socket whose worker is gone is parked until the next one joins: the new socket
//     moves into its index when it is closed.
//   - connect(2) takes a socket out of its group, and the last one moves into its place.

// errNoSpare means that a worker must join with its own socket.
var errNoSpare = errors.New("no worker has left one")

// BindAlone binds a program's datagram socket, of which fd is a duplicate, as Bind does, and
// keeps nothing of it: [Watch.AdoptDatagram] can begin a group with it later.
func (w *Watch) BindAlone(fd int, addr netip.AddrPort) error {
	s := &Socket{group: &Group{watch: w, addr: addr}, fd: fd}
	return s.locking(func(fd int) error {
		_, err := bindFirstDatagram(fd, addr)
		return err
	})
}

// bindFirstDatagram binds a socket so that it can begin a group: nobody else can have the
// address, but a socket that joins. Where the kernel has no programs, steerable is false.
func bindFirstDatagram(fd int, addr netip.AddrPort) (steerable bool, err error) {
	if !local(addr) { // else it would keep the program, and could join no group later
		if err := bindTo(fd, addr); err != nil {
			return false, err
		}
		err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		return err == nil && attach(fd, randomOf([]int{0})) == nil, err
	}
	had, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT)
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return false, err
	}
	if steerable = attach(fd, randomOf([]int{0})) == nil; !steerable { // else others could have it, too
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 0)
	}
	if err := bindTo(fd, addr); err != nil { // it is the program's again
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, had)
		return false, err
	}
	return steerable, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
}

// local reports whether an ordinary socket can be bound to an address of this host.
func local(addr netip.AddrPort) bool {
	sa, family := sockaddr(netip.AddrPortFrom(addr.Addr(), 0))
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return true
	}
	defer unix.Close(fd)
	return unix.Bind(fd, sa) == nil
}

// Bind binds the datagram socket that a worker in slot has created, of which fd is a
// duplicate, as the first of a new group. The group owns fd, unless there is an error: the
// kernel's. cfg.Addr is the address. Without steering, datagrams go there at once.
func (w *Watch) Bind(cfg Config, fd, slot int) (*Group, *Socket, error) {
	cfg.Datagram, cfg.Balance = true, Sticky
	g := &Group{watch: w, cfg: cfg, addr: cfg.Addr, hash: cfg.NoProgram}
	err := (&Socket{group: g, fd: fd}).locking(func(fd int) error {
		if cfg.Beside {
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
				return err
			}
			return bindTo(fd, cfg.Addr)
		}
		steerable, err := bindFirstDatagram(fd, cfg.Addr)
		if g.hash = g.hash || !steerable; steerable {
			g.program = randomOf([]int{0})
		}
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	return w.beginDatagrams(g, fd, slot)
}

// AdoptDatagram begins a group with a worker's socket that [Watch.BindAlone] has bound.
func (w *Watch) AdoptDatagram(cfg Config, fd, slot int) (*Group, *Socket, error) {
	cfg.Datagram, cfg.Balance = true, Sticky
	g := &Group{watch: w, cfg: cfg, addr: cfg.Addr, hash: cfg.NoProgram}
	s := &Socket{group: g, fd: fd}
	p := randomOf([]int{0})
	if !g.hash && s.locking(func(fd int) error { return attach(fd, p) }) == nil {
		g.program = p
	} else {
		g.hash = true
	}
	return w.beginDatagrams(g, fd, slot)
}

func (w *Watch) beginDatagrams(g *Group, fd, slot int) (*Group, *Socket, error) {
	g.traits = traitsOf(fd)
	s, err := g.join(fd, slot)
	if err != nil {
		return nil, nil, err
	}
	w.groups = append(w.groups, g)
	g.hand(s, slot)
	return g, s, nil
}

// Bind binds the datagram socket that a worker in slot has created, of which fd is a
// duplicate: it joins the group. The group owns fd, unless there is an error: the kernel's.
// Nothing is steered to it before [Group.Steer]. If it belongs to another user than the
// group's, the group makes one in its place, which has another inode.
func (g *Group) Bind(fd, slot int) (*Socket, error) {
	if !g.cfg.Datagram {
		return nil, unix.EINVAL
	}
	if g.noteStrangers() {
		if err := g.reattach(); err != nil {
			return nil, err
		}
	}
	n := inodeOf(fd)
	if i := slices.IndexFunc(g.order, func(s *Socket) bool { return s.inode == n }); i >= 0 {
		return g.placed(i, fd, slot)
	}
	own := fd
	if g.Owner() != traitsOf(fd).uid {
		// The owner of the program's socket is not changed: it could bind it, by io_uring,
		// beside any server of that user that has SO_REUSEPORT.
		var err error
		if fd, err = g.datagramSocket(); err != nil {
			return nil, err
		}
	}
	s, err := g.bind(fd, slot)
	if fd != own {
		if err != nil {
			unix.Close(fd)
		} else {
			go unix.Close(own) // a worker's, perhaps the last duplicate
		}
	}
	return s, err
}

// datagramSocket returns a socket of the group's user.
func (g *Group) datagramSocket() (fd int, err error) {
	_, family := sockaddr(g.addr)
	if fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return -1, err
	}
	if family == unix.AF_INET6 {
		only := 0
		if g.cfg.V6Only {
			only = 1
		}
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only)
	}
	if err == nil {
		err = unix.Fchown(fd, g.Owner(), -1) // root's alone
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (g *Group) bind(fd, slot int) (*Socket, error) {
	err := (&Socket{group: g, fd: fd}).locking(func(fd int) error {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			return err
		}
		return bindTo(fd, g.addr)
	})
	if err != nil {
		return nil, err
	}
	s, err := g.join(fd, slot)
	if err != nil {
		return nil, err
	}
	if g.program == nil && g.Steerable() { // it had a group of its own until now
		if err := g.attach(randomOf([]int{0})); err != nil {
			g.watch.later(Failed{g, err})
		}
	}
	g.hand(s, slot)
	if g.watch.Grown != nil {
		g.watch.Grown(g)
	}
	g.dropParked()
	return s, nil
}

// placed hands out a socket that has a place: a previous owner has bound it, and has not
// written that down.
func (g *Group) placed(i, fd, slot int) (*Socket, error) {
	if !g.order[i].stranger {
		return nil, unix.EINVAL
	}
	s := &Socket{group: g, fd: fd, inode: g.order[i].inode, slot: slot, born: g.order[i].born, foreign: true}
	if err := g.watch.add(s); err != nil {
		g.watch.remove(s)
		return nil, err
	}
	g.order[i] = s
	g.hand(s, slot)
	return s, nil
}

// Waiting reports whether a worker in slot must take the socket of one that has ended:
// datagrams wait in it, or clients are steered to it; where the kernel refuses the program,
// a slot's socket passes from worker to worker.
func (g *Group) Waiting(slot int) bool { return g.pick(slot) != nil }

// dropParked removes one socket that no worker has and in which nothing waits: the last of
// the group, which has just joined and is not steered to yet, moves into its place.
//
// The kernel finds the group by the first of its sockets in a hash chain. If just that one
// is being closed, and is out of the group but not of the chain yet, a datagram goes to it,
// and is lost (udp6_lib_lookup2, reuseport_detach_sock; 1 in 20 000 in
// TestDatagramHandoversLoseNothing). In the chain of IPv4 the newest is the first, in that
// of IPv6 the oldest, which stays open therefore.
func (g *Group) dropParked() {
	last := g.order[len(g.order)-1]
	var first *Socket
	if g.addr.Addr().Is6() {
		first = slices.MinFunc(g.order, func(a, b *Socket) int { return cmp.Compare(a.born, b.born) })
	}
	for _, s := range g.order {
		if s == last || s == first || s.stranger || !s.quiet || s.Held() || s.reserved || g.isTarget(s) || s.Pending() > 0 {
			continue
		}
		// A closed one stays a member as long as anybody has a duplicate, as the keeper may.
		if s.locking(away) != nil || g.member(s) {
			continue
		}
		g.watch.remove(s)
		g.leave(s)
		s.closed = true
		unix.Close(s.fd)
		g.watch.later(Renewed{g, s})
		return
	}
}

// noteConnected notes that a socket is no longer in the kernel's group, since its program
// has connected it. It reports whether that is new.
func (g *Group) noteConnected(s *Socket) bool {
	if s.closed || !slices.Contains(g.order, s) {
		return false
	}
	if g.member(s) { // up to Linux 6.12 one that was bound to a host's address stays in its place
		return false
	}
	g.leave(s)
	return true
}

// member reports whether a socket is in the kernel's group, as far as is known: the kernel
// attaches no program to one that is in none (EINVAL).
func (g *Group) member(s *Socket) bool {
	p := g.program
	return p != nil && !errors.Is(s.locking(func(fd int) error { return attach(fd, p) }), unix.EINVAL)
}

// connected reports whether a datagram socket has a peer: it gets no other datagrams.
func (s *Socket) connected() bool {
	_, err := unix.Getpeername(s.fd)
	return err == nil
}

// datagrams is 1 if a datagram waits in the socket.
func (s *Socket) datagrams() int {
	const soMeminfo, rmemAlloc = 55, 0 // SO_MEMINFO, SK_MEMINFO_RMEM_ALLOC
	b, ok := getOption(s.fd, unix.SOL_SOCKET, soMeminfo)
	if !ok || len(b) < 4 || binary.NativeEndian.Uint32(b[4*rmemAlloc:]) == 0 {
		return 0
	}
	return 1
}

func (g *Group) protocol() byte {
	if g.cfg.Datagram {
		return unix.IPPROTO_UDP
	}
	return unix.IPPROTO_TCP
}

func bindTo(fd int, addr netip.AddrPort) error {
	sa, _ := sockaddr(addr)
	if err := unix.Bind(fd, sa); err != nil {
		return fmt.Errorf("cannot bind udp %v: %w", addr, err)
	}
	return nil
}

// datagramProgram sends a client, by address and port, to the same target, as
// stickyProgram does; a worker's several sockets share its clients.
func datagramProgram(targets [][]int) program {
	return keyedProgram(flowKey(), targets, ofKey)
}

// flowKey loads the client's address and port into A. After IPv6 extension headers, other
// bytes of the flow are in the port's place.
func flowKey() program {
	return program{
		{Code: ldBAbs, K: netOff}, // version, and the length of IPv4's header
		{Code: st, K: 1},
		{Code: rshK, K: 4},
		{Code: jeqK, Jt: 10, K: 6},
		{Code: ldMem, K: 1},
		{Code: andK, K: 0xf},
		{Code: lshK, K: 2},
		{Code: tax},
		{Code: ldHInd, K: netOff}, // source port
		{Code: mulK, K: 0x9e3779b1},
		{Code: tax},
		{Code: ldWAbs, K: netOff + 12},
		{Code: xorX},
		{Code: ja, K: 9},
		{Code: ldWAbs, K: netOff + 8},
		{Code: mulK, K: 0x01000193},
		{Code: tax},
		{Code: ldWAbs, K: netOff + 12},
		{Code: xorX},
		{Code: tax},
		{Code: ldHAbs, K: netOff + 40},
		{Code: mulK, K: 0x9e3779b1},
		{Code: xorX},
	}
}

// ofKey chooses one of indexes by the mixed key.
func ofKey(indexes []int) program {
	p := append(remix(0x85ebca6b), unix.SockFilter{Code: modK, K: uint32(len(indexes))})
	return append(p, choose(indexes)...)
}
