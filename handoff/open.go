package handoff

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Listen opens an address. It returns the kernel's error: errors.Is(err,
// unix.EADDRINUSE), also for a second instance of the same user.
func (w *Watch) Listen(cfg Config) (*Group, error) {
	if !cfg.Addr.IsValid() {
		return nil, fmt.Errorf("cannot bind %v: %w", cfg.Addr, unix.EINVAL)
	}
	var fd int
	var err error
	if cfg.Beside {
		fd, err = bind(cfg.Addr, cfg.V6Only, false, traits{})
	} else {
		fd, err = bindFirst(cfg.Addr, cfg.V6Only)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot bind %v: %w", cfg.Addr, err)
	}
	return w.begin(cfg, fd)
}

// Adopt creates a group from a socket that a program has bound and does not listen on
// yet; cfg.Addr is ignored. The group owns fd, a duplicate. From an MPTCP socket, to which
// the kernel attaches no program, it takes only the port: the group's first socket is
// then a new TCP socket, with another inode, which must replace fd.
func (w *Watch) Adopt(cfg Config, fd int) (*Group, error) {
	s := &Socket{group: &Group{watch: w}, fd: fd}
	var at netip.AddrPort
	mptcp := isMPTCP(fd)
	err := s.locking(func(fd int) (err error) {
		if at, err = Bound(fd); err == nil && mptcp {
			err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		}
		return err
	})
	if err != nil {
		s.discard()
		return nil, fmt.Errorf("cannot adopt a socket: %w", err)
	}
	if mptcp {
		// Both have SO_REUSEPORT, so that both can be bound. A socket of another user is
		// adopted as it is.
		if tcp, err := bind(at, cfg.V6Only, false, traitsOf(fd)); err == nil {
			s.discard()
			fd = tcp
		}
	}
	cfg.Addr = at
	return w.begin(cfg, fd)
}

// Inherit creates a group from a socket of another process, for example a service
// manager, which may have a duplicate and already listen on it; cfg.Addr is ignored. The
// group owns fd. If no other socket can be bound to the address (a privileged port, a
// socket of another user), the balance is Shared regardless of cfg, and why is the
// reason.
func (w *Watch) Inherit(cfg Config, fd int) (g *Group, why error, err error) {
	at, err := Bound(fd)
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		unix.Close(fd)
		return nil, nil, fmt.Errorf("cannot use a socket of the service manager: %w", err)
	}
	cfg.Addr = at
	g = &Group{watch: w, cfg: cfg, addr: at, traits: traitsOf(fd), hash: cfg.NoProgram}
	first, err := g.join(fd, 0)
	if err != nil {
		return nil, nil, err
	}
	first.foreign = true
	w.groups = append(w.groups, g)
	_, g.backlog, _ = first.queue()
	if cfg.Balance == Shared {
		return g, nil, nil
	}
	// A socket that has listened without SO_REUSEPORT is in no group, and takes
	// no program (EINVAL), until a second one joins it (reuseport_add_sock in
	// the kernel's net/core/sock_reuseport.c).
	second := -1
	if protocol, perr := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL); perr != nil || protocol != unix.IPPROTO_TCP {
		why = errors.New("not a plain TCP socket (MPTCP?)") // its TCP socket is not accessible
	} else if second, why = bind(at, cfg.V6Only, false, g.traits); why == nil {
		_, why = g.join(second, 1)
	}
	if why != nil {
		g.cfg.Balance = Shared
		return g, fmt.Errorf("cannot bind another socket to %v: %w", at, why), nil
	}
	if !g.hash {
		g.hash = g.attach(randomOf([]int{0})) != nil
	}
	return g, nil, nil
}

// begin creates a group from its first socket, which is bound.
func (w *Watch) begin(cfg Config, fd int) (*Group, error) {
	g := &Group{watch: w, cfg: cfg, traits: traitsOf(fd), hash: cfg.NoProgram}
	at, err := Bound(fd)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	g.addr = netip.AddrPortFrom(cfg.Addr.Addr(), at.Port()) // with its zone, if it has one
	g.stepAside()
	first, err := g.join(fd, 0)
	if err != nil {
		return nil, err
	}
	w.groups = append(w.groups, g)
	_, g.backlog, _ = first.queue()
	if !g.hash && cfg.Balance != Shared {
		g.hash = g.attach(randomOf([]int{0})) != nil
	}
	return g, nil
}

