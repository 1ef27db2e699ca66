package listeners

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// Listen is an address that every worker is given at its start: a socket of its own
// for TCP, one for all for a path.
type Listen struct {
	Name string         // for the workers; "" for none
	Addr netip.AddrPort // zero for a path
	Only bool           // IPv6 alone, where Addr is IPv6
	Any  bool           // no host was said: IPv4 alone will do where there is no IPv6
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
		e.Index = -1 // it is none of a program's
	}
	return e
}

// preopened is one of the addresses that workers are given.
type preopened struct {
	Listen
	address *Address // nil: it was lost with the master before, and could not be opened
}

// Preopen opens an address that every worker is given at its start, after those that
// were preopened before. It is held to the end.
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
			return nil, fmt.Errorf("cannot listen on %s: address already in use: %s listens there", l, strings.Join(who.Who, ", "))
		}
		return nil, fmt.Errorf("cannot listen on %s: %w", l, cause(err))
	}
	a.preopened = true
	return a, nil
}

// cause is what the kernel said.
func cause(err error) error {
	var e unix.Errno
	if errors.As(err, &e) {
		return e
	}
	return err
}

// TakePreopened gives a worker its share of each preopened address, in their order,
// with the name of each. The sockets are blocking, as systemd's are, but for those
// that another worker has as well: O_NONBLOCK is of the open file, and that one's
// event loop would hang in accept(2). What it has taken when it fails,
// [Table.ReleaseAll] takes back.
func (t *Table) TakePreopened(id Worker, slot int) (leases []*Lease, names []string, err error) {
	var blocking []int // of this worker alone, for now
	for _, p := range t.preopened {
		if p.address == nil {
			return nil, nil, fmt.Errorf("%s was lost with the previous master and cannot be reopened", p.Listen)
		}
		l, err := p.address.Take(id, slot)
		if err != nil {
			return nil, nil, err
		}
		l.atStart, l.listening = true, true
		l.OwnFlags()
		leases, names = append(leases, l), append(names, p.Name)
		if alone := l.socket == nil && len(p.address.leases) == 1 || l.socket != nil && l.socket.Holders() == 1; alone {
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

// RestorePreopened is told after [Table.Restore] which addresses those with the keys
// in [State.Preopened] are. One that is not there any more is opened anew; where that
// fails, a [LostError] says so, and workers fail to start.
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
