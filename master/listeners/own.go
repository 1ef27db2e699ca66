package listeners

import (
	"net/netip"
	"slices"
	"time"

	"handoff/handoff"
	"handoff/internal/linux"
)

// A program's own socket, which it has bound by itself, becomes one of an address when the
// program listens: the first one of a new address ([Table.Adopt], [Address.Claim]), or one
// more of an address that is held ([Address.Join]).

// Private reports whether workers get other addresses than they ask for, see Config.
func (t *Table) Private() bool { return t.cfg.Private }

// Has reports whether a worker has a lease.
func (t *Table) Has(id Worker) bool {
	return t.where(func(a *Address) bool { return a.LeaseOf(id) != nil }) != nil
}

// At returns the address whose sockets are bound to at; nil: there is none.
func (t *Table) At(at netip.AddrPort, v6only bool) *Address {
	if a := t.Find(TCP(at, v6only)); a != nil {
		return a
	}
	return t.where(func(a *Address) bool {
		return a.tcp() && !a.hidden() && a.group.Addr() == at && a.group.V6Only() == v6only
	})
}

// tcp reports whether an address has a group of TCP: UDP may have the same address and port.
func (a *Address) tcp() bool { return a.group != nil && !a.group.Datagram() }

// Overlapping are the addresses beside whose sockets the kernel binds another to at only if
// both have SO_REUSEPORT, the one at the same address first.
func (t *Table) Overlapping(at netip.AddrPort, v6only bool) (list []*Address) {
	for _, a := range t.list {
		if !a.tcp() || !Overlap(at, v6only, a.group.Addr(), a.group.V6Only()) {
			continue
		}
		if a.group.Addr() == at {
			list = slices.Insert(list, 0, a)
		} else {
			list = append(list, a)
		}
	}
	return list
}

// Admit has the kernel bind another socket beside those of an address.
func (a *Address) Admit() { a.group.Admit() }

// ghost is an address that a worker has closed by itself. Until the keeper has closed its
// duplicates, the kernel binds another socket to it only as beside one that is held.
type ghost struct {
	addr     netip.AddrPort
	v6only   bool
	datagram bool
	until    time.Time
}

const ghostTime = 5 * time.Second

// Closing reports whether an address that a worker has closed is in the way of a bind to at.
func (t *Table) Closing(at netip.AddrPort, v6only bool, now time.Time) bool {
	return t.closing(at, v6only, false, now)
}

// ClosingDatagram is Closing for UDP.
func (t *Table) ClosingDatagram(at netip.AddrPort, v6only bool, now time.Time) bool {
	return t.closing(at, v6only, true, now)
}

func (t *Table) closing(at netip.AddrPort, v6only, datagram bool, now time.Time) bool {
	t.ghosts = slices.DeleteFunc(t.ghosts, func(g ghost) bool { return now.After(g.until) })
	return slices.ContainsFunc(t.ghosts, func(g ghost) bool {
		return g.datagram == datagram && Overlap(at, v6only, g.addr, g.v6only)
	}) && handoff.Taken(at, v6only, datagram)
}

// Overlap reports whether two sockets conflict with each other.
func Overlap(a netip.AddrPort, aOnly bool, b netip.AddrPort, bOnly bool) bool {
	if a.Port() != b.Port() {
		return false
	}
	x, y := a.Addr().Unmap(), b.Addr().Unmap()
	switch {
	case x.Is4() == y.Is4():
		return x == y || x.IsUnspecified() || y.IsUnspecified()
	case x.Is6():
		return x.IsUnspecified() && !aOnly
	default:
		return y.IsUnspecified() && !bOnly
	}
}

// Owner is the user to whom a socket must belong to be bound beside those of the address.
func (a *Address) Owner() int { return a.group.Owner() }

// Waits reports whether the worker of a slot is to get a socket of the address in the place
// of its own, because one waits for a worker, or because all share one.
func (a *Address) Waits(id Worker, slot int) bool { return a.AtStart(id) || a.group.Waits(slot) }

// Claim gives the worker that has created an adopted socket its lease. With another inode it
// is to get the lease's socket in the place of its own.
func (a *Address) Claim(id Worker, slot int, inode uint64) (*Lease, error) {
	s := a.group.Claim(inode, slot)
	if s == nil {
		return a.Take(id, slot)
	}
	return a.lease(id, slot, s, s.FD()), nil
}

// Join gives a worker a lease for a socket that it has bound to the address, of which fd is
// a duplicate; the table owns it.
func (a *Address) Join(id Worker, slot, fd int) (*Lease, error) {
	s, err := a.group.Join(fd, slot)
	if err != nil {
		return nil, err
	}
	a.table.storeNew(a)
	return a.lease(id, slot, s, s.FD()), nil
}

// Give gives a worker a lease whose socket is to replace its own: that one which it has got
// at its start, or one that waits.
func (a *Address) Give(id Worker, slot int) (*Lease, error) {
	for _, l := range a.leases {
		if l.worker == id && l.atStart {
			l.atStart, l.listening = false, false
			return l, nil
		}
	}
	return a.Take(id, slot)
}

// Permits returns the kernel's error for a port that the workers' user may not bind, and
// what to do. master: the user may not, and has been allowed to all the same, so that
// handoff binds it.
func (t *Table) Permits(at netip.AddrPort) (master bool, err error) {
	if err := t.permits(TCP(at, false)); err != nil {
		return false, err
	}
	u := t.cfg.User
	return u != nil && u.UID != 0 && at.Port() < uint16(linux.UnprivilegedPort()), nil
}

// ReleaseClosed ends the leases of a worker that has closed its socket by itself: open
// reports which it has, by inode. An address that nobody else has is closed then, as it
// would be without a master.
func (t *Table) ReleaseClosed(id Worker, open func(inode uint64) bool, now time.Time) (released bool) {
	for _, a := range slices.Clone(t.list) {
		_, unix := a.kind.(*shared)
		if a.group == nil && !unix {
			continue
		}
		closed := func(l *Lease) bool {
			return l.worker == id && !l.atStart && (l.socket != nil || l.unix != 0) && !open(l.Inode())
		}
		i := slices.IndexFunc(a.leases, closed)
		if i < 0 {
			continue
		}
		released = true
		a.leases = slices.DeleteFunc(a.leases, func(l *Lease) bool {
			if !closed(l) {
				return false
			}
			if l.socket != nil {
				l.socket.Release()
			}
			return true
		})
		a.dropBeside(t.cfg.User)
		if len(a.leases) == 0 {
			a.unheld = now
			if a.group != nil {
				t.ghosts = append(t.ghosts, ghost{a.group.Addr(), a.group.V6Only(), a.group.Datagram(), now.Add(ghostTime)})
				a.group.Shutdown()
			}
			t.CloseUnused(a)
		}
		t.storeNew(a)
	}
	return released
}
