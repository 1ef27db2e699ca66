package handoff

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// A program of the same user can join the group with SO_REUSEPORT: a second copy that
// somebody starts by hand. It takes a place in the kernel's order, and moves others when it
// leaves. So its sockets have a place in the record, too, and the steering program never
// selects them. They are found by sock_diag(7): before and after each join, when the
// steering changes, about every second while connections arrive, and when connections
// arrive where they should not.
//
// Two strangers that join between two looks, before a socket of the owner's, and leave one
// by one, leave the order unknown.

const (
	stateListen      = 1 << 10 // TCPF_LISTEN
	stateUnconnected = 1 << 7  // TCPF_CLOSE
)

// listener is a listening socket of the machine.
type listener struct {
	inode  uint64
	uid    uint32
	device uint32
	addr   netip.Addr
}

// listenersAt returns the listening sockets of a family that are bound to a port: of UDP,
// those that have no peer.
func listenersAt(family, protocol byte, port uint16) (all []listener, err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	states := uint32(stateListen)
	if protocol == unix.IPPROTO_UDP {
		states = stateUnconnected
	}
	err = dumpDiag(fd, family, protocol, states, port, func(m []byte) { all = append(all, diagListener(m)) })
	return all, err
}

// diagListener reads a struct inet_diag_msg.
func diagListener(m []byte) listener {
	l := listener{device: binary.NativeEndian.Uint32(m[40:]), uid: binary.NativeEndian.Uint32(m[64:]), inode: uint64(binary.NativeEndian.Uint32(m[68:]))}
	if l.addr = netip.AddrFrom16([16]byte(m[8:24])); m[0] == unix.AF_INET {
		l.addr = netip.AddrFrom4([4]byte(m[8:12]))
	}
	return l
}

// members returns the inodes of the sockets in the kernel's group; false: they cannot be
// found out.
func (g *Group) members() ([]uint64, bool) {
	i := slices.IndexFunc(g.order, func(s *Socket) bool { return !s.stranger && s.listening() })
	if !g.Steerable() || i < 0 {
		return nil, false
	}
	_, family := sockaddr(g.addr)
	all, err := listenersAt(byte(family), g.protocol(), g.addr.Port())
	if err != nil {
		return nil, false
	}
	own := slices.IndexFunc(all, func(l listener) bool { return l.inode == g.order[i].inode })
	if own < 0 {
		return nil, false
	}
	var inodes []uint64
	for _, l := range all {
		if l.uid == all[own].uid && l.device == all[own].device && l.addr == all[own].addr {
			inodes = append(inodes, l.inode)
		}
	}
	return inodes, true
}

// newcomers returns those of the members that have no place in the record.
func (g *Group) newcomers(members []uint64) []uint64 {
	known := make(map[uint64]bool, len(g.order))
	for _, s := range g.order {
		known[s.inode] = true
	}
	others := slices.DeleteFunc(slices.Clone(members), func(n uint64) bool { return known[n] })
	for _, s := range g.watch.sockets {
		if len(others) == 0 {
			break
		}
		others = slices.DeleteFunc(others, func(n uint64) bool { return s.inode == n })
	}
	return others
}

// noteStrangers brings the record up to date with who else has joined or left, and reports
// whether it has changed.
func (g *Group) noteStrangers() (changed bool) {
	members, ok := g.members()
	if !ok {
		return false
	}
	for _, s := range slices.Clone(g.order) {
		if s.stranger && !slices.Contains(members, s.inode) {
			g.leave(s)
			changed = true
			g.watch.later(Stranger{Group: g, Inode: s.inode, Left: true})
		}
	}
	for _, s := range g.Sockets() {
		// One that was connected, and is so no longer, is listed all the same.
		if g.cfg.Datagram && (!slices.Contains(members, s.inode) || g.program != nil && !g.member(s)) && g.noteConnected(s) {
			changed = true
		}
	}
	for _, n := range g.newcomers(members) {
		g.order = append(g.order, &Socket{group: g, fd: -1, inode: n, slot: -1, stranger: true, closed: true})
		changed = true
		g.watch.later(Stranger{Group: g, Inode: n})
	}
	if changed {
		g.program = nil // its indexes may mean others now
	}
	return changed
}

// grow adds a socket to the group.
func (g *Group) grow(slot int) (s *Socket, err error) {
	const tries = 4
	for try := range tries {
		g.Admit()
		strange, shut := g.noteStrangers(), g.noteShutdowns()
		if strange || shut {
			if err := g.reattach(); err != nil {
				return nil, err
			}
		}
		fd, err := bind(g.addr, g.cfg.V6Only, false, g.traits)
		if err != nil {
			return nil, err
		}
		if s, err = g.join(fd, slot); err != nil {
			return nil, err
		}
		// One that shuts down again and again is not to keep others from joining.
		if members, ok := g.members(); (!ok || len(g.newcomers(members)) == 0) && (try == tries-1 || !g.anyShut()) {
			return s, nil
		}
		// A stranger has joined, or a holder has shut a socket down, at the same time: before
		// or after it, nobody can say. Without it there is no doubt.
		g.drop(s)
	}
	return nil, unix.EBUSY
}

// drop takes a socket out of the group, and closes it.
func (g *Group) drop(s *Socket) error {
	err := s.shutdown() // also for other holders of a duplicate
	if err == errLocked {
		return err // it is still in its place
	}
	g.watch.remove(s)
	g.leave(s)
	g.close(s)
	return err
}
