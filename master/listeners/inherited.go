package listeners

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"handoff/handoff"
	"handoff/internal/cmsg"
)

// inherited is a listening socket that a service manager has passed: it is used when its
// address is requested.
type inherited struct {
	cmsg.Named
	addr   netip.AddrPort // zero for a path
	v6only bool
	path   string
}

// Pass takes ownership of sockets that a service manager has passed. It closes those that
// are not stream sockets, and names them in the error.
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

// Passed reports whether a service manager has passed a socket for an address, which a worker
// gets in the place of its own.
func (t *Table) Passed(at netip.AddrPort, v6only bool) bool {
	if slices.ContainsFunc(t.inherited, func(p *inherited) bool {
		return p.path == "" && p.addr.IsValid() && Overlap(at, v6only, p.addr, p.v6only)
	}) {
		return true
	}
	a := t.At(at, v6only)
	return a != nil && a.tcp() && slices.ContainsFunc(a.group.State().Sockets, func(s handoff.SocketState) bool { return s.Foreign })
}

// inheritedTCP removes the socket of an address from the list, and returns it; -1 if
// there is none.
func (t *Table) inheritedTCP(addr netip.AddrPort, v6only bool) int {
	return t.inheritedWhere(func(p *inherited) bool {
		// For another address than the wildcard the kernel reports IPv6 only.
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
