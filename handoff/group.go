package handoff

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Balance is how the new connections of an address are distributed.
type Balance int

const (
	// Even is random among the serving sockets, corrected by their accept queues: new
	// connections are steered away from a stalled worker within about 20 ms.
	Even Balance = iota
	// Sticky sends a client address to the same slot, also across reloads.
	Sticky
	// Shared is one socket for all workers.
	Shared
)

func (b Balance) String() string {
	return [...]string{"even", "sticky", "shared"}[b]
}

// Config describes a [Group].
type Config struct {
	Addr    netip.AddrPort // port 0: any free port
	V6Only  bool           // an IPv6 wildcard without IPv4
	Balance Balance
	// Beside allows other sockets of the same user on the port, if they have
	// SO_REUSEPORT: for an unused address on a port that is in use on others.
	Beside bool
	// Datagram is a UDP address, of the sockets that programs bind: see [Watch.Bind].
	// Its balance is by the client's address and port.
	Datagram bool
	// Aside keeps new connections away until [Group.Show], where this process may end that
	// again (CAP_NET_RAW): they go to a less specific address.
	Aside bool
	// NoProgram disables the steering program, as if the kernel did not support it: for
	// tests, and for kernels that accept and ignore it.
	NoProgram bool
}

// Group is one listening TCP address and its sockets, or one of UDP: see datagram.go.
//
// Steering is correct only while its record of the kernel's index order is, so no other
// socket may listen in the group: an index is a place in the order of listen() calls, and
// the last socket moves into the place of one that leaves.
type Group struct {
	watch   *Watch
	cfg     Config
	addr    netip.AddrPort
	traits  traits    // of the first socket
	backlog int       // in effect after listen(2) with the maximum
	order   []*Socket // by the kernel's index
	targets []*Socket // by slot, from the last Steer; nil: unserved
	places  []int     // of each target: those of one place share its connections
	program program   // attached to the group: the rules of probes, and base
	base    program   // what is attached but for them
	probes  []*Probe  // under way
	hash    bool      // no program: the kernel's hash over all sockets decides
	steered uint64    // programs attached
	hidden  bool      // no new connection comes to it, see Hide
	aside   bool      // likewise, until Show
	noWait  bool      // nobody serves, and connections wait at the targets, see LetWait

	balance  balancer
	armed    bool      // the targets are armed: at rest
	calm     bool      // the last check found empty queues; tick will arm
	next     time.Time // when tick must be called; zero: not by time
	maxQueue int       // of all checks
	checked  time.Time // last check for violations

	open   map[netip.AddrPort]struct{} // half-open handshakes at openAt; not modified
	openAt time.Time
}

// join makes fd, which is bound, the last member of the group. It listens then, also for a
// program that has bound it, and may hold its lock.
func (g *Group) join(fd, slot int) (*Socket, error) {
	s := &Socket{group: g, fd: fd, inode: inodeOf(fd), slot: slot, foreign: g.cfg.Datagram}
	if n := len(g.order); n > 0 {
		s.born = 1 + slices.MaxFunc(g.order, func(a, b *Socket) int { return cmp.Compare(a.born, b.born) }).born
	}
	err := s.locking(func(fd int) error {
		if g.cfg.Datagram {
			return nil
		}
		had, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT)
		if err == nil {
			err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		}
		if err == nil && g.aside {
			err = away(fd)
		}
		if err == nil {
			err = unix.Listen(fd, maxBacklog)
		}
		if err != nil { // it stays the program's, as it was
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, had)
			if g.aside {
				show(fd)
			}
		}
		return err
	})
	if err != nil {
		s.discard()
		return nil, fmt.Errorf("cannot listen on %v: %w", g.addr, err)
	}
	if err := g.watch.add(s); err != nil {
		g.watch.remove(s)
		s.discard()
		return nil, fmt.Errorf("cannot watch %v: %w", g.addr, err)
	}
	g.order = append(g.order, s)
	return s, nil
}

// maxBacklog asks for the largest backlog, which the kernel cuts to somaxconn.
const maxBacklog = -1

