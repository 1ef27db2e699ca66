package bind

import (
	"net/netip"

	"handoff/master/contract"
	"handoff/master/listeners"
)

// binds replaces the program's socket with a held one at its bind. Port 0 is different, since
// the program may intend to connect from it: the kernel chooses a port, and listen makes it a
// held address. Later workers get this address at their bind.
func (s *Session) binds(c call) {
	r := c.About()
	if r.Blind {
		s.report(contract.Blind{})
		// Two wildcards of one port: then the other one is of IPv4 alone.
		v4 := s.table().Find(listeners.TCP(netip.AddrPortFrom(netip.IPv4Unspecified(), r.Addr.Port()), false))
		r.V6Only = r.Addr.Addr() == netip.IPv6Unspecified() && v4 != nil && v4.LeaseOf(s.ID) != nil
	}
	if l := s.table().LeaseOf(s.ID, r.Inode); l != nil {
		if !s.restored {
			c.Continue() // it is bound: what another bind says is the kernel's
			return
		}
		// By the previous master, which did not answer.
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
	if want.Port == 0 {
		s.notePromise(r) // for a second bind, which is the kernel's to refuse
	}
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
	open := func(inode uint64) bool { return s.hasOpen(r.TGID, inode) }
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
