package handoff

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// option is a socket option that a holder can set on the listening socket that it shares
// with its owner, and that affects connections, or who gets them, after it is gone.
type option struct {
	level, id int
	name      string
	report    bool // no program sets it on a listening socket for a good reason
}

// Not in linux's headers of Go, or only in some.
const (
	ipMinTTL        = 21
	ipv6MinHopCount = 73
	soBufLock       = 72
	soLockFilter    = 44
)

// options lists what [Socket.reset] resets. The buffer sizes come before SO_BUF_LOCK: to
// set one locks it.
var options = [...]option{
	{unix.SOL_SOCKET, unix.SO_BINDTODEVICE, "SO_BINDTODEVICE", true},
	{unix.SOL_SOCKET, unix.SO_MARK, "SO_MARK", true},
	{unix.SOL_SOCKET, unix.SO_PRIORITY, "SO_PRIORITY", false},
	{unix.SOL_SOCKET, unix.SO_RCVBUF, "SO_RCVBUF", false},
	{unix.SOL_SOCKET, unix.SO_SNDBUF, "SO_SNDBUF", false},
	{unix.SOL_SOCKET, soBufLock, "SO_BUF_LOCK", false},
	{unix.SOL_SOCKET, unix.SO_RCVLOWAT, "SO_RCVLOWAT", false},
	{unix.SOL_SOCKET, unix.SO_RCVTIMEO, "SO_RCVTIMEO", false},
	{unix.SOL_SOCKET, unix.SO_SNDTIMEO, "SO_SNDTIMEO", false},
	{unix.SOL_SOCKET, unix.SO_KEEPALIVE, "SO_KEEPALIVE", false},
	{unix.SOL_SOCKET, unix.SO_LINGER, "SO_LINGER", false},
	{unix.SOL_SOCKET, unix.SO_OOBINLINE, "SO_OOBINLINE", false},
	{unix.SOL_SOCKET, unix.SO_DONTROUTE, "SO_DONTROUTE", true},
	{unix.SOL_SOCKET, unix.SO_INCOMING_CPU, "SO_INCOMING_CPU", false},
	{unix.SOL_SOCKET, unix.SO_MAX_PACING_RATE, "SO_MAX_PACING_RATE", true},
	{unix.IPPROTO_IP, unix.IP_TTL, "IP_TTL", true},
	{unix.IPPROTO_IP, unix.IP_TOS, "IP_TOS", false},
	{unix.IPPROTO_IP, ipMinTTL, "IP_MINTTL", true},
	{unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, "IP_MTU_DISCOVER", false},
	{unix.IPPROTO_IP, unix.IP_TRANSPARENT, "IP_TRANSPARENT", false},
	{unix.IPPROTO_IP, unix.IP_OPTIONS, "IP_OPTIONS", true},
	{unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, "IPV6_UNICAST_HOPS", true},
	{unix.IPPROTO_IPV6, ipv6MinHopCount, "IPV6_MINHOPCOUNT", true},
	{unix.IPPROTO_IPV6, unix.IPV6_TCLASS, "IPV6_TCLASS", false},
	{unix.IPPROTO_TCP, unix.TCP_NODELAY, "TCP_NODELAY", false},
	{unix.IPPROTO_TCP, unix.TCP_CORK, "TCP_CORK", false},
	{unix.IPPROTO_TCP, unix.TCP_MAXSEG, "TCP_MAXSEG", true},
	{unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, "TCP_DEFER_ACCEPT", false},
	{unix.IPPROTO_TCP, unix.TCP_FASTOPEN, "TCP_FASTOPEN", false},
	{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, "TCP_USER_TIMEOUT", false},
	{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, "TCP_KEEPIDLE", false},
	{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, "TCP_KEEPINTVL", false},
	{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, "TCP_KEEPCNT", false},
	{unix.IPPROTO_TCP, unix.TCP_SYNCNT, "TCP_SYNCNT", false},
	{unix.IPPROTO_TCP, unix.TCP_LINGER2, "TCP_LINGER2", false},
	{unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP, "TCP_WINDOW_CLAMP", true},
	{unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, "TCP_NOTSENT_LOWAT", false},
	{unix.IPPROTO_TCP, unix.TCP_CONGESTION, "TCP_CONGESTION", false},
}

// reset gives a parked socket the options of a new one. It returns which of those had been
// changed that no program changes for a good reason, and an error if one cannot be changed
// back: the socket is then to be replaced. A socket that somebody else has made is left as
// it is, since its options are that one's.
//
// With all false it leaves alone what programs do set: connections still come, and are to be
// as the next worker's will be.
func (s *Socket) reset(all bool) (changed []string, err error) {
	if s.foreign || s.closed || s.group.hidden {
		return nil, nil
	}
	_, family := sockaddr(s.group.addr)
	fresh, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil // too many descriptors: not now
	}
	defer unix.Close(fresh)
	if s.group.traits.transparent {
		unix.SetsockoptInt(fresh, unix.IPPROTO_IP, unix.IP_TRANSPARENT, 1)
	}
	var errs []error
	for _, o := range options {
		want, ok := getOption(fresh, o.level, o.id)
		is, ok2 := getOption(s.fd, o.level, o.id)
		if had, ok := s.had[o.name]; ok && !all {
			want = had // its program created it so
		}
		if !ok || !ok2 || bytes.Equal(want, is) {
			continue
		}
		if !o.report && !all {
			continue
		}
		if o.report {
			changed = append(changed, o.name)
		}
		if err := s.locking(func(fd int) error { return setOption(fd, o, want) }); err != nil {
			errs = append(errs, fmt.Errorf("cannot reset %s: %w", o.name, err))
		}
	}
	if n, ok := getOption(s.fd, unix.SOL_SOCKET, soLockFilter); ok && len(n) > 0 && n[0] != 0 {
		changed = append(changed, "SO_LOCK_FILTER")
		errs = append(errs, errors.New("cannot reset SO_LOCK_FILTER"))
	}
	if hasFilter(s.fd) && (all || !s.filtered) {
		changed = append(changed, "SO_ATTACH_FILTER")
		err := s.locking(func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0) })
		if err != nil && err != unix.ENOENT {
			errs = append(errs, fmt.Errorf("cannot detach a filter: %w", err))
		}
	}
	if undoSignals(s.fd) {
		changed = append(changed, "O_ASYNC")
	}
	// What is left of IPv6 extension headers, TCP_MD5SIG and TCP_AO keys, which nobody can
	// read, is charged to the socket's option memory.
	if optionMemory(s.fd) > 0 {
		errs = append(errs, errors.New("cannot reset what a worker has set and nobody can read (TCP_MD5SIG?)"))
	}
	return changed, errors.Join(errs...)
}

