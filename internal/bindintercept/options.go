package bindintercept

import "golang.org/x/sys/unix"

// copied are the options that getsockopt can read, and setsockopt set, of a listening
// socket: a program that has set one finds it on the socket that replaces its own.
// SO_REUSEPORT is the held one's.
var copied = [...]struct{ level, name int }{
	{unix.SOL_SOCKET, unix.SO_REUSEADDR},
	{unix.SOL_SOCKET, unix.SO_KEEPALIVE},
	{unix.SOL_SOCKET, unix.SO_OOBINLINE},
	{unix.SOL_SOCKET, unix.SO_PRIORITY},
	{unix.SOL_SOCKET, unix.SO_MARK},
	{unix.SOL_SOCKET, unix.SO_BROADCAST},
	{unix.SOL_SOCKET, unix.SO_RCVLOWAT},
	{unix.SOL_SOCKET, unix.SO_TIMESTAMP},
	{unix.SOL_SOCKET, unix.SO_TIMESTAMPNS},
	{unix.SOL_SOCKET, unix.SO_PASSCRED},
	{unix.SOL_SOCKET, unix.SO_PASSSEC},
	{unix.SOL_SOCKET, unix.SO_BUSY_POLL},
	{unix.SOL_SOCKET, unix.SO_PREFER_BUSY_POLL},
	{unix.SOL_SOCKET, unix.SO_DONTROUTE},
	{unix.SOL_SOCKET, unix.SO_TXREHASH},
	{unix.SOL_SOCKET, unix.SO_RCVMARK},
	{unix.SOL_SOCKET, unix.SO_ZEROCOPY},
	{unix.SOL_SOCKET, unix.SO_PEEK_OFF},
	{unix.SOL_SOCKET, unix.SO_RXQ_OVFL},
	{unix.SOL_SOCKET, unix.SO_SELECT_ERR_QUEUE},
	{unix.SOL_SOCKET, unix.SO_NOFCS},
	{unix.IPPROTO_TCP, unix.TCP_NODELAY},
	{unix.IPPROTO_TCP, unix.TCP_MAXSEG},
	{unix.IPPROTO_TCP, unix.TCP_CORK},
	{unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT},
	{unix.IPPROTO_TCP, unix.TCP_FASTOPEN},
	{unix.IPPROTO_TCP, unix.TCP_FASTOPEN_NO_COOKIE},
	{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE},
	{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL},
	{unix.IPPROTO_TCP, unix.TCP_KEEPCNT},
	{unix.IPPROTO_TCP, unix.TCP_SYNCNT},
	{unix.IPPROTO_TCP, unix.TCP_LINGER2},
	{unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP},
	{unix.IPPROTO_TCP, unix.TCP_THIN_LINEAR_TIMEOUTS},
	{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT},
	{unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT},
	{unix.IPPROTO_TCP, unix.TCP_SAVE_SYN},
	{unix.IPPROTO_TCP, unix.TCP_INQ},
	{unix.IPPROTO_IP, unix.IP_TOS},
	{unix.IPPROTO_IP, unix.IP_TTL},
	{unix.IPPROTO_IP, unix.IP_FREEBIND},
	{unix.IPPROTO_IP, unix.IP_TRANSPARENT},
	{unix.IPPROTO_IP, unix.IP_MTU_DISCOVER},
	{unix.IPPROTO_IP, unix.IP_RECVERR},
	{unix.IPPROTO_IP, unix.IP_MINTTL},
	{unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT},
	{unix.IPPROTO_IP, unix.IP_RECVTTL},
	{unix.IPPROTO_IP, unix.IP_RECVTOS},
	{unix.IPPROTO_IP, unix.IP_PKTINFO},
	{unix.IPPROTO_IP, unix.IP_RECVORIGDSTADDR},
	{unix.IPPROTO_IPV6, unix.IPV6_TCLASS},
	{unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS},
	{unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO},
	{unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT},
	{unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS},
	{unix.IPPROTO_IPV6, unix.IPV6_FREEBIND},
	{unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT},
	{unix.IPPROTO_IPV6, unix.IPV6_MINHOPCOUNT},
	{unix.IPPROTO_IPV6, unix.IPV6_RECVERR},
	{unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER},
	{unix.IPPROTO_IPV6, unix.IPV6_AUTOFLOWLABEL},
	{unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG},
	{unix.IPPROTO_IPV6, unix.IPV6_ADDR_PREFERENCES},
}

// maxPacingRate is as long as on every 64-bit machine.
const maxPacingRate = 47 // SO_MAX_PACING_RATE

// options are the options that a program has set on its socket.
type options struct {
	values     [len(copied)]int // -1: the socket has none
	rcvbuf     int
	sndbuf     int
	bufLock    int // SO_BUF_LOCK: which of the two it has set
	linger     unix.Linger
	timeouts   [2]unix.Timeval // SO_RCVTIMEO, SO_SNDTIMEO
	pacing     uint64
	congestion string
	nonblock   bool
}

func optionsOf(fd int) (o options) {
	for i, c := range copied {
		o.values[i] = option(fd, c.level, c.name)
	}
	o.rcvbuf, o.sndbuf = option(fd, unix.SOL_SOCKET, unix.SO_RCVBUF), option(fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
	o.bufLock = option(fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK)
	if l, err := unix.GetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER); err == nil {
		o.linger = *l
	}
	for i, name := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if t, err := unix.GetsockoptTimeval(fd, unix.SOL_SOCKET, name); err == nil {
			o.timeouts[i] = *t
		}
	}
	o.pacing, _ = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, maxPacingRate)
	o.congestion, _ = unix.GetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION)
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	o.nonblock = err == nil && flags&unix.O_NONBLOCK != 0
	return o
}

// apply sets them on a held socket, if they differ.
func (o *options) apply(held int) {
	was := optionsOf(held)
	for i, c := range copied {
		if v := o.values[i]; v >= 0 && v != was.values[i] {
			unix.SetsockoptInt(held, c.level, c.name, v)
		}
	}
	for _, b := range []struct{ name, v, was int }{{unix.SO_RCVBUF, o.rcvbuf, was.rcvbuf}, {unix.SO_SNDBUF, o.sndbuf, was.sndbuf}} {
		// The kernel gives back the double of what was set.
		if b.v > 0 && b.v != b.was {
			unix.SetsockoptInt(held, unix.SOL_SOCKET, b.name, b.v/2)
		}
	}
	if o.bufLock >= 0 {
		unix.SetsockoptInt(held, unix.SOL_SOCKET, unix.SO_BUF_LOCK, o.bufLock)
	}
	if o.linger != was.linger {
		unix.SetsockoptLinger(held, unix.SOL_SOCKET, unix.SO_LINGER, &o.linger)
	}
	for i, name := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if o.timeouts[i] != was.timeouts[i] {
			unix.SetsockoptTimeval(held, unix.SOL_SOCKET, name, &o.timeouts[i])
		}
	}
	if o.pacing != was.pacing {
		unix.SetsockoptUint64(held, unix.SOL_SOCKET, maxPacingRate, o.pacing)
	}
	if o.congestion != "" && o.congestion != was.congestion {
		unix.SetsockoptString(held, unix.IPPROTO_TCP, unix.TCP_CONGESTION, o.congestion)
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
