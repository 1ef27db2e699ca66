package bindintercept

import (
	"errors"
	"net/netip"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

func address(sa unix.Sockaddr) (netip.AddrPort, bool) {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)), true
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port)), true
	}
	return netip.AddrPort{}, false
}

var errAddress = errors.New("not an internet address")

// readAddress reads a struct sockaddr in the memory of a process.
func readAddress(pid int, at, size uint64, domain int) (netip.AddrPort, error) {
	if size < unix.SizeofSockaddrInet4 || size > 4096 {
		return netip.AddrPort{}, errAddress
	}
	b := make([]byte, min(size, unix.SizeofSockaddrInet6))
	n, err := readMemory(pid, at, b)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return parseAddress(b[:n], domain)
}

// parseAddress reads a struct sockaddr_in or sockaddr_in6.
func parseAddress(b []byte, domain int) (netip.AddrPort, error) {
	if len(b) < unix.SizeofSockaddrInet4 {
		return netip.AddrPort{}, errAddress
	}
	family := int(*(*uint16)(unsafe.Pointer(&b[0])))
	port := uint16(b[2])<<8 | uint16(b[3])
	switch {
	case family != domain:
		return netip.AddrPort{}, errAddress
	case family == unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), port), nil
	case family == unix.AF_INET6 && len(b) >= unix.SizeofSockaddrInet6:
		a := netip.AddrFrom16([16]byte(b[8:24]))
		if scope := *(*uint32)(unsafe.Pointer(&b[24])); scope != 0 && a.IsLinkLocalUnicast() {
			a = a.WithZone(strconv.FormatUint(uint64(scope), 10))
		}
		return netip.AddrPortFrom(a, port), nil
	}
	return netip.AddrPort{}, errAddress
}