// hasFilter reports whether a socket has a filter: SO_GET_FILTER with no room returns the
// number of instructions, and EACCES for an eBPF program.
func hasFilter(fd int) bool {
	var none uint32
	_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_GET_FILTER, 0, uintptr(unsafe.Pointer(&none)), 0)
	return e != 0 || none != 0
}

// undoSignals undoes O_ASYNC, F_SETOWN and F_SETSIG: each connection would send a signal to
// whomever a worker has chosen. It reports whether there was something to undo.
func undoSignals(fd int) bool {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	owner, oerr := unix.FcntlInt(uintptr(fd), unix.F_GETOWN, 0)
	if err != nil || oerr == nil && owner == 0 && flags&unix.O_ASYNC == 0 {
		return false
	}
	unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags&^unix.O_ASYNC)
	unix.FcntlInt(uintptr(fd), unix.F_SETOWN, 0)
	unix.FcntlInt(uintptr(fd), unix.F_SETSIG, 0)
	return true
}

// UndoShared undoes what a worker, which has ended, may have done to a socket that others
// still have, and for which no program has a good reason: signals at each connection or
// datagram, and connect(2) of a datagram socket, which then receives of one peer only. It
// returns what it has undone.
func UndoShared(fd int) (changed []string, err error) {
	if undoSignals(fd) {
		changed = append(changed, "O_ASYNC")
	}
	if typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || typ != unix.SOCK_DGRAM {
		return changed, err
	}
	if _, err := unix.Getpeername(fd); err != nil {
		return changed, nil
	}
	changed = append(changed, "a peer (connect(2))")
	before, err := Bound(fd)
	if err != nil {
		return changed, err
	}
	unspec := make([]byte, unix.SizeofSockaddrInet4) // AF_UNSPEC is 0
	if _, _, e := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&unspec[0])), uintptr(len(unspec))); e != 0 {
		return changed, fmt.Errorf("cannot undo a connect(2): %w", e)
	}
	// A port that the kernel had chosen is given up with the peer.
	if now, err := Bound(fd); err == nil && now.Port() == 0 {
		sa, _ := sockaddr(netip.AddrPortFrom(now.Addr(), before.Port()))
		return changed, unix.Bind(fd, sa)
	}
	return changed, nil
}

// optionMemory is sk_omem_alloc.
func optionMemory(fd int) uint32 {
	const soMeminfo, optmem = 55, 6 // SO_MEMINFO, SK_MEMINFO_OPTMEM
	b, ok := getOption(fd, unix.SOL_SOCKET, soMeminfo)
	if !ok || len(b) < 4*(optmem+1) {
		return 0
	}
	return binary.NativeEndian.Uint32(b[4*optmem:])
}

// getOption returns an option as the kernel has it; false: the socket has none.
func getOption(fd, level, id int) ([]byte, bool) {
	var b [64]byte
	n := uint32(len(b))
	if _, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(id), uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&n)), 0); e != 0 {
		return nil, false
	}
	return b[:n], true
}

func setOption(fd int, o option, value []byte) error {
	value = append(bytes.Clone(value), 0) // for an empty one
	n := len(value) - 1
	if o.level == unix.SOL_SOCKET && (o.id == unix.SO_RCVBUF || o.id == unix.SO_SNDBUF) && n == 4 {
		*(*uint32)(unsafe.Pointer(&value[0])) /= 2 // the kernel returns the double of what was set
	}
	if _, _, e := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(o.level), uintptr(o.id), uintptr(unsafe.Pointer(&value[0])), uintptr(n), 0); e != 0 {
		return e
	}
	return nil
}

func (g *Group) repaired(s *Socket, changed []string) {
	for _, what := range changed {
		g.watch.later(Repaired{g, s, "set " + what + " on the listening socket"})
	}
}

// clean resets a socket that is parked. One that cannot be reset is replaced by a new one,
// at once if its queue is empty, else only if it is to be given to a worker (now): the
// connections in it are reset then. It returns the socket that is in the place.
func (g *Group) clean(s *Socket, now bool) *Socket {
	changed, err := s.reset(now)
	g.repaired(s, changed)
	if err == nil || s.stuck() || g.cfg.Balance == Shared || !now && s.Pending() > 0 {
		return s
	}
	n, rerr := g.replace(s)
	if rerr != nil {
		g.watch.later(Failed{g, fmt.Errorf("cannot replace a socket of %v: %w (%w)", g.addr, rerr, err)})
		return s
	}
	g.watch.later(Detached{g, s, fmt.Errorf("replaced a socket of %v: %w", g.addr, err)})
	return n
}
