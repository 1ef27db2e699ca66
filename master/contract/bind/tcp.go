package bind

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"handoff/internal/bindintercept"
	"handoff/internal/linux"
	"handoff/master/contract"
	"handoff/master/listeners"
)

// tcp answers a call about a TCP socket.
func (s *Session) tcp(e called) {
	if e.call.About().Listen {
		s.listens(e.call)
	} else {
		s.binds(e.call)
	}
}

// binds replaces the program's socket with a held one. Port 0 is different, since the
// program may intend to connect from it: the kernel chooses a port, and listen makes it a
// held address. Later workers get this address at their bind.
func (s *Session) binds(c call) {
	r := c.About()
	if r.Blind {
		s.report(contract.Blind{})
		// Two wildcards of one port: then the other one is of IPv4 alone.
		v4 := s.table().Find(listeners.TCP(netip.AddrPortFrom(netip.IPv4Unspecified(), r.Addr.Port()), false))
		r.V6Only = r.Addr.Addr() == netip.IPv6Unspecified() && v4 != nil && v4.LeaseOf(s.ID) != nil
	}
	if l := s.table().LeaseOf(s.ID, r.Inode); l != nil { // by the previous master, which did not answer
		s.noteBound(c)
		l.OwnFlags()
		s.report(contract.Resumed{Address: l.Address()})
		c.Answer(0)
		return
	}
	want := listeners.TCP(r.Addr, r.V6Only)
	if want.Port == 0 {
		want.Index = s.ports
	}
	a := s.table().Find(want)
	if !s.contract.host.Holds(r.Addr) || want.Port == 0 && (a == nil || a.LeaseOf(s.ID) != nil) || s.table().Count(s.ID) >= contract.MaxLeases {
		c.Continue()
		return
	}
	if a == nil {
		var err error
		if a, err = s.table().Open(want); err != nil {
			s.refuse(c, want, err)
			return
		}
	}
	open := func(inode uint64) bool { return linux.HasSocket(s.PID, inode, maxLooks) }
	l, err := a.Retake(s.ID, s.Slot, open, r.ReusePort)
	if err != nil {
		s.refuse(c, want, err)
		return
	}
	if err := c.Give(l.FD()); err != nil {
		s.report(contract.Unplaced{Address: a, Err: err})
		c.Continue()
		return
	}
	s.noteBound(c)
	l.OwnFlags()
	if want.Port == 0 {
		s.ports++
	}
	c.Answer(0)
}

// listens handles listen, the sign that a program accepts. A held socket already listens,
// with the largest backlog, so the call is not executed.
func (s *Session) listens(c call) {
	r := c.About()
	if l := s.table().LeaseOf(s.ID, r.Inode); l != nil {
		l.Listening()
		c.Answer(0)
		s.accepts()
		return
	}
	if r.Addr.Port() == 0 || !s.contract.host.Holds(r.Addr) {
		c.Continue()
		if r.Blind { // on a port that the kernel chose, or one that is not to be held
			s.report(contract.Blind{})
			s.report(contract.Listening{Own: true})
		}
		return
	}
	s.adopt(c, r)
}

// adopt creates a held address from a port that the kernel has chosen for a program.
func (s *Session) adopt(c call, r bindintercept.Request) {
	want := listeners.TCP(netip.AddrPortFrom(r.Addr.Addr(), 0), r.V6Only)
	want.Index = s.ports
	l, err := s.chosen(c, r, want)
	if err != nil {
		s.refuse(c, want, err)
		return
	}
	s.ports++
	s.noteBound(c)
	l.OwnFlags()
	l.Listening()
	c.Answer(0)
	s.accepts()
}

// chosen returns a lease for a socket whose port the kernel has chosen: of a new address,
// created from that socket, or, if another worker was first, of the existing address;
// then the program's port changes between its bind and its listen, and a held socket
// replaces its own.
func (s *Session) chosen(c call, r bindintercept.Request, want listeners.Endpoint) (*listeners.Lease, error) {
	if a := s.table().Find(want); a != nil {
		if a.LeaseOf(s.ID) != nil {
			return nil, unix.EADDRINUSE
		}
		l, err := a.Take(s.ID, s.Slot)
		if err == nil {
			err = c.Give(l.FD())
		}
		return l, err
	}
	fd, err := c.Socket()
	if err != nil {
		return nil, err
	}
	a, err := s.table().Adopt(want, fd)
	if err != nil {
		return nil, err
	}
	l, err := a.Take(s.ID, s.Slot)
	if err == nil && l.Inode() != r.Inode {
		err = c.Give(l.FD()) // was MPTCP
	}
	return l, err
}

// accepts: the worker listens on another address.
func (s *Session) accepts() {
	s.contract.host.Steer()
	s.report(contract.Listening{})
}