// bindFirst binds exclusively. For port 0, one bind chooses the port, and another binds
// to its number: a socket that was bound to port 0 has no SOCK_BINDPORT_LOCK, so that
// listening again after a worker's shutdown(2) would give it another port (found by
// TestShutdownByAWorkerIsRepaired).
func bindFirst(addr netip.AddrPort, v6only bool) (fd int, err error) {
	for range 16 {
		if fd, err = bind(addr, v6only, true, traits{}); err != nil || addr.Port() != 0 {
			return fd, err
		}
		chosen, err := Bound(fd)
		unix.Close(fd)
		if err != nil {
			return -1, err
		}
		// Another process may have taken it; then try another port.
		if fd, err = bind(netip.AddrPortFrom(addr.Addr(), chosen.Port()), v6only, true, traits{}); err == nil {
			return fd, nil
		}
	}
	return -1, unix.EADDRINUSE
}

// State is what another process needs to continue with a group, besides the descriptors.
type State struct {
	Addr      netip.AddrPort
	Datagram  bool
	V6Only    bool
	Balance   Balance
	Steerable bool
	Hidden    bool          // see Group.Hide
	Aside     bool          // see Group.Show
	Sockets   []SocketState // in the kernel's order
}

// SocketState is of one socket.
type SocketState struct {
	Inode    uint64 // identifies the socket
	Slot     int
	Born     int  // in which order they have joined
	OwnFlags bool // see Socket.OwnFlags
	Foreign  bool // somebody else has created it, and set its options
	Stranger bool // it is another program's
	Holders  int  // workers that have a duplicate
	Waits    bool // connections are let wait here, see Group.LetWait
}

// State returns what another process needs to continue with the group.
func (g *Group) State() State {
	s := State{Addr: g.addr, Datagram: g.cfg.Datagram, V6Only: g.cfg.V6Only, Balance: g.cfg.Balance, Steerable: g.Steerable(), Hidden: g.Hidden(), Aside: g.aside}
	for _, o := range g.order {
		s.Sockets = append(s.Sockets, SocketState{o.inode, o.slot, o.born, o.ownFlags, o.foreign, o.stranger, o.holders, o.waits})
	}
	return s
}

// Restore creates a group from the state of an earlier owner. fd returns the descriptor
// of a socket, which the group owns from then on, or -1 if it was not kept: such a socket
// must be closed in every process. Restore changes nothing in the kernel: the targets
// remain those of the earlier owner until [Group.Steer]. On error it closes the
// descriptors.
func (w *Watch) Restore(state State, fd func(inode uint64) int) (*Group, error) {
	g := &Group{watch: w, cfg: Config{Addr: state.Addr, Datagram: state.Datagram, V6Only: state.V6Only, Balance: state.Balance}, addr: state.Addr, hash: !state.Steerable, hidden: state.Hidden || state.Aside, aside: state.Aside}
	var gone []int // places of missing sockets
	for i, s := range state.Sockets {
		if s.Stranger {
			g.order = append(g.order, &Socket{group: g, fd: -1, inode: s.Inode, slot: -1, stranger: true, closed: true})
			continue
		}
		n := fd(s.Inode)
		if n >= 0 && s.Holders == 0 && !state.Datagram && !listens(n) { // it was being replaced
			unix.Close(n)
			n = -1
		}
		if n < 0 {
			gone = append(gone, i)
		}
		g.order = append(g.order, &Socket{group: g, fd: n, inode: s.Inode, slot: s.Slot, born: s.Born, ownFlags: s.OwnFlags, foreign: s.Foreign, holders: s.Holders, used: true, waits: s.Waits})
	}
	// The kernel has moved the last socket of the group into the place of a closed one
	// (reuseport_detach_sock).
	for _, i := range slices.Backward(gone) {
		g.leave(g.order[i])
	}
	own := g.Sockets()
	if err := g.check(); err != nil {
		for _, s := range own {
			unix.Close(s.fd)
		}
		return nil, fmt.Errorf("cannot take over %v: %w", state.Addr, err)
	}
	for i, s := range own {
		if err := w.add(s); err != nil {
			for _, s := range own[:i+1] {
				w.remove(s)
			}
			for _, s := range own {
				unix.Close(s.fd)
			}
			return nil, fmt.Errorf("cannot take over %v: %w", state.Addr, err)
		}
	}
	w.groups = append(w.groups, g)
	g.traits = traitsOf(own[0].fd)
	_, g.backlog, _ = own[0].queue()
	for _, s := range own {
		if s.waits { // there is no worker that the owner could steer to
			g.targets, g.places = append(g.targets, s), append(g.places, len(g.places))
		}
	}
	g.balance.reset(len(g.targets))
	return g, nil
}

// check returns an error if a socket is not bound to the group's address.
func (g *Group) check() error {
	if len(g.Sockets()) == 0 {
		return unix.ENOENT
	}
	for _, s := range g.Sockets() {
		at, err := Bound(s.fd)
		if err != nil {
			return err
		}
		if at.Port() != g.addr.Port() {
			return fmt.Errorf("descriptor %d is bound to %v", s.fd, at)
		}
	}
	return nil
}
