package bindintercept

import (
	"bytes"
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

var errNoName = errors.New("not the name of a unix socket")

// readUnixAddress reads a struct sockaddr_un in the memory of a process: a path, or an
// abstract name with its zero byte.
func readUnixAddress(pid int, at, size uint64) (string, error) {
	if size <= 2 || size > unix.SizeofSockaddrUnix {
		return "", errNoName // or the kernel chooses one: the program's own
	}
	b := make([]byte, size)
	n, err := readMemory(pid, at, b)
	if err != nil {
		return "", err
	}
	return parsePath(b[:n])
}

// parsePath reads a struct sockaddr_un.
func parsePath(b []byte) (string, error) {
	if len(b) <= 2 || int(*(*uint16)(unsafe.Pointer(&b[0]))) != unix.AF_UNIX {
		return "", errNoName
	}
	name := b[2:]
	if name[0] == 0 {
		return string(name), nil
	}
	if end := bytes.IndexByte(name, 0); end >= 0 {
		name = name[:end]
	}
	return string(name), nil
}
