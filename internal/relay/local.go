package relay

import (
	"errors"
	"net"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// isLocal asks the kernel: only an address of this machine can be bound. Where it has been
// told to bind any (ip_nonlocal_bind), the interfaces say it.
func isLocal(a *net.TCPAddr) error {
	if a.IP.IsUnspecified() || a.IP.IsMulticast() {
		return ErrNotLocal
	}
	l, err := net.ListenUDP("udp", &net.UDPAddr{IP: a.IP, Zone: a.Zone})
	if err != nil {
		return errors.Join(ErrNotLocal, err)
	}
	l.Close()
	if !bindsAny(a.IP) {
		return nil
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return errors.Join(ErrNotLocal, err)
	}
	for _, i := range addresses {
		if n, ok := i.(*net.IPNet); ok && (n.IP.Equal(a.IP) || n.IP.IsLoopback() && a.IP.IsLoopback()) {
			return nil
		}
	}
	return ErrNotLocal
}

func bindsAny(ip net.IP) bool {
	family := "ipv6"
	if ip.To4() != nil {
		family = "ipv4"
	}
	b, err := os.ReadFile("/proc/sys/net/" + family + "/ip_nonlocal_bind")
	return err != nil || strings.TrimSpace(string(b)) != "0"
}

// sameUser tells whether the client of a unix socket has the user and group of this process.
func sameUser(c net.Conn) error {
	s, ok := c.(syscall.Conn)
	if !ok {
		return ErrNotLocal
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return errors.Join(ErrNotLocal, err)
	}
	var peer *unix.Ucred
	if e := raw.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); e != nil || err != nil {
		return errors.Join(ErrNotLocal, e, err)
	}
	if int(peer.Uid) != os.Geteuid() || int(peer.Gid) != os.Getegid() {
		return errOtherUser
	}
	return nil
}

var errOtherUser = errors.New("the client is another user than handoff, and the program may ask for it (SO_PEERCRED)")