// Addr is the address, with the port that the kernel chose if it was 0.
func (g *Group) Addr() netip.AddrPort { return g.addr }

// Datagram reports whether it is of UDP.
func (g *Group) Datagram() bool { return g.cfg.Datagram }

// Balance is how new connections are distributed.
func (g *Group) Balance() Balance { return g.cfg.Balance }

// SetBalance changes the balance between Even and Sticky, immediately, for new
// connections. It cannot be changed to or from Shared.
func (g *Group) SetBalance(b Balance) error {
	if b == g.cfg.Balance || g.cfg.Datagram {
		return nil
	}
	if b == Shared || g.cfg.Balance == Shared {
		return fmt.Errorf("cannot change the balance of %v from %v to %v: shared has other sockets", g.addr, g.cfg.Balance, b)
	}
	g.cfg.Balance = b
	g.balance.reset(len(g.targets))
	g.armed, g.calm, g.next = false, false, time.Time{}
	err := g.apply()
	for _, s := range g.targets {
		if s != nil {
			g.arrange(s)
		}
	}
	g.rest()
	return err
}

// Steerable reports whether connections can be steered. If not, a slot's socket passes
// from one worker of the slot to the next, both accept from it during a reload, and
// connections cannot be directed to one generation.
func (g *Group) Steerable() bool { return !g.hash && g.cfg.Balance != Shared }

// Sockets returns the sockets in the kernel's order.
func (g *Group) Sockets() []*Socket {
	return slices.DeleteFunc(slices.Clone(g.order), func(s *Socket) bool { return s.stranger })
}

// Steered counts the programs attached so far.
func (g *Group) Steered() uint64 { return g.steered }

// Take returns a socket for a worker in slot: a target that no worker has, else one with
// queued connections, else any parked one, else a new one. [Socket.Release] returns it.
func (g *Group) Take(slot int) (*Socket, error) {
	s := g.pick(slot)
	if s != nil && !s.Held() {
		if s = g.renew(s, true); s.stuck() && g.Steerable() {
			s = nil // its worker would wait in accept
		}
	}
	if s == nil {
		if g.cfg.Datagram {
			return nil, fmt.Errorf("cannot take a socket of udp %v: %w", g.addr, errNoSpare)
		}
		var err error
		if s, err = g.grow(slot); err != nil {
			return nil, fmt.Errorf("cannot bind another socket to %v: %w", g.addr, err)
		}
	}
	g.hand(s, slot)
	return s, nil
}

func (g *Group) hand(s *Socket, slot int) {
	s.waited = max(s.waited, s.pendingIfWaits())
	s.holders++
	s.slot, s.used, s.quiet, s.probed = slot, true, false, nil
	g.arrange(s)
}

// Ranks of the sockets that [Group.Take] may return.
const (
	rankNone   = iota
	rankParked // any parked one
	rankQueue  // has connections in its queue
	rankTarget // connections go to it
	rankSlot   // that of the slot
	rankHash   // the slot's, if the kernel's hash decides
)

func (g *Group) pick(slot int) *Socket {
	if g.cfg.Balance == Shared {
		return g.order[0]
	}
	best, _ := g.best(slot)
	if g.hash && len(g.order) == 1 && !g.order[0].Held() && best == nil {
		return g.order[0] // the first socket goes to the first worker
	}
	return best
}

func (g *Group) best(slot int) (best *Socket, rank int) {
	for _, s := range g.order {
		r := rankNone
		switch {
		case s.stranger:
		case g.hash && s.slot == slot:
			r = rankHash // also while the previous worker still has it
		case s.Held() || s.reserved || s.stuck():
		case g.hash:
		case g.cfg.Datagram && s.connected():
		case g.isTarget(s) && s.slot == slot:
			r = rankSlot
		case g.isTarget(s):
			r = rankTarget
		case s.Pending() > 0:
			r = rankQueue
		case g.cfg.Datagram: // the worker has one of its own
		default:
			r = rankParked
		}
		if r > rank {
			best, rank = s, r
		}
	}
	return best, rank
}

