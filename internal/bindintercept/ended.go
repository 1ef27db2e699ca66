package bindintercept

import (
	"net/netip"
	"slices"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
)

// A bind goes its way, and the kernel tells its result to the program alone. What it came to
// is seen when the thread that made it makes another call: then it has ended, and either the
// socket has that address or the bind has failed. The next call that is reported says so.

// Failed is a bind that the kernel has refused.
type Failed struct {
	Inode uint64 // of the socket
	Addr  netip.AddrPort
}

// begun are binds of TCP sockets whose results are not known.
type begun struct {
	list   []begunBind
	failed []Failed // for the next call
}

type begunBind struct {
	Request
	shared *atomic.Bool // SO_REUSEPORT was set for it
}

// maxBegun is how many are remembered: of as many threads.
const maxBegun = 64

// note records a bind that is reported.
func (b *begun) note(c *Call) {
	c.Failed, b.failed = b.failed, nil
	if c.Kind != TCP || c.Op != Bind || c.Listen || c.Blind || c.Addr.Port() == 0 {
		return
	}
	if len(b.list) >= maxBegun {
		b.list = b.list[1:]
	}
	b.list = append(b.list, begunBind{c.Request, &c.shared})
}

// ended looks at what the binds of a thread came to that makes another call.
func (b *begun) ended(c *Call) {
	b.list = slices.DeleteFunc(b.list, func(e begunBind) bool {
		if e.PID != c.PID {
			return false
		}
		if e.failed() {
			b.failed = append(b.failed, Failed{e.Inode, e.Addr})
		}
		return true
	})
}

// Fits reports whether a socket has an address because it was bound to another: an unspecified
// one gets that of a connection.
func Fits(has, bound netip.AddrPort) bool {
	a := bound.Addr().WithZone("")
	return has.Port() == bound.Port() && (has.Addr() == a || a.Unmap().IsUnspecified())
}

// failed reports whether the socket is still the one of the bind, and has another address, or
// none. Then SO_REUSEPORT is what the program has set.
func (e begunBind) failed() bool {
	p, err := linux.OpenPidfd(e.TGID)
	if err != nil {
		return false
	}
	defer p.Close()
	fd, err := p.Getfd(e.FD)
	if err != nil {
		return false // it is closed, or moved
	}
	defer unix.Close(fd)
	if n, err := inode(fd); err != nil || n != e.Inode {
		return false
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return false
	}
	if at, ok := address(sa); !ok || Fits(at, e.Addr) {
		return false
	}
	if e.shared.Load() && !e.ReusePort {
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 0)
	}
	return true
}
