package handoff

import (
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// Join makes a socket that a program has bound to the group's address, and does not listen
// on yet, the worker's of that slot: it listens then, and is the last in the kernel's order.
// The group owns fd, a duplicate. A parked socket that nobody needs leaves for it, so that
// the group does not grow. [Socket.Release] parks it, as one that [Group.Take] returns.
//
// It is for a group that can be steered, and sockets of the group's user with SO_REUSEPORT.
func (g *Group) Join(fd, slot int) (*Socket, error) {
	s, err := g.joinOwn(fd, slot)
	if err != nil {
		return nil, fmt.Errorf("cannot take a program's own socket into %v: %w", g.addr, err)
	}
	g.claim(s, slot)
	g.dropSpare()
	return s, nil
}

// Claim gives a worker the socket that [Watch.Adopt] has made the group's first, and that
// the worker has created; nil: that one has another inode.
func (g *Group) Claim(inode uint64, slot int) *Socket {
	i := slices.IndexFunc(g.order, func(s *Socket) bool { return s.inode == inode && !s.stranger && !s.Held() })
	if i < 0 {
		return nil
	}
	g.claim(g.order[i], slot)
	return g.order[i]
}

func (g *Group) claim(s *Socket, slot int) {
	s.ownFlags = true
	s.had = map[string][]byte{}
	for _, o := range options {
		if v, ok := getOption(s.fd, o.level, o.id); ok && o.report {
			s.had[o.name] = v
		}
	}
	s.filtered = hasFilter(s.fd)
	g.hand(s, slot)
}

// Admit has the kernel bind another socket to the group's address, and put it into the group:
// a holder may have cleared SO_REUSEPORT, which [Watch.Collect] sees later.
func (g *Group) Admit() {
	for _, s := range g.Sockets() {
		if on, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_REUSEPORT); s.closed || err != nil || on != 0 {
			continue
		}
		g.watch.later(Repaired{g, s, "cleared SO_REUSEPORT on the listening socket"})
		if err := s.locking(func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) }); err != nil {
			g.watch.later(Failed{g, err})
		}
	}
}

// V6Only reports whether the group is of an IPv6 wildcard without IPv4.
func (g *Group) V6Only() bool { return g.cfg.V6Only }

func (g *Group) joinOwn(fd, slot int) (*Socket, error) {
	if isMPTCP(fd) || !g.Steerable() {
		unix.Close(fd)
		return nil, unix.EOPNOTSUPP
	}
	if s := g.known(fd, slot); s != nil {
		return s, nil
	}
	const tries = 4
	for try := range tries {
		g.Admit()
		strange, shut := g.noteStrangers(), g.noteShutdowns()
		if strange || shut {
			if err := g.reattach(); err != nil {
				unix.Close(fd)
				return nil, err
			}
		}
		s, err := g.join(fd, slot)
		if err != nil {
			return nil, err
		}
		if members, ok := g.members(); (!ok || len(g.newcomers(members)) == 0) && (try == tries-1 || !g.anyShut()) {
			return s, nil
		}
		// As in grow; it stays bound, and listens again.
		err = s.shutdown()
		g.watch.remove(s)
		g.leave(s)
		if err != nil {
			s.discard()
			return nil, err
		}
	}
	unix.Close(fd)
	return nil, unix.EBUSY
}

// known returns the socket if it listens already: an earlier owner of the group has ended
// in the middle, and it has been taken for a stranger's.
func (g *Group) known(fd, slot int) *Socket {
	g.noteStrangers()
	n := inodeOf(fd)
	i := slices.IndexFunc(g.order, func(s *Socket) bool { return s.stranger && s.inode == n })
	if i < 0 {
		return nil
	}
	s := &Socket{group: g, fd: fd, inode: n, slot: slot}
	if g.watch.add(s) != nil {
		g.watch.remove(s)
		return nil
	}
	g.order[i] = s
	return s
}

// dropSpare closes a parked socket to which nothing can come. The kernel moves the last
// socket of the group into its place: the one that has just joined, which the attached
// program does not name, so that it stays right at every instant.
func (g *Group) dropSpare() {
	last := g.order[len(g.order)-1]
	if last.stranger || g.isTarget(last) {
		return
	}
	for _, s := range g.order {
		if s == last || s.stranger || s.shut || s.closed || s.Held() || s.reserved || s.accepting || s.stuck() || g.isTarget(s) ||
			len(g.targets) == 0 || s.used && !s.quiet || s.Pending() > 0 || !s.listening() {
			continue
		}
		if g.watch.Grown != nil {
			g.watch.Grown(g)
		}
		if err := g.drop(s); err != nil {
			g.watch.later(Failed{g, err})
		} else if err := g.reattach(); err != nil {
			g.watch.later(Failed{g, err})
		}
		return
	}
}

// Waits reports whether a socket of the group waits for a worker of that slot: one that is
// still steered to, or has connections in its queue, because its worker has died. A program
// gets it with [Group.Take] then, in the place of its own; also if there is no steering.
func (g *Group) Waits(slot int) bool {
	if !g.Steerable() {
		return true
	}
	s, rank := g.best(slot)
	return s != nil && rank > rankParked
}

// Owner is the user to which a socket must belong to be bound beside the group's.
func (g *Group) Owner() int { return g.traits.uid }

// traits are what decides whether one more socket can be bound to an address.
type traits struct {
	uid                   int // of the socket; the kernel lets sockets of one user share an address
	freebind, transparent bool
}

func traitsOf(fd int) traits {
	t := traits{uid: os.Geteuid()}
	var st unix.Stat_t
	if unix.Fstat(fd, &st) == nil {
		t.uid = int(st.Uid)
	}
	on := func(name int) bool {
		v, err := unix.GetsockoptInt(fd, unix.IPPROTO_IP, name)
		return err == nil && v == 1
	}
	t.freebind, t.transparent = on(unix.IP_FREEBIND), on(unix.IP_TRANSPARENT)
	return t
}

// apply gives them to a new socket. A user who cannot do so binds it as it is.
func (t traits) apply(fd int) error {
	if t == (traits{}) {
		return nil
	}
	if t.uid != os.Geteuid() {
		unix.Fchown(fd, t.uid, -1)
	}
	if t.freebind {
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_FREEBIND, 1)
	}
	if t.transparent {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TRANSPARENT, 1)
	}
	return nil
}

func isMPTCP(fd int) bool {
	protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	return err == nil && protocol == unix.IPPROTO_MPTCP
}

// discard closes the descriptor of a socket that did not become a member. A program has
// another of it; if it is gone, close(2) waits for its SO_LINGER.
func (s *Socket) discard() {
	fd := s.fd
	go unix.Close(fd) // ends with its SO_LINGER, at the latest
}