// arrange sets which events the watch reports of a socket.
func (g *Group) arrange(s *Socket) {
	switch target := g.isTarget(s); {
	case s.closed:
	case g.cfg.Datagram && !target: // what comes late is not handed to anybody
		g.watch.disarm(s)
	case !s.Held() && !target && len(g.targets) > 0 && g.cfg.Balance != Shared:
		// No connection should arrive here: report it.
		g.watch.arm(s)
	case target && g.armed:
		g.watch.arm(s)
	default:
		g.watch.disarm(s)
	}
}

// rest arms the targets: the next connection triggers a check of the queues.
func (g *Group) rest() {
	if g.cfg.Balance != Even && !g.cfg.Datagram || !g.Steerable() {
		return
	}
	if n := len(g.targets); n < 2 && !g.cfg.Datagram { // nothing to choose from
		return
	}
	g.armed, g.next = true, time.Time{}
	for _, s := range g.targets {
		if s != nil {
			g.watch.arm(s)
		}
	}
}

// arrived handles a connection at an armed target. It and tick keep the balance.
func (g *Group) arrived(now time.Time) {
	if !g.armed {
		return
	}
	g.armed = false
	for _, s := range g.targets {
		if s != nil {
			g.watch.disarm(s)
		}
	}
	if g.cfg.Datagram {
		g.calm, g.next = true, now.Add(repairEvery)
		return
	}
	g.look(now)
	if g.next.IsZero() {
		g.next = now.Add(lookEvery) // gives the worker time to accept
	}
}

// tick checks the accept queues, at most every few milliseconds and only after
// connections have arrived: there is no work per connection, and none when idle.
func (g *Group) tick(now time.Time) error {
	if g.next.IsZero() || now.Before(g.next) {
		return nil
	}
	if g.calm {
		g.calm = false
		g.rest()
		return nil
	}
	err := g.look(now)
	if g.next.IsZero() {
		g.calm = true
		g.next = now.Add(restAfterCalm)
	}
	return err
}

func (g *Group) look(now time.Time) error {
	lengths := make([]int, len(g.targets))
	for i, s := range g.targets {
		lengths[i] = -1
		if s != nil {
			lengths[i] = s.Pending()
			g.maxQueue = max(g.maxQueue, lengths[i])
		}
	}
	changed, again := g.balance.look(now, lengths)
	g.next = time.Time{}
	if again > 0 {
		g.next = now.Add(again)
	}
	if changed {
		return g.apply()
	}
	return nil
}

// Stalled returns the slots without new connections, because their accept queue does not
// move while others do.
func (g *Group) Stalled() []int {
	var slots []int
	for i, s := range g.targets {
		if s != nil && g.balance.away(i) && !slices.Contains(slots, g.places[i]) {
			slots = append(slots, g.places[i])
		}
	}
	return slots
}

// isTarget reports whether new connections go to a socket.
func (g *Group) isTarget(s *Socket) bool { return slices.Contains(g.targets, s) }

// halfOpen lists half-open handshakes. Callers with the same time share one result.
func (g *Group) halfOpen(now time.Time) (map[netip.AddrPort]struct{}, error) {
	if now.Equal(g.openAt) {
		return g.open, nil
	}
	open, err := halfOpen(g.addr)
	if err == nil {
		g.open, g.openAt = open, now
	}
	return open, err
}

// MaxQueue is the longest accept queue that the queue checks have seen.
func (g *Group) MaxQueue() int { return g.maxQueue }

// Shutdown ends the listening in every process that has a duplicate of a socket; [Group.Close]
// follows. Queued connections are reset; no datagram comes any more.
func (g *Group) Shutdown() {
	for _, s := range g.Sockets() {
		switch {
		case s.closed:
		case g.cfg.Datagram:
			s.locking(away)
		default:
			s.shutdown()
		}
	}
}

// Close closes the sockets. Queued connections are reset, unless a worker still has the
// socket.
func (g *Group) Close() {
	for _, s := range g.Sockets() {
		g.close(s)
	}
	g.order, g.targets, g.places, g.next, g.armed = nil, nil, nil, time.Time{}, false
	g.watch.groups = slices.DeleteFunc(g.watch.groups, func(o *Group) bool { return o == g })
}
