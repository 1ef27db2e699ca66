package handoff

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Socket is one listening socket of a [Group], which owns its descriptor.
type Socket struct {
	group     *Group
	fd        int
	inode     uint64
	slot      int  // the last slot that took it
	born      int  // higher than of all that were in the group when it joined
	holders   int  // workers that have a duplicate
	reserved  bool // parked, and not for [Group.Take]
	ownFlags  bool // its holder decides about O_NONBLOCK
	shut      bool // does not listen, and is out of the group's record
	closed    bool
	locked    <-chan struct{}   // closed when a call that waits for the socket's lock returns; nil: none does
	accepting bool              // Accept is running
	stranger  bool              // another program's, of which only the place is known; it counts as closed
	had       map[string][]byte // options that its program had set before it listened, by name
	filtered  bool              // likewise, a filter
	foreign   bool              // somebody else has created it, and set its options
	used      bool              // a worker has had it: it may have left options, or a duplicate somewhere
	quiet     bool              // nothing can reach it any more, since it was steered away from
	calming   *Quiet            // it is parked, was used, and is to be replaced once it is quiet
	look      time.Time         // next look at calming
	tag       uint32            // see Tag; 0: none
	waits     bool              // connections wait here for a worker, see Group.LetWait
	dropping  bool              // what Accept takes is dropped, see dropProbes
	probed    []netip.AddrPort  // sources of the last probes since a worker took it
	waited    int               // connections that did when a worker took it
}

// FD is the descriptor. The group owns it: pass a duplicate to a worker, and do not close
// it.
func (s *Socket) FD() int { return s.fd }

// Inode identifies the socket in any process.
func (s *Socket) Inode() uint64 { return s.inode }

// Closed reports whether the group has closed the socket, and has another in its place, or
// none.
func (s *Socket) Closed() bool { return s.closed }

// Slot is the last slot that took the socket.
func (s *Socket) Slot() int { return s.slot }

// Held reports whether a worker has the socket; else it is parked.
func (s *Socket) Held() bool { return s.holders > 0 }

// Holders is the number of workers that have the socket: more than one if they share it.
func (s *Socket) Holders() int { return s.holders }

// Release returns the socket after a worker that took it has exited. It stays open, and
// is parked if that was the last worker.
func (s *Socket) Release() {
	if s.holders == 0 || s.closed {
		return
	}
	s.holders--
	if !s.Held() {
		s.tag = 0
	}
	if s.ownFlags && !s.Held() {
		s.ownFlags = false
		unix.SetNonblock(s.fd, true)
	}
	if s.Held() && s.group.cfg.Balance == Shared {
		changed, _ := s.reset(false) // what others that have it set for a reason stays
		s.group.repaired(s, changed)
	}
	if !s.Held() {
		if s = s.group.renew(s, false); s.used {
			s.group.watch.wakeUp() // to wait until it is quiet
		}
	}
	if err := s.group.reattach(); err != nil {
		s.group.watch.later(Failed{s.group, err})
	}
	s.group.arrange(s)
}

// Reserve keeps a parked socket from [Group.Take], or ends that: the worker that had it
// says that it has closed it, and runs on, so that it may still accept from it.
func (s *Socket) Reserve(yes bool) { s.reserved = yes }

// Retake returns a reserved socket to the worker that had it; nil: it cannot be used any
// more.
func (s *Socket) Retake(slot int) *Socket {
	s.reserved = false
	if s.closed || s.Held() {
		return nil
	}
	if s = s.group.clean(s, true); s != nil {
		s.group.hand(s, slot)
	}
	return s
}

// Target reports whether connections are steered to the socket.
func (s *Socket) Target() bool { return s.group.isTarget(s) }

// OwnFlags leaves the socket's file status flags to the holder until it is released: the
// socket replaces one that the holder created.
func (s *Socket) OwnFlags() { s.ownFlags = true }

// Repair undoes a holder's changes to the socket. [Watch.Collect] does this from time to
// time; call it when the holder has called listen(2), with a backlog of its own.
func (s *Socket) Repair() []Event {
	if s.closed || !s.listening() {
		return nil // Collect handles it, in its order
	}
	return s.group.repair(s)
}

// Pending is the number of connections in the accept queue; of a datagram socket, 1 if a
// datagram waits in it.
func (s *Socket) Pending() int {
	if s.closed {
		return 0
	}
	n, _, _ := s.queue()
	return n
}

// Accept starts to take up to most connections out of the queue of a parked socket.
// [Watch.Collect] returns them as one [Accepted]. While an Accept is running, another
// does nothing.
//
// It runs in a goroutine: accept(2) has no MSG_DONTWAIT, and O_NONBLOCK belongs to the
// open file, which is shared with every process that has had a duplicate. If one clears
// it at the wrong moment, only that goroutine blocks until the next connection.
func (s *Socket) Accept(most int) {
	s.accept(min(most, s.Pending()), func() {})
}

