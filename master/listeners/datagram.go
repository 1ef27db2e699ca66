package listeners

import (
	"errors"
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
	// What it has set on its socket.
	ReusePort, ReuseAddr bool
	// Beside: what it has closed by itself is in the way, see [Table.ClosingDatagram].
	Beside bool
}

// BindDatagram binds the socket of a worker, of which fd is a duplicate, to an endpoint of
// UDP: it is the worker's from then on, and the address is held. If a socket of a worker that
// has ended must be the worker's instead, because something waits in it, the lease has
// another inode, and fd is closed. The table owns fd, unless there is an error: the kernel's.
func (t *Table) BindDatagram(o Owner, e Endpoint, fd int) (*Lease, error) {
	if addr, err := netip.ParseAddr(e.Addr); err == nil && t.hasDatagram(o, netip.AddrPortFrom(addr, uint16(e.Port)), e.V6Only) {
		return nil, ErrOwn
	}
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
	cfg.Beside = o.Beside || len(t.overlappingDatagrams(cfg.Addr, e.V6Only)) > 0
	g, s, err := begin(cfg, fd, o.Slot)
	if err != nil {
		return nil, err
	}
	a := t.newAddress(e)
	t.add(a, t.newGroup(g))
	return a.datagramLease(o, s), nil
}

// ErrOwn: another socket of the worker itself is in the way.
var ErrOwn = errors.New("another socket of the worker has the address")

// hasDatagram reports whether the worker has a socket that is in the way of another one: both
// may have one address if SO_REUSEPORT, or SO_REUSEADDR, is set on both.
func (t *Table) hasDatagram(o Owner, at netip.AddrPort, v6only bool) bool {
	for _, a := range t.overlappingDatagrams(at, v6only) {
		for _, l := range a.leases {
			if l.worker != o.Worker || !o.Open(l.Inode()) {
				continue
			}
			on, err := unix.GetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR)
			if !(o.ReusePort && !l.alone) && !(o.ReuseAddr && err == nil && on != 0) {
				return true
			}
		}
	}
	return false
}

func (t *Table) overlappingDatagrams(at netip.AddrPort, v6only bool) (list []*Address) {
	for _, a := range t.list {
		if a.group != nil && a.group.Datagram() && Overlap(at, v6only, a.group.Addr(), a.group.V6Only()) {
			list = append(list, a)
		}
	}
	return list
}

func (t *Table) joinDatagrams(a *Address, o Owner, fd int) (*Lease, error) {
	if a.group == nil {
		return nil, unix.EADDRINUSE
	}
	for _, l := range slices.Clone(a.leases) {
		if l.worker == o.Worker && !o.Open(l.Inode()) {
			l.socket.Release()
			a.leases = slices.DeleteFunc(a.leases, func(o *Lease) bool { return o == l })
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
	l.listening, l.alone = true, !o.ReusePort
	return l
}
