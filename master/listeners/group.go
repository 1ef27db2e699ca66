package listeners

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"handoff/handoff"
	"handoff/internal/listener"
)

// group is a TCP address, or one of UDP: a socket for each worker.
type group struct {
	*handoff.Group
	store  Store
	stored map[*handoff.Socket]bool // in the store
}

func (t *Table) newGroup(g *handoff.Group) *group {
	k := &group{g, t.cfg.Store, map[*handoff.Socket]bool{}}
	k.storeNew()
	return k
}

// storeNew stores the sockets that are not in the store yet, and removes those that were
// replaced.
func (g *group) storeNew() {
	for s := range g.stored {
		if s.Closed() {
			delete(g.stored, s)
			g.store.Remove(SocketName(s.Inode()))
		}
	}
	for _, s := range g.Sockets() {
		if !g.stored[s] {
			g.stored[s] = true
			g.store.Store(SocketName(s.Inode()), s.FD())
		}
	}
}

// storeNew stores the new sockets of an address.
func (t *Table) storeNew(a *Address) {
	if g, ok := a.kind.(*group); ok {
		g.storeNew()
	}
}

// grown has the next master know a socket before the one in whose place it comes is gone:
// by the index of each, connections are steered.
func (t *Table) grown(g *handoff.Group) {
	if a := t.ofGroup(g); a != nil && t.cfg.Save != nil {
		t.storeNew(a)
		t.cfg.Save()
	}
}

func (g *group) name() string {
	if g.Datagram() {
		return "udp " + g.Addr().String()
	}
	return g.Addr().String()
}

func (g *group) take(slot int) (*handoff.Socket, int, error) {
	s, err := g.Take(slot)
	if err != nil {
		return nil, -1, err
	}
	g.storeNew()
	return s, s.FD(), nil
}

func (g *group) kept(each func(string, int)) {
	for _, s := range g.Sockets() {
		each(SocketName(s.Inode()), s.FD())
	}
}

func (g *group) state(r *AddressState) {
	s := g.State()
	r.Bound, r.Steerable, r.Balance, r.Hidden, r.Aside = s.Addr, s.Steerable, s.Balance.String(), s.Hidden, s.Aside
	for _, o := range s.Sockets {
		r.Sockets = append(r.Sockets, SocketState{o.Inode, o.Slot, o.OwnFlags, o.Foreign, o.Stranger, o.Waits, o.Born})
	}
	if s.Datagram {
		r.Kind = steeredUDP
		if s.Addr.Addr().Is6() {
			r.Kind++
		}
	}
}

func (g *group) close() {
	for s := range g.stored {
		g.store.Remove(SocketName(s.Inode()))
	}
	g.Close()
}

// SocketName is the name in the store of the listening socket with an inode.
func SocketName(inode uint64) string { return "s" + strconv.FormatUint(inode, 10) }

func (t *Table) groupConfig(v6only bool) handoff.Config {
	return handoff.Config{V6Only: v6only, Balance: t.cfg.Balance, NoProgram: t.cfg.NoProgram}
}

func (t *Table) openTCP(e Endpoint) (kind, error) {
	if e.Port < 0 || e.Port > 65535 {
		return nil, unix.EINVAL
	}
	g, err := t.listenTCP(e)
	if errors.Is(err, unix.EADDRINUSE) {
		return nil, &InUse{err, listener.Who(uint16(e.Port))}
	}
	if err != nil {
		return nil, err
	}
	return t.newGroup(g), nil
}

// InUse means that another process has an address.
type InUse struct {
	error        // of the kernel
	Who   string // listens there, in words: "nginx (pid 12) listens there"
}

// Unwrap returns the kernel's error.
func (e *InUse) Unwrap() error { return e.error }

func (e *InUse) Error() string {
	return e.error.Error() + ": " + e.Who
}

