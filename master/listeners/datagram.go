package listeners

import (
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"handoff/handoff"
)

// UDP returns the endpoint of an address of UDP.
func UDP(at netip.AddrPort, v6only bool) Endpoint {
	e := TCP(at, v6only)
	e.Type = Datagram
	return e
}

// Owner says what a worker has of the sockets of an address of UDP.
type Owner struct {
	Worker Worker
	Slot   int
	// Open reports whether it still has the socket with that inode.
	Open func(inode uint64) bool
	// Several: it may have more than one at the address, as it has set on both.
	Several bool
}

// BindDatagram binds the socket of a worker, of which fd is a duplicate, to an endpoint of
// UDP: it is the worker's from then on, and the address is held. If a socket of a worker that
// has ended must be the worker's instead, because something waits in it, the lease has
// another inode, and fd is closed. The table owns fd, unless there is an error: the kernel's.
func (t *Table) BindDatagram(o Owner, e Endpoint, fd int) (*Lease, error) {
	if a := t.Find(e); a != nil {
		return t.joinDatagrams(a, o, fd)
	}
	return t.beginDatagrams(o, e, fd, t.watch.Bind)
}

// BindUnheld binds a socket of a worker to an endpoint of UDP as if it were the first of an
// address, which is not held.
func (t *Table) BindUnheld(e Endpoint, fd int) error {
	addr, err := netip.ParseAddr(e.Addr)
	if err != nil {
		return unix.EINVAL
	}
	if err := t.permits(e); err != nil {
		return err
	}
	return t.watch.BindAlone(fd, netip.AddrPortFrom(addr, uint16(e.Port)))
}

// AdoptDatagram holds the address of a worker's socket that [Table.BindUnheld] has bound
// already.
func (t *Table) AdoptDatagram(o Owner, e Endpoint, fd int) (*Lease, error) {
	return t.beginDatagrams(o, e, fd, t.watch.AdoptDatagram)
}

func (t *Table) beginDatagrams(o Owner, e Endpoint, fd int, begin func(handoff.Config, int, int) (*handoff.Group, *handoff.Socket, error)) (*Lease, error) {
	if err := t.permits(e); err != nil {
		return nil, err
	}
	cfg := t.groupConfig(e.V6Only)
	addr, err := netip.ParseAddr(e.Addr)
	if err != nil {
		return nil, unix.EINVAL
	}
	cfg.Addr = netip.AddrPortFrom(addr, uint16(e.Port))
	if t.cfg.Private {
		private := netip.MustParseAddr(privateOf(e).Addr)
		if addr.Is6() { // of the program's socket
			private = netip.AddrFrom16(private.As16())
		}
		cfg.Addr = netip.AddrPortFrom(private, uint16(e.Port))
	}
	// An address that overlaps with one of ours, as after a change of the configuration.
	cfg.Beside = t.where(func(a *Address) bool {
		return a.endpoint.Type == Datagram && a.endpoint.Family != Unix && a.endpoint.Port == e.Port && a.LeaseOf(o.Worker) == nil
	}) != nil
	g, s, err := begin(cfg, fd, o.Slot)
	if err != nil {
		return nil, err
	}
	a := t.newAddress(e)
	t.add(a, t.newGroup(g))
	return a.datagramLease(o, s), nil
}

func (t *Table) joinDatagrams(a *Address, o Owner, fd int) (*Lease, error) {
	if a.group == nil {
		return nil, unix.EADDRINUSE
	}
	for _, l := range slices.Clone(a.leases) {
		switch {
		case l.worker != o.Worker:
		case !o.Open(l.Inode()):
			l.socket.Release()
			a.leases = slices.DeleteFunc(a.leases, func(o *Lease) bool { return o == l })
		case !o.Several:
			return nil, unix.EADDRINUSE
		}
	}
	var s *handoff.Socket
	var err error
	if a.group.Waiting(o.Slot) {
		if s, err = a.group.Take(o.Slot); err == nil {
			unix.Close(fd)
		}
	} else {
		s, err = a.group.Bind(fd, o.Slot)
	}
	if err != nil {
		return nil, err
	}
	t.storeNew(a)
	return a.datagramLease(o, s), nil
}

func (a *Address) datagramLease(o Owner, s *handoff.Socket) *Lease {
	l := a.lease(o.Worker, o.Slot, s, s.FD())
	s.Tag(uint32(o.Worker))
	l.listening = true
	return l
}
