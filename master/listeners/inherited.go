package listeners

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"handoff/internal/cmsg"
)

// passed is a listening socket that a service manager has passed: it is used where
// its address is asked for.
type inherited struct {
	cmsg.Named
	addr   netip.AddrPort // zero for a path
	v6only bool
	path   string
}

// Pass takes sockets over that a service manager has passed. What is not a stream socket
// is closed, and named in the error.
func (t *Table) Pass(named []cmsg.Named) error {
	var errs []error
	for _, n := range named {
		p := &inherited{Named: n}
		sa, err := unix.Getsockname(n.FD)
		typ, terr := unix.GetsockoptInt(n.FD, unix.SOL_SOCKET, unix.SO_TYPE)
		if err != nil || terr != nil || typ != unix.SOCK_STREAM {
			errs = append(errs, fmt.Errorf("descriptor %d from the service manager is not a stream socket; ignored", n.FD))
			unix.Close(n.FD)
			continue
		}
		switch sa := sa.(type) {
		case *unix.SockaddrInet4:
			p.addr = netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
		case *unix.SockaddrInet6:
			p.addr = netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
			only, _ := unix.GetsockoptInt(n.FD, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
			p.v6only = only == 1
		case *unix.SockaddrUnix:
			p.path = sa.Name
		}
		t.inherited = append(t.inherited, p)
	}
	return errors.Join(errs...)
}

// inheritedTCP takes out of the list the socket of an address, -1 if there is none.
func (t *Table) inheritedTCP(addr netip.AddrPort, v6only bool) int {
	return t.inheritedWhere(func(p *inherited) bool {
		// Of another address than the wildcard the kernel says that it is IPv6 alone.
		return p.addr.IsValid() && p.addr == addr && (addr.Addr() != netip.IPv6Unspecified() || p.v6only == v6only)
	})
}

func (t *Table) inheritedWhere(ok func(*inherited) bool) int {
	for i, p := range t.inherited {
		if ok(p) {
			t.inherited = append(t.inherited[:i:i], t.inherited[i+1:]...)
			return p.FD
		}
	}
	return -1
}
