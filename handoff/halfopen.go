package handoff

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// A handshake that is half open when connections are steered away from its listener still
// completes in that listener's queue. TCP_INFO does not count it; sock_diag(7) lists it,
// but not its listener. So a socket is quiet when the peers that were in SYN_RECV on its
// address right after the steering have left that state.

const (
	sockDiagByFamily = 20     // SOCK_DIAG_BY_FAMILY
	stateSynRecv     = 1 << 3 // TCPF_SYN_RECV, which covers TCP_NEW_SYN_RECV here
	diagReqSize      = 56     // struct inet_diag_req_v2
	diagMsgSize      = 72     // struct inet_diag_msg, without attributes
)

// halfOpen returns the peers whose handshake with the local address is half open. It
// requires no privilege, and walks the kernel's connection table.
func halfOpen(local netip.AddrPort) (map[netip.AddrPort]struct{}, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("cannot open sock_diag: %w", err)
	}
	defer unix.Close(fd)
	peers := map[netip.AddrPort]struct{}{}
	families := []byte{unix.AF_INET}
	if local.Addr().Is6() {
		// A dual-stack listener has IPv4 handshakes too.
		families = []byte{unix.AF_INET6, unix.AF_INET}
	}
	for _, family := range families {
		if err := dumpDiag(fd, family, unix.IPPROTO_TCP, stateSynRecv, local.Port(), func(m []byte) { peers[diagPeer(m)] = struct{}{} }); err != nil {
			return nil, fmt.Errorf("cannot list half-open connections: %w", err)
		}
	}
	return peers, nil
}

// diagState returns the state of the TCP socket at local that has the connection from peer:
// that of a listening one, if none has.
func diagState(local, peer netip.AddrPort) (state byte, err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return 0, fmt.Errorf("cannot open sock_diag: %w", err)
	}
	defer unix.Close(fd)
	req := diagRequest(unix.AF_INET6, unix.IPPROTO_TCP, 0, ^uint32(0), local.Port())
	id := req[unix.SizeofNlMsghdr+8:] // struct inet_diag_sockid
	if local.Addr().Is4() {
		req[unix.SizeofNlMsghdr] = unix.AF_INET
	}
	binary.BigEndian.PutUint16(id[2:], peer.Port())
	copy(id[4:20], local.Addr().AsSlice())
	copy(id[20:36], peer.Addr().AsSlice())
	binary.NativeEndian.PutUint64(id[40:], ^uint64(0)) // INET_DIAG_NOCOOKIE
	if err := unix.Sendto(fd, req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, err
	}
	buf := make([]byte, 4<<10)
	n, _, err := unix.Recvfrom(fd, buf, 0)
	if err != nil {
		return 0, err
	}
	err = unix.ENOENT
	_, perr := parseDiag(buf[:n], func(m []byte) { state, err = m[1], nil })
	if perr != nil {
		err = perr
	}
	return state, err
}

// diagRequest is a request for sockets at a port.
func diagRequest(family, protocol byte, flags uint16, states uint32, port uint16) []byte {
	req := make([]byte, unix.SizeofNlMsghdr+diagReqSize)
	binary.NativeEndian.PutUint32(req[0:], uint32(len(req)))
	binary.NativeEndian.PutUint16(req[4:], sockDiagByFamily)
	binary.NativeEndian.PutUint16(req[6:], unix.NLM_F_REQUEST|flags)
	body := req[unix.SizeofNlMsghdr:]
	body[0] = family
	body[1] = protocol
	binary.NativeEndian.PutUint32(body[4:], states)
	binary.BigEndian.PutUint16(body[8:], port) // idiag_sport
	return req
}

// dumpDiag passes each struct inet_diag_msg of the sockets of a protocol in those states to
// each.
func dumpDiag(fd int, family, protocol byte, states uint32, port uint16, each func(m []byte)) error {
	req := diagRequest(family, protocol, unix.NLM_F_DUMP, states, port)
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
		done, err := parseDiag(buf[:n], each)
		if done || err != nil {
			return err
		}
	}
}

// parseDiag reads one netlink datagram; done reports the end mark.
func parseDiag(b []byte, each func(m []byte)) (done bool, err error) {
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
			if len(body) >= diagMsgSize {
				each(body)
			}
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return false, nil
}

// diagPeer reads idiag_dst and idiag_dport of a struct inet_diag_msg.
func diagPeer(m []byte) netip.AddrPort {
	port := binary.BigEndian.Uint16(m[6:])
	if m[0] == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(m[24:28])), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(m[24:40])), port)
}