func (t *Table) listenTCP(e Endpoint) (*handoff.Group, error) {
	cfg := t.groupConfig(e.V6Only)
	cfg.Beside = t.cfg.Private
	if !e.Any {
		addr, err := netip.ParseAddr(e.Addr)
		if err != nil {
			return nil, unix.EINVAL
		}
		cfg.Addr = netip.AddrPortFrom(addr, uint16(e.Port))
		return t.listen(cfg)
	}
	// No address means both families if possible, as in Node's primary and Go's
	// net.Listen.
	cfg.Addr = netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(e.Port))
	v4 := netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(e.Port))
	if slices.ContainsFunc(t.inherited, func(p *inherited) bool { return p.addr == v4 }) {
		cfg.Addr = v4
		return t.listen(cfg)
	}
	g, err := t.listen(cfg)
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EINVAL) {
		cfg.Addr = v4
		return t.listen(cfg)
	}
	return g, err
}

// listen opens a TCP address: from a socket that was passed for it, or a new one.
func (t *Table) listen(cfg handoff.Config) (*handoff.Group, error) {
	fd := t.inheritedTCP(cfg.Addr, cfg.V6Only)
	if fd < 0 {
		// An address that changes in a reload is beside the one of before.
		cfg.Beside = cfg.Beside || slices.ContainsFunc(t.Overlapping(cfg.Addr, cfg.V6Only), func(a *Address) bool { return a.hidden() || a.group.Addr() != cfg.Addr })
		cfg.Aside = t.isCovered(cfg.Addr, cfg.V6Only)
		return t.watch.Listen(cfg)
	}
	g, why, err := t.watch.Inherit(cfg, fd)
	if why != nil {
		t.note(OneSocket{why})
	}
	return g, err
}

func (t *Table) adoptTCP(at netip.AddrPort, v6only bool, fd int) (kind, error) {
	cfg := t.groupConfig(v6only)
	cfg.Aside = t.isCovered(at, v6only)
	g, err := t.watch.Adopt(cfg, fd)
	if err != nil {
		return nil, err
	}
	return t.newGroup(g), nil
}

// privateOf returns an unused address for a dry run. The port is the same (Node compares
// it), the address is one of loopback's 16 million: no connection for another service
// arrives there.
func privateOf(e Endpoint) Endpoint {
	pid := os.Getpid()
	e.Any = false
	if e.Family == Unix {
		e.Addr += ".try-" + strconv.Itoa(pid)
		return e
	}
	n := uint32(pid) * 2654435761
	e.Addr = netip.AddrFrom4([4]byte{127, byte(1 + n>>24%254), byte(n >> 16), byte(1 + n>>8%254)}).String()
	return e
}

func (t *Table) restoreGroup(r AddressState, e Endpoint, fd func(string) int) (kind, error) {
	s := handoff.State{Addr: r.Bound, Datagram: e.Type == Datagram, V6Only: r.V6Only, Balance: balanceOf(r.Balance), Steerable: r.Steerable, Hidden: r.Hidden, Aside: r.Aside}
	for _, sr := range r.Sockets {
		o := handoff.SocketState{Inode: sr.Inode, Slot: sr.Slot, OwnFlags: sr.Own, Foreign: sr.Foreign, Stranger: sr.Stranger, Waits: sr.Waits, Born: sr.Born}
		for _, l := range r.Leases {
			if l.Inode == sr.Inode && !l.Closed {
				o.Holders++
			}
		}
		s.Sockets = append(s.Sockets, o)
	}
	g, err := t.watch.Restore(s, func(inode uint64) int { return fd(SocketName(inode)) })
	if err != nil {
		return nil, err
	}
	k := &group{g, t.cfg.Store, map[*handoff.Socket]bool{}}
	for _, o := range g.Sockets() {
		k.stored[o] = true // it came from there
	}
	return k, nil
}

func balanceOf(name string) handoff.Balance {
	for _, b := range []handoff.Balance{handoff.Even, handoff.Sticky, handoff.Shared} {
		if b.String() == name {
			return b
		}
	}
	return handoff.Even
}
