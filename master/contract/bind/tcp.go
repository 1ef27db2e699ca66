package bind

import (
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"handoff/internal/bindintercept"
	"handoff/internal/linux"
	"handoff/master/contract"
	"handoff/master/listeners"
)

// The bind of a program's own socket is the kernel's, so that whatever the program sees of
// it is what it would see without handoff. It is a promise, which listen(2) keeps: then the
// socket becomes one of a held address, as it is.
//
//	bind ──► the kernel; with SO_REUSEPORT where another worker has the address
//	listen ──► not held: the socket is the first of a new address
//	           held: it joins those of the others
//	           a socket of the address waits for a worker: that one replaces it

// tcp answers a call about a TCP socket.
func (s *Session) tcp(e called) {
	r := e.call.About()
	s.releaseClosed(e)
	switch {
	case s.isBound(r):
		e.call.Continue() // EINVAL, says the kernel
	case r.Own != "" && s.table().LeaseOf(s.ID, r.Inode) == nil: // nothing but itself can hold it
		s.own(e.call, r.Own)
	case r.Listen:
		s.listens(e.call)
	case s.replaces(r):
		s.binds(e.call)
	default:
		s.bindsOwn(e)
	}
}

// isBound reports whether a socket that is to be bound has an address already. (One that had a
// connection only seems to.) A previous master may have given it, and not answered.
func (s *Session) isBound(r bindintercept.Request) bool {
	if r.Listen || s.restored && s.table().LeaseOf(s.ID, r.Inode) != nil {
		return false
	}
	return r.Listens || slices.ContainsFunc(s.promises, func(p tcpPromise) bool {
		return p.inode == r.Inode && r.Has.Port() != 0 && (p.at.Port() == 0 || bindintercept.Fits(r.Has, p.at))
	})
}

// replaces reports whether the program's socket is replaced at its bind already: where it
// cannot be seen, where its address is another than the program thinks, or its port the
// kernel's choice, where a service manager has passed one, and where it cannot join others:
// MPTCP, or of another user. (Its owner is not changed: before handoff has bound it, the
// program could bind it, by io_uring, beside any server of that user that has SO_REUSEPORT.)
func (s *Session) replaces(r bindintercept.Request) bool {
	if r.Blind || s.table().Private() || r.Addr.Port() == 0 || s.table().Passed(r.Addr, r.V6Only) {
		return true
	}
	beside := s.table().Overlapping(r.Addr, r.V6Only)
	if len(beside) == 0 || !r.MPTCP && r.User == beside[0].Owner() {
		return false
	}
	has, _ := s.hasOverlapping(r) // then it is the kernel's to say
	return !has || r.ReusePort
}

// own lets the program keep a socket that is not held.
func (s *Session) own(c call, why string) {
	r := c.About()
	c.Continue()
	if r.Listen {
		s.report(contract.Own{Addr: r.Addr, Why: why})
		s.report(contract.Listening{Own: true})
	}
}

// tcpPromise is a bind whose listen has not come.
type tcpPromise struct {
	at     netip.AddrPort
	v6only bool
	inode  uint64
	pid    int // the process that has bound it, by its descriptor fd
	fd     int
	alone  bool // the program has not set SO_REUSEPORT
	shares bool // but SO_REUSEADDR: it overlaps with others that have it, as long as none listens
}

// maxPromises limits a worker's promises; the oldest ones count no more then.
const maxPromises = contract.MaxLeases

