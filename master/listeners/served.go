package listeners

import (
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Accepting is a socket on which a worker has said that it accepts.
type Accepting struct {
	Address *Address
	Inode   uint64 // of the worker's own, or of the one that all share; 0: not known
	Shared  bool   // by all
}

// AcceptsOn returns the sockets on which a worker has said that it accepts. Whether it has
// them open still, its processes show: [Table.NotOpen].
func (t *Table) AcceptsOn(id Worker) (all []Accepting) {
	for _, a := range t.list {
		for _, l := range a.leases {
			if l.worker == id && l.listening {
				all = append(all, Accepting{a, l.inode(), l.socket == nil})
			}
		}
	}
	return all
}

// inode is of the socket that the worker has, also where all have the same.
func (l *Lease) inode() uint64 {
	var s unix.Stat_t
	if l.socket != nil {
		return l.socket.Inode()
	}
	if unix.Fstat(l.fd, &s) != nil {
		return 0
	}
	return s.Ino
}

// NotOpen: a worker has closed a socket, so that it does not accept there. [Table.Steer]
// applies it. The lease of one that starts is left, for the case that it binds the address
// again ([Table.ReleaseClosed]). That of one in service ends; an address that nobody else has
// is kept for a while, in which it may be bound again.
func (t *Table) NotOpen(id Worker, inode uint64, now time.Time) {
	for _, a := range t.list {
		ended := false
		a.leases = slices.DeleteFunc(a.leases, func(l *Lease) bool {
			if l.worker != id || l.inode() != inode {
				return false
			}
			l.listening = false
			if l.atStart || l.socket == nil || !t.IsTarget(id) {
				return false
			}
			l.socket.Release()
			ended = true
			return true
		})
		if ended && len(a.leases) == 0 {
			a.unheld = now
		}
		if ended {
			t.storeNew(a)
		}
	}
}

// Local is the address and port; zero: it has a path or an abstract name.
func (a *Address) Local() netip.AddrPort {
	if a.group != nil {
		return a.group.Addr()
	}
	addr, err := netip.ParseAddr(a.endpoint.Addr)
	switch {
	case a.endpoint.Family == Unix:
		return netip.AddrPort{}
	case err != nil && a.endpoint.Family == IPv6:
		addr = netip.IPv6Unspecified()
	case err != nil:
		addr = netip.IPv4Unspecified()
	}
	return netip.AddrPortFrom(addr, uint16(a.endpoint.Port))
}

// accepted reports whether one of these workers accepts here.
func (a *Address) accepted(by []Worker) bool {
	return slices.ContainsFunc(a.leases, func(l *Lease) bool { return l.listening && slices.Contains(by, l.worker) })
}

// Served returns the addresses on which a worker to which connections go accepts, and
// those on which one did, and none does.
func (t *Table) Served() (served, not []*Address) {
	for _, a := range t.list {
		if a.accepted(t.targets) {
			served = append(served, a)
		} else if a.served {
			not = append(not, a)
		}
	}
	return served, not
}

// InUse returns the names of the addresses that are served, or are about to: a Node program
// that says it is ready in its listen callback does so before the cluster module says that
// it listens.
func (t *Table) InUse() (names []string) {
	for _, a := range t.list {
		if slices.ContainsFunc(a.leases, func(l *Lease) bool { return slices.Contains(t.targets, l.worker) && (l.listening || !a.served) }) {
			names = append(names, a.name)
		}
	}
	return names
}
