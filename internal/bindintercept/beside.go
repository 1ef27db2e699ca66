package bindintercept

import (
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
)

// Beside prepares the program's socket for a bind to an address that other sockets have: the
// kernel lets them share it if all have SO_REUSEPORT and one user (see User). It may block,
// on a lock that the program holds. What it cannot do, the program's bind will tell it.
func (c *Call) Beside() {
	fd, err := c.process.Getfd(c.FD)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	c.shared.Store(true)
	share(fd, c.Inode)
}

// Share does so with a socket that a process has bound.
func Share(pid, fd int, wanted uint64) {
	p, err := linux.OpenPidfd(pid)
	if err != nil {
		return
	}
	defer p.Close()
	if n, err := p.Getfd(fd); err == nil {
		defer unix.Close(n)
		share(n, wanted)
	}
}

func share(fd int, wanted uint64) {
	if n, err := inode(fd); err == nil && n == wanted {
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
}

// Bind executes the program's bind with the rights of this process. It may block.
func (c *Call) Bind() unix.Errno {
	fd, err := c.process.Getfd(c.FD)
	if err != nil {
		return unix.EBADF
	}
	defer unix.Close(fd)
	if n, err := inode(fd); err != nil || n != c.Inode {
		return unix.EBADF
	}
	if sa, err := unix.Getsockname(fd); err == nil {
		if at, ok := address(sa); ok && at.Port() == c.Addr.Port() {
			return 0 // by a previous master, which did not answer
		}
	}
	errno, _ := unix.Bind(fd, sockaddr(c.Addr)).(unix.Errno)
	return errno
}

// BindAlone is Bind of a socket beside which the program has another one, which has
// SO_REUSEPORT without its doing: this one does not have it for so long.
func (c *Call) BindAlone() unix.Errno {
	fd, err := c.process.Getfd(c.FD)
	if err != nil {
		return unix.EBADF
	}
	defer unix.Close(fd)
	if n, err := inode(fd); err != nil || n != c.Inode {
		return unix.EBADF
	}
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 0)
	defer unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	return c.Bind()
}

func sockaddr(at netip.AddrPort) unix.Sockaddr {
	if at.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}
	}
	scope, _ := strconv.ParseUint(at.Addr().Zone(), 10, 32) // 0: it has none
	return &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16(), ZoneId: uint32(scope)}
}

// netnsCookie is SO_NETNS_COOKIE (Linux 5.14).
const netnsCookie = 71

// Reasons for a socket that nobody else can have.
const (
	BoundToDevice  = "it is bound to a network device"
	OtherNamespace = "it is in another network namespace"
)

// ownBecause returns why nothing can be held in the place of a socket, and no other of its
// kind be made; "": it can.
func ownBecause(fd int) string {
	if option(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX) > 0 {
		return BoundToDevice
	}
	theirs, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, netnsCookie)
	if err != nil {
		return ""
	}
	own, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(own)
	if ours, err := unix.GetsockoptUint64(own, unix.SOL_SOCKET, netnsCookie); err == nil && ours != theirs {
		return OtherNamespace
	}
	return ""
}
