package bindintercept

import "golang.org/x/sys/unix"

// copied are the options that a program may set before bind and that its
// accepted connections, or its accept, depend on.
var copied = [...]struct{ level, name int }{
	{unix.SOL_SOCKET, unix.SO_KEEPALIVE},
	{unix.SOL_SOCKET, unix.SO_OOBINLINE},
	{unix.SOL_SOCKET, unix.SO_PRIORITY},
	{unix.IPPROTO_TCP, unix.TCP_NODELAY},
	{unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT},
	{unix.IPPROTO_TCP, unix.TCP_FASTOPEN},
	{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE},
	{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL},
	{unix.IPPROTO_TCP, unix.TCP_KEEPCNT},
	{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT},
	{unix.IPPROTO_IP, unix.IP_TOS},
	{unix.IPPROTO_IP, unix.IP_TRANSPARENT},
	{unix.IPPROTO_IPV6, unix.IPV6_TCLASS},
}

// options are the options that a program has set on its socket.
type options struct {
	values   [len(copied)]int // -1: the socket has none
	rcvbuf   int
	sndbuf   int
	linger   unix.Linger
	nonblock bool
}

func optionsOf(fd int) (o options) {
	for i, c := range copied {
		o.values[i] = option(fd, c.level, c.name)
	}
	o.rcvbuf, o.sndbuf = option(fd, unix.SOL_SOCKET, unix.SO_RCVBUF), option(fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
	if l, err := unix.GetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER); err == nil {
		o.linger = *l
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	o.nonblock = err == nil && flags&unix.O_NONBLOCK != 0
	return o
}

// apply sets them on a held socket, if they differ.
func (o *options) apply(held int) {
	for i, c := range copied {
		if v := o.values[i]; v >= 0 && v != option(held, c.level, c.name) {
			unix.SetsockoptInt(held, c.level, c.name, v)
		}
	}
	for _, b := range []struct{ name, v int }{{unix.SO_RCVBUF, o.rcvbuf}, {unix.SO_SNDBUF, o.sndbuf}} {
		// The kernel gives back the double of what was set.
		if b.v > 0 && b.v != option(held, unix.SOL_SOCKET, b.name) {
			unix.SetsockoptInt(held, unix.SOL_SOCKET, b.name, b.v/2)
		}
	}
	if o.linger != (unix.Linger{}) {
		unix.SetsockoptLinger(held, unix.SOL_SOCKET, unix.SO_LINGER, &o.linger)
	}
	// O_NONBLOCK is on the description, which is the held socket's own: a
	// program whose accept is meant to block would get EAGAIN.
	unix.SetNonblock(held, o.nonblock)
}

func option(fd, level, name int) int {
	v, err := unix.GetsockoptInt(fd, level, name)
	if err != nil {
		return -1
	}
	return v
}
