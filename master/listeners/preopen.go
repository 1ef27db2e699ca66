package listeners

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Listen is an address that every worker gets at its start: a socket of its own for TCP,
// a shared one for a path.
type Listen struct {
	Name string         // for the workers; "" for none
	Addr netip.AddrPort // zero for a path
	Only bool           // IPv6 alone, where Addr is IPv6
	Any  bool           // no host was given: IPv4 only if there is no IPv6
	Path string         // of a unix socket, absolute
	Type Type           // of the socket
	Mode fs.FileMode    // of the path; 0: as the umask has it
	UID  int            // its owner and group; -1: as it is
	GID  int
}

func (l Listen) String() string {
	if l.Path != "" {
		return l.Path
	}
	return l.Addr.String()
}

// endpoint is how the address is found again.
func (l Listen) endpoint() Endpoint {
	if l.Path != "" {
		return Endpoint{Family: Unix, Type: l.Type, Addr: l.Path}
	}
	e := TCP(l.Addr, l.Only)
	e.Type, e.Any = l.Type, l.Any
	if e.Port == 0 {
		e.Index = -1 // not requested by a program
	}
	return e
}

// preopened is an address that workers get at their start.
type preopened struct {
	Listen
	address *Address // nil: it was lost with the previous master, and could not be opened
}

// Preopen opens an address that every worker gets at its start, after the earlier ones.
// It is held until the end.
func (t *Table) Preopen(l Listen) (*Address, error) {
	a, err := t.preopen(l)
	if err == nil {
		t.preopened = append(t.preopened, preopened{l, a})
	}
	return a, err
}

func (t *Table) preopen(l Listen) (*Address, error) {
	e := l.endpoint()
	if t.Find(e) != nil {
		return nil, fmt.Errorf("cannot listen on %s twice", l)
	}
	a, err := t.open(e, &pathMode{l.Mode, l.UID, l.GID})
	if err != nil {
		if who := (*InUse)(nil); errors.As(err, &who) {
			return nil, fmt.Errorf("cannot listen on %s: address already in use: %s", l, who.Who)
		}
		return nil, fmt.Errorf("cannot listen on %s: %w", l, cause(err))
	}
	a.preopened = true
	return a, nil
}

// cause returns the kernel's error.
func cause(err error) error {
	var e unix.Errno
	if errors.As(err, &e) {
		return e
	}
	return err
}

// TakePreopened gives a worker a lease of each preopened address, in order, with its
// name; of a path, that of its generation. The sockets are blocking, like systemd's, except those that another worker has,
// too: O_NONBLOCK belongs to the open file, and the other's event loop would block in
// accept(2). After an error, [Table.ReleaseAll] ends the leases.
func (t *Table) TakePreopened(id Worker, slot, gen int) (leases []*Lease, names []string, err error) {
	var blocking []int // of this worker alone, for now
	for _, p := range t.preopened {
		if p.address == nil {
			return nil, nil, fmt.Errorf("%s was lost with the previous master and cannot be reopened", p.Listen)
		}
		l, err := p.take(id, slot, gen)
		if err != nil {
			return nil, nil, err
		}
		l.atStart, l.listening = true, true
		l.OwnFlags()
		leases, names = append(leases, l), append(names, p.Name)
		if alone := l.socket == nil && p.address.holders(l.unix) == 1 || l.socket != nil && l.socket.Holders() == 1; alone {
			blocking = append(blocking, l.fd)
		}
	}
	for _, fd := range blocking {
		if err := unix.SetNonblock(fd, false); err != nil {
			return nil, nil, err
		}
	}
	return leases, names, nil
}

// RestorePreopened is called after [Table.Restore] with the addresses for the keys in
// [State.Preopened]. It reopens a missing one; if that fails, it returns a [LostError],
// and workers fail to start.
func (t *Table) RestorePreopened(keys []string, listen []Listen) (lost []*LostError) {
	for i, key := range keys {
		p := preopened{address: t.ByKey(key)}
		if i < len(listen) {
			p.Listen = listen[i]
		}
		if p.address == nil && i < len(listen) {
			var err error
			if p.address, err = t.preopen(p.Listen); err != nil {
				lost = append(lost, &LostError{p.String(), err})
			}
		}
		t.preopened = append(t.preopened, p)
	}
	return lost
}
