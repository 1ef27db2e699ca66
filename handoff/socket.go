package handoff

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
)

// Socket is one listening socket of a [Group], which owns its descriptor.
type Socket struct {
	fd      int
	slot    int  // the slot that it was made for
	holders int  // workers that have a duplicate
	fallen  bool // does not listen, and is out of the group's record
	own     bool // its O_NONBLOCK is as its holder wants it
}

// FD is the descriptor. It stays the group's: duplicate it by passing it, do
// not close it.
func (s *Socket) FD() int { return s.fd }

// Held tells whether a worker has the socket.
func (s *Socket) Held() bool { return s.holders > 0 }

// Own says that the socket's file status flags are the holder's business until
// it is released: it is in the place of a socket of the holder's own.
func (s *Socket) Own() { s.own = true }

// Inode tells the socket from others, in any process.
func (s *Socket) Inode() uint64 {
	var st unix.Stat_t
	if unix.Fstat(s.fd, &st) != nil {
		return 0
	}
	return st.Ino
}

// sockaddr also gives the socket family of an address.
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

// bound returns the address to which fd is bound.
func bound(fd int) (netip.AddrPort, error) {
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

// bind returns a bound socket that does not listen yet. With exclusive it is
// bound without SO_REUSEPORT and given it afterwards: then a second instance of
// the same user, started by mistake, gets EADDRINUSE instead of half the
// traffic, while sockets bound with it later still join.
func bind(addr netip.AddrPort, v6only, exclusive bool) (fd int, err error) {
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
		err = unix.Bind(fd, sa)
	}
	if exclusive {
		set(unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	return fd, err
}

// queue returns the length of the accept queue and the backlog in force:
// tcpi_unacked and tcpi_sacked of a listening socket (what ss shows as Recv-Q
// and Send-Q).
func (s *Socket) queue() (length, backlog int, err error) {
	info, err := unix.GetsockoptTCPInfo(s.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0, 0, fmt.Errorf("cannot read TCP_INFO: %w", err)
	}
	return int(info.Unacked), int(info.Sacked), nil
}

// listening tells whether the socket still listens: shutdown(2) by any holder
// of a duplicate ends that for all.
func (s *Socket) listening() bool {
	on, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	return err == nil && on == 1
}

// Accept takes one connection out of the queue, or returns unix.EAGAIN. The
// caller owns the descriptor, which is non-blocking and close-on-exec.
func (s *Socket) Accept() (fd int, err error) {
	for {
		fd, _, err = unix.Accept4(s.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != unix.EINTR && err != unix.ECONNABORTED {
			return fd, err
		}
	}
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
		at, err = bound(fd)
	}
	if err != nil {
		unix.Close(fd)
		return -1, at, fmt.Errorf("cannot bind udp %v: %w", addr, err)
	}
	return fd, at, nil
}