// accept takes up to most connections. before is called before each accept(2), for tests.
func (s *Socket) accept(n int, before func()) {
	if s.accepting || s.closed || s.Held() || n <= 0 || s.group.cfg.Datagram {
		return
	}
	fd, err := unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, 3)
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	s.accepting = true
	w, a := s.group.watch, Accepted{Group: s.group, Socket: s, Err: err}
	go func() { // ends when the queue is empty, or with the next connection
		for a.Err == nil && len(a.FDs) < n {
			before()
			c, _, err := unix.Accept4(fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
			switch err {
			case nil:
				a.FDs = append(a.FDs, c)
			case unix.EINTR, unix.ECONNABORTED:
			case unix.EAGAIN:
				n = 0
			default:
				a.Err = err
			}
		}
		if fd >= 0 {
			unix.Close(fd)
		}
		w.post(a)
	}()
}

func inodeOf(fd int) uint64 {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return 0
	}
	return st.Ino
}

// sockaddr also returns the socket family of an address.
func sockaddr(addr netip.AddrPort) (unix.Sockaddr, int) {
	if addr.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}, unix.AF_INET
	}
	sa := &unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()}
	if zone := addr.Addr().Zone(); zone != "" {
		if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
			sa.ZoneId = uint32(n)
		} else if ifi, err := net.InterfaceByName(zone); err == nil {
			sa.ZoneId = uint32(ifi.Index)
		}
	}
	return sa, unix.AF_INET6
}

// Bound returns the address to which fd is bound.
func Bound(fd int) (netip.AddrPort, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("cannot read the socket's address: %w", err)
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)), nil
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port)), nil
	}
	return netip.AddrPort{}, fmt.Errorf("cannot use a socket of family %T", sa)
}

// bind returns a bound socket that does not listen yet. With exclusive, SO_REUSEPORT is
// set after the bind: then a second instance of the same user, started by mistake, gets
// EADDRINUSE instead of half of the traffic, while later sockets with SO_REUSEPORT can
// still join. Others have the traits of a group's first socket.
func bind(addr netip.AddrPort, v6only, exclusive bool, as traits) (fd int, err error) {
	sa, family := sockaddr(addr)
	fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	set := func(level, name, value int) {
		if err == nil {
			err = unix.SetsockoptInt(fd, level, name, value)
		}
	}
	set(unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if family == unix.AF_INET6 {
		only := 0
		if v6only {
			only = 1
		}
		set(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only)
	}
	if !exclusive {
		set(unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	if err == nil {
		err = as.apply(fd)
	}
	if err == nil {
		err = unix.Bind(fd, sa)
	}
	if exclusive {
		set(unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	return fd, err
}

// Taken reports whether the kernel would refuse to bind an ordinary socket to an address,
// because it is in use.
func Taken(addr netip.AddrPort, v6only, datagram bool) bool {
	sa, family := sockaddr(addr)
	typ := unix.SOCK_STREAM
	if datagram {
		typ = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(family, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return true
	}
	defer unix.Close(fd)
	unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_FREEBIND, 1)
	if family == unix.AF_INET6 && v6only {
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	return unix.Bind(fd, sa) == unix.EADDRINUSE
}

// queue returns the length of the accept queue and the effective backlog: tcpi_unacked
// and tcpi_sacked of a listening socket (what ss shows as Recv-Q and Send-Q).
func (s *Socket) queue() (length, backlog int, err error) {
	if s.group.cfg.Datagram {
		return s.datagrams(), 0, nil
	}
	info, err := unix.GetsockoptTCPInfo(s.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0, 0, fmt.Errorf("cannot read TCP_INFO: %w", err)
	}
	return int(info.Unacked), int(info.Sacked), nil
}

// listening reports whether the socket still listens: shutdown(2) by one holder of a
// duplicate ends it for all.
func (s *Socket) listening() bool {
	if s.group.cfg.Datagram {
		return !s.closed && !s.connected()
	}
	return listens(s.fd)
}

func listens(fd int) bool {
	on, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	return err == nil && on == 1
}

// BindUDP returns a bound UDP socket, which the caller owns, and its address.
// It is not in a group: a datagram socket is shared by all workers.
func BindUDP(addr netip.AddrPort, v6only bool) (fd int, at netip.AddrPort, err error) {
	sa, family := sockaddr(addr)
	fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, at, err
	}
	if family == unix.AF_INET6 && v6only {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	if err == nil {
		err = unix.Bind(fd, sa)
	}
	if err == nil {
		at, err = Bound(fd)
	}
	if err != nil {
		unix.Close(fd)
		return -1, at, fmt.Errorf("cannot bind udp %v: %w", addr, err)
	}
	return fd, at, nil
}
