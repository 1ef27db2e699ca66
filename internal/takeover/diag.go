package takeover

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// connection is an established TCP connection of this network namespace.
type connection struct {
	Local, Remote netip.AddrPort // an IPv4 address is one, also on a socket of IPv6
	Inode         uint64         // 0: nobody has accepted it
	Cookie        uint64         // of SO_COOKIE: one socket since the machine's start
}

const (
	sockDiagByFamily = 20 // SOCK_DIAG_BY_FAMILY
	stateEstablished = 1
	stateCloseWait   = 8 // the client has said its last
	stateListen      = 10
	diagReqSize      = 56 // struct inet_diag_req_v2
	diagMsgSize      = 72 // struct inet_diag_msg, without attributes
)

// connections returns the connections of a local port that are in one of the states (sock_diag(7)). It
// requires no privilege, and walks the kernel's table of connections. (Package handoff is
// public and imports nothing internal, so it has its own reader.)
func connections(port uint16, states ...byte) (all []connection, err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("cannot open sock_diag: %w", err)
	}
	defer unix.Close(fd)
	mask := uint32(0)
	for _, s := range states {
		mask |= 1 << s
	}
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		if err := dumpConnections(fd, family, port, mask, &all); err != nil {
			return nil, fmt.Errorf("cannot list connections: %w", err)
		}
	}
	return all, nil
}

func dumpConnections(fd int, family byte, port uint16, states uint32, all *[]connection) error {
	req := make([]byte, unix.SizeofNlMsghdr+diagReqSize)
	binary.NativeEndian.PutUint32(req[0:], uint32(len(req)))
	binary.NativeEndian.PutUint16(req[4:], sockDiagByFamily)
	binary.NativeEndian.PutUint16(req[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	body := req[unix.SizeofNlMsghdr:]
	body[0], body[1] = family, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(body[4:], states)
	binary.BigEndian.PutUint16(body[8:], port) // idiag_sport
	if err := unix.Sendto(fd, req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	buf := make([]byte, 32<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		done, err := parseConnections(buf[:n], port, all)
		if done || err != nil {
			return err
		}
	}
}

// parseConnections reads one netlink datagram; done reports the end mark. The kernel
// ignores the port of a request where it is 0.
func parseConnections(b []byte, port uint16, all *[]connection) (done bool, err error) {
	for len(b) >= unix.SizeofNlMsghdr {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.SizeofNlMsghdr || size > len(b) {
			return false, unix.EBADMSG
		}
		body := b[unix.SizeofNlMsghdr:size]
		switch binary.NativeEndian.Uint16(b[4:]) {
		case unix.NLMSG_DONE:
			return true, nil
		case unix.NLMSG_ERROR:
			if len(body) >= 4 {
				if errno := -int32(binary.NativeEndian.Uint32(body)); errno > 0 {
					return true, unix.Errno(errno)
				}
			}
			return true, nil
		case sockDiagByFamily:
			if c, ok := parseConnection(body); ok && c.Local.Port() == port {
				*all = append(*all, c)
			}
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return false, nil
}

// parseConnection reads a struct inet_diag_msg of linux/inet_diag.h: 0 family, 1 state, 4
// ports, 8 and 24 addresses, 44 cookie, 68 inode.
func parseConnection(m []byte) (c connection, ok bool) {
	if len(m) < diagMsgSize {
		return c, false
	}
	at := func(address, port int) netip.AddrPort {
		n := binary.BigEndian.Uint16(m[port:])
		if m[0] == unix.AF_INET {
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte(m[address:address+4])), n)
		}
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(m[address:address+16])).Unmap(), n)
	}
	c.Local, c.Remote = at(8, 4), at(24, 6)
	c.Cookie = uint64(binary.NativeEndian.Uint32(m[44:])) | uint64(binary.NativeEndian.Uint32(m[48:]))<<32
	c.Inode = uint64(binary.NativeEndian.Uint32(m[68:]))
	return c, true
}

// cookieOf is the number of a socket that no other has since the machine's start.
func cookieOf(fd int) (uint64, error) {
	return unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
}