// bindsOwn lets the kernel bind the program's socket.
func (s *Session) bindsOwn(e called) {
	r := e.call.About()
	if !s.contract.host.Holds(r.Addr) || s.table().Count(s.ID) >= contract.MaxLeases {
		e.call.Continue()
		return
	}
	// What its own socket does to it is the kernel's to say.
	switch has, alone := s.hasOverlapping(r); {
	case has && !r.ReusePort:
		s.notePromise(r)
		e.call.Continue()
		return
	case alone:
		s.notePromise(r)
		s.contract.aside(func() { e.call.Answer(e.call.BindAlone()) })
		return
	}
	overlapping := s.table().Overlapping(r.Addr, r.V6Only)
	beside := len(overlapping) > 0
	for _, a := range overlapping {
		a.Admit()
	}
	if !beside && s.table().Closing(r.Addr, r.V6Only, e.at) {
		if e.looks++; e.looks <= closingLooks {
			s.wait(e)
			return
		}
		beside = true
	}
	var shared []tcpPromise
	for _, o := range s.contract.others(s, r) {
		switch {
		case r.ReusePort, s.contract.host.Ready(o.session.ID): // with a lock: it does not listen
		case !e.expired:
			s.wait(e)
			return
		default:
			shared = append(shared, o.promise)
		}
	}
	master, err := s.table().Permits(r.Addr)
	if err != nil {
		s.refuse(e.call, listeners.TCP(r.Addr, r.V6Only), err)
		return
	}
	s.notePromise(r)
	if !beside && len(shared) == 0 && !master {
		e.call.Continue()
		return
	}
	// A worker may hold the lock of its socket: not in the loop.
	s.contract.aside(func() {
		for _, p := range shared {
			bindintercept.Share(p.pid, p.fd, p.inode)
		}
		if beside || len(shared) > 0 {
			e.call.Beside()
		}
		if master {
			e.call.Answer(e.call.Bind())
			return
		}
		e.call.Continue()
	})
}

// notePromise notes a bind. Whether it fails is known later (Request.Failed).
func (s *Session) notePromise(r bindintercept.Request) {
	s.promises = slices.DeleteFunc(s.promises, func(p tcpPromise) bool { return p.inode == r.Inode && p.at == r.Addr })
	if len(s.promises) >= maxPromises {
		s.promises = slices.Delete(s.promises, 0, 1)
	}
	s.promises = append(s.promises, tcpPromise{r.Addr, r.V6Only, r.Inode, r.TGID, r.FD, !r.ReusePort, r.ReuseAddr})
}

// hasOverlapping reports whether the worker itself has a socket that conflicts with what it
// binds; alone: one that listens, and that it has bound without SO_REUSEPORT.
func (s *Session) hasOverlapping(r bindintercept.Request) (has, alone bool) {
	for _, a := range s.table().Overlapping(r.Addr, r.V6Only) {
		if l := a.LeaseOf(s.ID); l != nil && !a.AtStart(s.ID) {
			has, alone = true, alone || l.Alone()
		}
	}
	return has || slices.ContainsFunc(s.promises, func(p tcpPromise) bool {
		return p.inode != r.Inode && !(p.shares && r.ReuseAddr) && listeners.Overlap(r.Addr, r.V6Only, p.at, p.v6only) && s.hasOpen(r.TGID, p.inode)
	}), alone
}

// promiseOf is a promise of a session.
type promiseOf struct {
	session *Session
	promise tcpPromise
}

// others are the promises of other workers that conflict with a bind. Those that a close, or
// an exit, has taken back are forgotten.
func (c *Contract) others(s *Session, r bindintercept.Request) (list []promiseOf) {
	for _, id := range c.ids() {
		o := c.sessions[id]
		if o == s || o.dead {
			continue
		}
		o.promises = slices.DeleteFunc(o.promises, func(p tcpPromise) bool {
			if !listeners.Overlap(r.Addr, r.V6Only, p.at, p.v6only) {
				return false
			}
			if !o.hasOpen(p.pid, p.inode) {
				return true
			}
			list = append(list, promiseOf{o, p})
			return false
		})
	}
	return list
}

// hasOpen reports whether the worker has a socket open: the process that is said to, or another
// one. One that has left the worker's tree of processes is looked for only if the socket seems
// to be closed.
func (s *Session) hasOpen(pid int, inode uint64) bool {
	return linux.OpenSockets([]int{pid, s.PID}, []uint64{inode}, maxLooks)[inode] || linux.OthersHave(inode, s.contract.keeper, maxOthers)
}

