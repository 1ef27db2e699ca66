package bind

import (
	"slices"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
	"handoff/master/contract"
	"handoff/master/listeners"
)

// A UDP socket gets datagrams from its bind on, so that it is held from there, and counts as
// listening. It stays the program's own: the master binds it, in the order in which sockets
// join, by its duplicate.
//
// A worker that serves already may bind others to ask with: a resolver, for each question.
// Such a socket is bound in the same way, but not held, until another worker binds its
// address: then it was one to serve with.

// later is a socket that a worker has bound while it served.
type later struct {
	s     *Session
	pid   int
	fd    int
	inode uint64
	want  listeners.Endpoint
}

const maxLater = 256

// datagram answers a bind of a UDP socket.
func (s *Session) datagram(e called) {
	s.releaseClosed(e)
	c, r := e.call, e.call.About()
	closing := s.table().ClosingDatagram(r.Addr, r.V6Only, e.at)
	if l := s.table().LeaseOf(s.ID, r.Inode); l != nil {
		s.boundBefore(c, l)
		return
	}
	want := listeners.UDP(r.Addr, r.V6Only)
	a := s.table().Find(want)
	if r.Own != "" { // (SO_BROADCAST says nothing: Go sets it on every UDP socket)
		s.report(contract.Own{Addr: r.Addr, Why: r.Own})
		s.passes(c, closing)
		return
	}
	if r.Blind || r.Addr.Port() == 0 || r.Addr.Addr().IsMulticast() || !s.contract.host.Holds(r.Addr) || s.table().Count(s.ID) >= contract.MaxLeases {
		c.Continue()
		return
	}
	fd, err := c.Socket()
	if err != nil {
		c.Continue()
		return
	}
	if !s.restored && bound(fd) {
		unix.Close(fd)
		c.Continue() // EINVAL, says the kernel
		return
	}
	if a == nil && s.contract.holdLater(want) {
		a = s.table().Find(want)
	}
	if a == nil && s.table().IsTarget(s.ID) && s.bindLater(c, fd, want) {
		return
	}
	owner := s.owner(r.TGID, fd)
	owner.Beside = closing
	l, err := s.table().BindDatagram(owner, want, fd)
	if err != nil {
		unix.Close(fd)
		if err == listeners.ErrOwn && r.ReusePort { // the kernel would let it, since it is set on both now
			c.Answer(unix.EADDRINUSE)
			return
		}
		if err == listeners.ErrOwn {
			c.Continue()
			return
		}
		if r.ReusePort && contract.Errno(err) == unix.EADDRINUSE {
			c.Continue() // beside others, as it wants to be
			return
		}
		s.refuse(c, want, err)
		return
	}
	if l.Inode() != r.Inode {
		if err := c.Give(l.FD()); err != nil {
			s.report(contract.Unplaced{Address: l.Address(), Err: err})
			c.Continue()
			return
		}
	}
	s.noteBound(c)
	l.OwnFlags()
	c.Answer(0)
	s.accepts()
}

// passes lets the kernel bind a socket that is not held; closing: beside one that is being
// closed.
func (s *Session) passes(c call, closing bool) {
	if !closing {
		c.Continue()
		return
	}
	s.contract.aside(func() { // a worker may hold the lock of its socket: not in the loop
		c.Beside()
		c.Continue()
	})
}

// bound reports whether a socket of the internet has a port.
func bound(fd int) bool {
	switch sa, _ := unix.Getsockname(fd); sa := sa.(type) {
	case *unix.SockaddrInet4:
		return sa.Port != 0
	case *unix.SockaddrInet6:
		return sa.Port != 0
	}
	return false
}

// boundBefore answers a bind of a socket that is held: the previous master has not answered
// it, or it is a second one of a socket that is bound, EINVAL.
func (s *Session) boundBefore(c call, l *listeners.Lease) {
	if !s.restored {
		c.Continue()
		return
	}
	s.noteBound(c)
	s.report(contract.Resumed{Address: l.Address()})
	c.Answer(0)
	s.accepts()
}

// owner says which sockets the worker has.
func (s *Session) owner(pid, fd int) listeners.Owner {
	return listeners.Owner{Worker: s.ID, Slot: s.Slot, ReusePort: isOn(fd, unix.SO_REUSEPORT), ReuseAddr: isOn(fd, unix.SO_REUSEADDR),
		Open: func(inode uint64) bool { return s.hasOpen(pid, inode) }}
}

func isOn(fd, option int) bool {
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, option)
	return err == nil && n != 0
}

// bindLater binds a socket of a worker that serves, and reports whether it has answered.
func (s *Session) bindLater(c call, fd int, want listeners.Endpoint) bool {
	r := c.About()
	if r.Addr.Port() < uint16(linux.UnprivilegedPort()) {
		return false // nobody asks from such a port
	}
	if err := s.table().BindUnheld(want, fd); err != nil {
		unix.Close(fd)
		c.Continue() // the kernel says so, too
		return true
	}
	unix.Close(fd)
	c.Answer(0)
	list := s.contract.later
	if len(list) >= maxLater {
		list = slices.DeleteFunc(list, func(l later) bool { return !l.open() })
	}
	if len(list) >= maxLater {
		list = list[1:]
	}
	s.contract.later = append(list, later{s, r.TGID, r.FD, r.Inode, want})
	return true
}

// open reports whether the worker still has the socket, under the same descriptor.
func (l later) open() bool {
	inode, _, err := linux.SocketOf(l.pid, l.fd)
	return err == nil && inode == l.inode
}

// holdLater holds a socket that a worker has bound later, if it is still open.
func (c *Contract) holdLater(want listeners.Endpoint) bool {
	i := slices.IndexFunc(c.later, func(l later) bool { return l.want == want && l.open() })
	if i < 0 {
		return false
	}
	l := c.later[i]
	c.later = slices.Delete(c.later, i, i+1)
	p, err := linux.OpenPidfd(l.pid)
	if err != nil {
		return false
	}
	defer p.Close()
	fd, err := p.Getfd(l.fd)
	if err != nil {
		return false
	}
	if inodeOf(fd) != l.inode {
		unix.Close(fd)
		return false
	}
	if _, err := c.host.Listeners().AdoptDatagram(l.s.owner(l.pid, fd), want, fd); err != nil {
		unix.Close(fd)
		return false
	}
	c.host.Steer()
	return true
}

func inodeOf(fd int) uint64 {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return 0
	}
	return st.Ino
}

// forgetLater forgets the sockets of a session that has ended.
func (c *Contract) forgetLater(s *Session) {
	c.later = slices.DeleteFunc(c.later, func(l later) bool { return l.s == s })
}
