package handoff

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// A connection from this process reaches one chosen socket of a group, whether connections
// are steered to it or not: a rule at the top of the steering program knows it by its source,
// address and port. The rule is there only while a probe is under way, and nobody else can use
// it: the port is bound by the probe, exclusively (without SO_REUSEADDR and SO_REUSEPORT)
// until the rule is gone, and a packet from elsewhere that has an address of this host as its
// source is dropped by the kernel.

// Probe is a connection from this process to one socket of a group.
type Probe struct {
	group  *Group
	socket *Socket
	fd     int // -1: closed, or the caller's
	from   netip.AddrPort
	lost   bool // for some time there was no rule for it
}

// maxProbes limits the probes of a group: each costs the connections of all a few
// instructions.
const maxProbes = 32

// ErrManyProbes means that the group has as many probes under way as it may.
var ErrManyProbes = errors.New("too many probes of this address are under way")

// ErrShared means that all workers have the same socket.
var ErrShared = errors.New("all workers share one socket")

// Probe begins a connection to a socket, in every balance but Shared; FD becomes writable
// when it is established, and has an SO_ERROR if it cannot be. It comes from an address of
// this host that reaches the group's: that one itself, or loopback's if it is a wildcard.
//
// The rule for it stays until [Probe.Close] or [Probe.Detach], so call one of these: with SYN
// cookies the kernel looks the socket up twice, at the SYN and at the end of the handshake.
func (g *Group) Probe(s *Socket) (*Probe, error) {
	switch {
	case g.cfg.Datagram:
		return nil, fmt.Errorf("cannot probe udp %v: only TCP has connections", g.addr)
	case g.cfg.Balance == Shared:
		return nil, fmt.Errorf("cannot probe one socket of %v: %w", g.addr, ErrShared)
	case g.hash:
		return nil, fmt.Errorf("cannot probe one socket of %v: %w", g.addr, ErrNoSteering)
	case g.hidden:
		return nil, fmt.Errorf("cannot probe %v: another address has taken its place", g.addr)
	case s.group != g || s.closed || !slices.Contains(g.order, s):
		return nil, fmt.Errorf("cannot probe %v: the socket is closed", g.addr)
	case len(g.probes) >= maxProbes:
		return nil, fmt.Errorf("cannot probe %v: %w", g.addr, ErrManyProbes)
	}
	p := &Probe{group: g, socket: s, fd: -1}
	if err := p.bind(); err != nil {
		return nil, fmt.Errorf("cannot probe %v: %w", g.addr, err)
	}
	g.probes = append(g.probes, p)
	err := g.refresh()
	if err == nil && !p.Reaches() {
		err = errors.New("the kernel has no rule for it")
	}
	if err == nil {
		sa, _ := sockaddr(netip.AddrPortFrom(p.from.Addr(), g.addr.Port()))
		if err = unix.Connect(p.fd, sa); err == unix.EINPROGRESS {
			err = nil
		}
	}
	if err != nil {
		p.Close()
		return nil, fmt.Errorf("cannot probe %v: %w", g.addr, err)
	}
	s.probed = append(s.probed[max(len(s.probed)-maxProbes+1, 0):], p.from)
	return p, nil
}

