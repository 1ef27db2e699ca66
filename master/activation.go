package master

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"handoff/handoff"
	"handoff/internal/nodeipc"
	"handoff/master/fleet"
)

// Listen is an address that every worker is given at its start, by systemd's
// protocol (sd_listen_fds(3)): a socket of its own for TCP, one for all for a
// path.
type Listen struct {
	Name string         // in LISTEN_FDNAMES; "" for none
	Addr netip.AddrPort // zero for a path
	Only bool           // IPv6 alone, where Addr is IPv6
	Any  bool           // no host was said: IPv4 alone will do where there is no IPv6
	Path string         // of a unix socket, absolute
	Mode fs.FileMode    // of the path; 0: as the umask has it
	UID  int            // its owner and group; -1: as it is
	GID  int
}

// openListens opens what the workers are given, and holds it to the end.
func (m *Master) openListens() error {
	for _, l := range m.cfg.Listen {
		a, err := m.openListen(l)
		if err != nil {
			return err
		}
		m.given = append(m.given, a)
	}
	return nil
}

func (m *Master) openListen(l Listen) (*address, error) {
	want := ask{kind: nodeipc.Pipe, addr: l.Path}
	if l.Path == "" {
		want = askOfCall(l.Addr, l.Only)
		want.any = l.Any
		want.index = -1 // a port 0 of ours is none of a program's
		if l.Addr.Port() != 0 {
			want.index = 0
		}
	}
	if m.addrs.find(want) != nil {
		return nil, fmt.Errorf("cannot listen on %s twice", l)
	}
	var own func() error
	if l.Path != "" {
		own = l.own
	}
	a, err := m.addrs.open(want, own)
	if err != nil {
		if who := (*inUse)(nil); errors.As(err, &who) {
			return nil, fmt.Errorf("cannot listen on %s: address already in use: %s listens there", l, strings.Join(who.who, ", "))
		}
		return nil, fmt.Errorf("cannot listen on %s: %w", l, cause(err))
	}
	a.given = true
	m.log.Debug("Listens for the workers", "event", "address.opened", "address", a.name, "name", l.Name)
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

func (l Listen) String() string {
	if l.Path != "" {
		return l.Path
	}
	return l.Addr.String()
}

// own gives the path its mode and owner.
func (l Listen) own() error {
	if l.UID >= 0 || l.GID >= 0 {
		if err := os.Lchown(l.Path, l.UID, l.GID); err != nil {
			return err
		}
	}
	if l.Mode != 0 {
		return os.Chmod(l.Path, l.Mode)
	}
	return nil
}

// activate takes the worker's share of what it is given, and returns the
// descriptors, which stay the register's, and the environment that speaks of
// them. They are blocking, as systemd's are, but for those that another worker has
// as well: O_NONBLOCK is of the open file, and that one's event loop would hang in
// accept(2).
func (m *Master) activate(id fleet.ID, slot int) (fds []int, env []string, err error) {
	if len(m.given) == 0 {
		return nil, nil, nil
	}
	names := make([]string, len(m.given))
	var own []int // of this worker alone, for now
	for i, a := range m.given {
		names[i] = "unknown" // as systemd has it for what has no name
		if m.cfg.Listen[i].Name != "" {
			names[i] = m.cfg.Listen[i].Name
		}
		if a == nil {
			return nil, nil, fmt.Errorf("%s was lost with the master before, and cannot be opened", m.cfg.Listen[i])
		}
		h, err := a.take(id, slot)
		if err != nil {
			return nil, nil, err
		}
		h.given, h.listening = true, true
		if h.socket == nil {
			fds = append(fds, a.shared.fd)
			if len(a.holds) == 1 {
				own = append(own, a.shared.fd)
			}
			continue
		}
		h.socket.Own()
		fds = append(fds, h.socket.FD())
		if h.socket.Holders() == 1 {
			own = append(own, h.socket.FD())
		}
	}
	for _, fd := range own {
		if err := unix.SetNonblock(fd, false); err != nil {
			return nil, nil, err
		}
	}
	return fds, []string{"LISTEN_FDS=" + strconv.Itoa(len(fds)), "LISTEN_FDNAMES=" + strings.Join(names, ":")}, nil
}

// inherited are the listening sockets that a service manager has passed to
// handoff: they are used where their addresses are asked for.
type inherited struct {
	handoff.Named
	addr   netip.AddrPort // zero for a path
	v6only bool
	path   string
}

// inherit looks at what was passed. What is no listening stream socket is
// closed, and named in the error.
func inherit(passed []handoff.Named) (list []*inherited, err error) {
	var errs []error
	for _, p := range passed {
		i := &inherited{Named: p}
		sa, err := unix.Getsockname(p.FD)
		kind, kerr := unix.GetsockoptInt(p.FD, unix.SOL_SOCKET, unix.SO_TYPE)
		if err != nil || kerr != nil || kind != unix.SOCK_STREAM {
			errs = append(errs, fmt.Errorf("descriptor %d of the service manager is no stream socket; it is not used", p.FD))
			unix.Close(p.FD)
			continue
		}
		switch sa := sa.(type) {
		case *unix.SockaddrInet4:
			i.addr = netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
		case *unix.SockaddrInet6:
			i.addr = netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
			only, _ := unix.GetsockoptInt(p.FD, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
			i.v6only = only == 1
		case *unix.SockaddrUnix:
			i.path = sa.Name
		}
		list = append(list, i)
	}
	return list, errors.Join(errs...)
}

// passedTCP takes out of the list the socket of an address, -1 if there is none.
func (as *addresses) passedTCP(addr netip.AddrPort, v6only bool) int {
	return as.passedWhere(func(i *inherited) bool {
		return i.addr.IsValid() && i.addr == addr && (addr.Addr().Is4() || i.v6only == v6only)
	})
}

func (as *addresses) passedWhere(ok func(*inherited) bool) int {
	for n, i := range as.inherited {
		if ok(i) {
			as.inherited = append(as.inherited[:n:n], as.inherited[n+1:]...)
			return i.FD
		}
	}
	return -1
}

// hasPassed tells whether a socket of an address was passed.
func (as *addresses) hasPassed(addr netip.AddrPort) bool {
	return slices.ContainsFunc(as.inherited, func(i *inherited) bool { return i.addr == addr })
}

// listen opens a TCP address: of a socket that was passed for it, or anew.
func (as *addresses) listen(cfg handoff.Config) (*handoff.Group, error) {
	fd := as.passedTCP(cfg.Addr, cfg.V6Only)
	if fd < 0 {
		return handoff.Listen(cfg)
	}
	g, why, err := handoff.Inherit(cfg, fd)
	if why != nil {
		as.say(why.Error() + ": its one socket, the service manager's, is shared by all workers")
	}
	return g, err
}