// releaseClosed ends the leases of sockets that the worker has closed.
func (s *Session) releaseClosed(e called) {
	r := e.call.About()
	if r.Blind || !s.table().Has(s.ID) {
		return
	}
	if s.table().ReleaseClosed(s.ID, func(inode uint64) bool { return inode == r.Inode || s.hasOpen(r.TGID, inode) }, e.at) {
		s.contract.host.Steer()
	}
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
	of := func(p tcpPromise) bool { return p.inode == r.Inode && (r.Blind || p.at.Port() == r.Addr.Port()) }
	// Else its port is the kernel's choice; a master that died may not have written the promise
	// down.
	i := slices.IndexFunc(s.promises, of)
	chosen := i < 0 && (!s.restored || linux.Ephemeral(r.Addr.Port()))
	alone := i >= 0 && s.promises[i].alone || i < 0 && !r.ReusePort
	if i >= 0 && s.promises[i].pid != r.TGID {
		s.boundFor(s.promises[i].pid)
	}
	s.promises = slices.DeleteFunc(s.promises, func(p tcpPromise) bool { return p.inode == r.Inode })
	port0 := netip.AddrPortFrom(r.Addr.Addr(), 0)
	switch {
	case r.Blind:
		c.Continue()
		s.report(contract.Blind{}) // on a port that the kernel chose, or one that is not to be held
		s.report(contract.Listening{Own: true})
	case r.Addr.Port() == 0, !s.contract.host.Holds(r.Addr), chosen && r.Listens && !s.contract.host.Holds(port0):
		c.Continue()
	case chosen && !s.contract.host.Holds(port0):
		s.own(c, contract.ChosenPort)
	case chosen:
		s.adopt(c, r, alone)
	default:
		s.keeps(c, r, alone)
	}
}

// keeps makes a socket that the program has bound one of a held address.
func (s *Session) keeps(c call, r bindintercept.Request, alone bool) {
	want := listeners.TCP(r.Addr, r.V6Only)
	l, err := s.kept(c, r, want)
	if err != nil {
		s.promises = append(s.promises, tcpPromise{r.Addr, r.V6Only, r.Inode, r.TGID, r.FD, alone, r.ReuseAddr}) // it is still bound
		s.refuse(c, want, err)
		return
	}
	s.noteBound(c)
	l.OwnFlags()
	l.SetAlone(alone)
	l.Listening()
	c.Answer(0)
	s.accepts()
}

// kept returns a lease for a socket that the program has bound to an address of its choice.
func (s *Session) kept(c call, r bindintercept.Request, want listeners.Endpoint) (*listeners.Lease, error) {
	a := s.table().At(r.Addr, r.V6Only)
	switch {
	case a != nil && (r.MPTCP || a.Waits(s.ID, s.Slot)):
		l, err := a.Give(s.ID, s.Slot)
		if err == nil {
			err = c.Give(l.FD())
		}
		return l, err
	case a != nil:
		fd, err := c.Socket()
		if err != nil {
			return nil, err
		}
		return a.Join(s.ID, s.Slot, fd)
	default:
		return s.first(c, r, want)
	}
}

// first makes the program's socket the first one of a new address.
func (s *Session) first(c call, r bindintercept.Request, want listeners.Endpoint) (*listeners.Lease, error) {
	fd, err := c.Socket()
	if err != nil {
		return nil, err
	}
	a, err := s.table().Adopt(want, fd)
	if err != nil {
		return nil, err
	}
	l, err := a.Claim(s.ID, s.Slot, r.Inode)
	if err == nil && l.Inode() != r.Inode {
		err = c.Give(l.FD()) // was MPTCP
	}
	return l, err
}

// adopt creates a held address from a port that the kernel has chosen for a program.
func (s *Session) adopt(c call, r bindintercept.Request, alone bool) {
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
	l.SetAlone(alone)
	l.Listening()
	c.Answer(0)
	s.accepts()
}

// chosen returns a lease for a socket whose port the kernel has chosen: of a new address,
// created from that socket, or, if another worker was first, of the existing address;
// then the program's port changes between its bind and its listen, and a held socket
// replaces its own.
func (s *Session) chosen(c call, r bindintercept.Request, want listeners.Endpoint) (*listeners.Lease, error) {
	a := s.table().Find(want)
	if a == nil {
		return s.first(c, r, want)
	}
	if a.LeaseOf(s.ID) != nil {
		return nil, unix.EADDRINUSE
	}
	l, err := a.Take(s.ID, s.Slot)
	if err == nil {
		err = c.Give(l.FD())
	}
	return l, err
}

// accepts: the worker listens on another address.
func (s *Session) accepts() {
	s.listened = true
	s.contract.host.Steer()
	s.report(contract.Listening{})
}