// dropProbes removes connections of probes from the queue of a parked socket, if nothing else is
// in it: nobody waits for an answer, and no worker is to be replaced for them.
func (s *Socket) dropProbes() bool {
	n := s.Pending()
	if n == 0 || len(s.probed) == 0 || n > len(s.probed) || s.accepting {
		return false
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	const established, finWaits, closeWait, lastAck = 1 << 1, 1<<4 | 1<<5, 1 << 8, 1 << 9
	ours, family := 0, byte(unix.AF_INET)
	if s.group.addr.Addr().Is6() { // those of IPv4, too
		family = unix.AF_INET6
	}
	err = dumpDiag(fd, family, unix.IPPROTO_TCP, established|finWaits|closeWait|lastAck, s.group.addr.Port(), func(m []byte) {
		peer := diagPeer(m)
		inode := binary.NativeEndian.Uint32(m[68:]) // 0: nobody has accepted it
		if inode == 0 && slices.Contains(s.probed, netip.AddrPortFrom(peer.Addr().Unmap(), peer.Port())) {
			ours++
		}
	})
	if err != nil || ours != n {
		return false
	}
	s.probed, s.dropping = nil, true
	s.accept(n, func() {})
	return true
}

// FD is the connection, with O_NONBLOCK; the probe owns it.
func (p *Probe) FD() int { return p.fd }

// From is its source.
func (p *Probe) From() netip.AddrPort { return p.from }

// Reaches reports whether the rule has been there since the beginning: if not, another
// socket may have got the connection.
func (p *Probe) Reaches() bool { return !p.lost }

// Close ends the rule, and closes the connection.
func (p *Probe) Close() {
	if fd := p.Detach(); fd >= 0 {
		unix.Close(fd)
	}
}

// Detach ends the rule, and returns the connection, which is the caller's from then on; -1:
// it was before. Call it when the connection has [Probe.Arrived], or was answered: before,
// it may still go to another socket.
func (p *Probe) Detach() (fd int) {
	g := p.group
	g.probes = slices.DeleteFunc(g.probes, func(o *Probe) bool { return o == p })
	if err := g.refresh(); err != nil {
		g.watch.later(Failed{g, err})
	}
	fd, p.fd = p.fd, -1
	return fd
}

// Arrived reports whether the socket has the connection, in its queue or as a handshake that
// needs no rule any more. Any goroutine may call it, before Detach.
func (p *Probe) Arrived() (bool, error) {
	state, err := diagState(netip.AddrPortFrom(p.from.Addr(), p.group.addr.Port()), p.from)
	return err == nil && state != unix.BPF_TCP_LISTEN, err
}

// Await waits until the connection has Arrived, or has failed. Any goroutine may call it, before
// Detach.
func (p *Probe) Await(until time.Time) error {
	if err := awaitConnect(p.fd, until); err != nil {
		return err
	}
	for {
		arrived, err := p.Arrived()
		switch {
		case arrived:
			return nil
		case time.Now().After(until):
			return cmp.Or(err, os.ErrDeadlineExceeded)
		case err != nil && err != unix.ENOENT: // that: it is over already
			return err
		}
		time.Sleep(time.Millisecond)
	}
}

// awaitConnect waits until a connect has ended.
func awaitConnect(fd int, until time.Time) error {
	for {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		n, err := unix.Poll(poll, max(int(time.Until(until).Milliseconds()), 0))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return err
		case n == 0:
			return os.ErrDeadlineExceeded
		default:
			errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
			if err == nil && errno != 0 {
				err = unix.Errno(errno)
			}
			return err
		}
	}
}

// bind makes the socket, and gives it a source.
func (p *Probe) bind() error {
	err := error(unix.EADDRNOTAVAIL)
	for _, from := range p.group.sources() {
		sa, family := sockaddr(netip.AddrPortFrom(from, 0))
		if p.fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP); err != nil {
			continue
		}
		if err = unix.Bind(p.fd, sa); err == nil {
			var at netip.AddrPort
			if at, err = Bound(p.fd); err == nil {
				p.from = netip.AddrPortFrom(from, at.Port())
				return nil
			}
		}
		unix.Close(p.fd)
		p.fd = -1
	}
	return err
}

// sources are the addresses from and to which a probe may connect, the best first: not one
// that another group has to itself.
func (g *Group) sources() (all []netip.Addr) {
	at := g.addr.Addr()
	if !at.IsUnspecified() {
		return []netip.Addr{at}
	}
	taken := func(a netip.Addr) bool {
		return slices.ContainsFunc(g.watch.groups, func(o *Group) bool {
			return o != g && !o.cfg.Datagram && !o.hidden && o.addr.Port() == g.addr.Port() &&
				(o.addr.Addr() == a || a.Is4() && at.Is6() && o.addr.Addr() == netip.IPv4Unspecified())
		})
	}
	if at.Is6() {
		all = append(all, netip.IPv6Loopback())
	}
	if at.Is4() || !g.cfg.V6Only {
		for _, last := range []byte{1, 53, 101, 203} {
			all = append(all, netip.AddrFrom4([4]byte{127, 0, 0, last}))
		}
	}
	return slices.DeleteFunc(all, taken)
}

// refresh attaches the program again, with the rules of the probes that are under way.
func (g *Group) refresh() error {
	if err := g.apply(); err != nil {
		return err
	}
	if g.base == nil || len(g.order) == 0 { // nothing is known of what is attached, or there is nothing
		for _, p := range g.probes {
			p.lost = true
		}
		return nil
	}
	return g.attach(g.base) // where apply has nothing to steer to
}

// rules are those of the probes, for the sockets' present indexes.
func (g *Group) rules() (rules []rule) {
	for _, p := range g.probes {
		if at := slices.Index(g.order, p.socket); at >= 0 && !p.lost {
			rules = append(rules, rule{p.from, at})
		} else {
			p.lost = true
		}
	}
	return rules
}

// loseProbes: there is no rule for the probes that are under way.
func (g *Group) loseProbes() {
	for _, p := range g.probes {
		p.lost = true
	}
}

// rule sends the connections from one source to the socket of an index.
type rule struct {
	from  netip.AddrPort
	index int
}

// memPort is the word of memory that has the source port.
const memPort = 1

// probeRules stands before a program: what matches a rule goes to its socket, all else goes
// on. The data of a TCP packet begins behind the header for such programs, so both addresses
// and the port are read from the IP header on. One with IPv6 extension headers matches none.
func probeRules(rules []rule) program {
	if len(rules) == 0 {
		return nil
	}
	var v4, v6 program
	for len(rules) > 0 {
		from := rules[0].from.Addr()
		same := func(r rule) bool { return r.from.Addr() == from }
		var ports program
		for _, r := range rules {
			if same(r) {
				ports = append(ports, unix.SockFilter{Code: jeqK, Jf: 1, K: uint32(r.from.Port())}, unix.SockFilter{Code: retK, K: uint32(r.index)})
			}
		}
		rules = slices.DeleteFunc(slices.Clone(rules), same)
		if from.Is4() {
			v4 = append(v4, fromAddress(netOff+12, from.AsSlice(), ports)...)
		} else {
			v6 = append(v6, fromAddress(netOff+8, from.AsSlice(), ports)...)
		}
	}
	if v4 != nil {
		v4 = append(program{
			{Code: ldMem, K: memPort}, // the first byte
			{Code: andK, K: 0xf},
			{Code: lshK, K: 2},
			{Code: tax},
			{Code: ldHInd, K: netOff}, // source port
			{Code: st, K: memPort},
		}, v4...)
	}
	if v6 != nil {
		v6 = append(program{
			{Code: ldBAbs, K: netOff + 6}, // next header
			{Code: jeqK, Jt: 1, K: unix.IPPROTO_TCP},
			{Code: ja, K: uint32(2 + len(v6))},
			{Code: ldHAbs, K: netOff + 40},
			{Code: st, K: memPort},
		}, v6...)
	}
	v4 = append(v4, unix.SockFilter{Code: ja, K: uint32(len(v6))})
	p := program{
		{Code: ldBAbs, K: netOff}, // version, and the length of IPv4's header
		{Code: st, K: memPort},
		{Code: rshK, K: 4},
		{Code: jeqK, Jf: 1, K: 6},
		{Code: ja, K: uint32(len(v4))},
	}
	return slices.Concat(p, v4, v6)
}

// fromAddress jumps over then unless the bytes of the packet from off on are an address; else
// then finds the source port in A.
func fromAddress(off uint32, address []byte, then program) (p program) {
	words := len(address) / 4
	for i := range words {
		word := uint32(address[4*i])<<24 | uint32(address[4*i+1])<<16 | uint32(address[4*i+2])<<8 | uint32(address[4*i+3])
		p = append(p,
			unix.SockFilter{Code: ldWAbs, K: off + uint32(4*i)},
			unix.SockFilter{Code: jeqK, Jf: uint8(2*(words-1-i) + 1 + len(then)), K: word})
	}
	return append(append(p, unix.SockFilter{Code: ldMem, K: memPort}), then...)
}
