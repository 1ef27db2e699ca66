package handoff

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Balance is how the new connections of an address are spread.
type Balance int

const (
	// Even is random among the serving sockets, corrected by their accept
	// queues: a worker that stalls is steered away within about 20 ms.
	Even Balance = iota
	// Sticky sends a client address to the same slot, across reloads.
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
	V6Only  bool           // an IPv6 wildcard that leaves IPv4 alone
	Balance Balance
	// Beside binds beside sockets of the same user that have the port, if they have
	// SO_REUSEPORT: an address where nobody else is, on a port that others serve.
	Beside bool
	Watch  *Watch // required; stays the caller's
	// NoProgram does without the steering program, as if the kernel refused
	// it: for tests, and for kernels that accept and ignore it.
	NoProgram bool
	// Joined and Left, if set, are told of every socket that the group owns
	// from now on, and of those that it does not any more, before it closes
	// them: for who keeps duplicates.
	Joined, Left func(*Socket)
}

// Group is one listening TCP address and its sockets.
//
// Its record of the kernel's index order is what makes steering right, so
// nobody else may listen in the group: an index is a place in the order of
// listen() calls, and a socket that leaves has the last one moved into its
// place.
type Group struct {
	queueMost int // of all looks

	cfg     Config
	addr    netip.AddrPort
	backlog int       // in force after listen(2) with the most
	order   []*Socket // by the kernel's index
	seats   []*Socket // by slot, what Steer named last; nil is unserved
	program program   // attached to the group
	hash    bool      // no program: the kernel's hash over all sockets decides
	balance balancer
	armed   bool      // the seats are armed: at rest
	calm    bool      // the last look found empty queues; Tick will arm
	next    time.Time // when Tick wants to be called; zero: not by time
	steered uint64    // programs attached

	open   map[netip.AddrPort]struct{} // handshakes under way at openAt; not changed
	openAt time.Time
}

// Listen opens an address. The error is the kernel's: errors.Is(err,
// unix.EADDRINUSE) also for a second instance of the same user.
func Listen(cfg Config) (*Group, error) {
	var fd int
	var err error
	if cfg.Beside {
		fd, err = bind(cfg.Addr, cfg.V6Only, false)
	} else {
		fd, err = bindFirst(cfg.Addr, cfg.V6Only)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot bind %v: %w", cfg.Addr, err)
	}
	return begin(cfg, fd)
}

// Adopt makes a group of a socket that a program has bound, to port 0, and does
// not listen on yet. The group owns fd. Of an MPTCP socket, to which the kernel
// attaches no program, it takes the port only: the group's first socket is then
// a TCP one of its own, with another inode, to be put in the place of fd.
func Adopt(cfg Config, fd int) (*Group, error) {
	at, err := bound(fd)
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("cannot adopt a socket: %w", err)
	}
	if protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL); err == nil && protocol == unix.IPPROTO_MPTCP {
		// Both have SO_REUSEPORT, so that they can be bound side by side. A
		// program of another user's is adopted as it is.
		if tcp, err := bind(at, cfg.V6Only, false); err == nil {
			unix.Close(fd)
			fd = tcp
		}
	}
	cfg.Addr = at
	return begin(cfg, fd)
}

// begin makes a group of its first socket, which is bound.
func begin(cfg Config, fd int) (*Group, error) {
	g := &Group{cfg: cfg, hash: cfg.NoProgram}
	at, err := bound(fd)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	g.addr = netip.AddrPortFrom(cfg.Addr.Addr(), at.Port()) // with its zone, if it has one
	first, err := g.join(fd, 0)
	if err != nil {
		return nil, err
	}
	_, g.backlog, _ = first.queue()
	if !g.hash && cfg.Balance != Shared {
		g.hash = g.attach(randomProgram([]int{0})) != nil
	}
	return g, nil
}

// bindFirst binds exclusively. A port 0 is decided by one bind and asked for by
// number with another: a socket that was bound to port 0 has no
// SOCK_BINDPORT_LOCK, so that after a shutdown(2) by a rogue worker, listening
// again would give it some other port (found by TestShutdownByAWorkerIsMended).
func bindFirst(addr netip.AddrPort, v6only bool) (fd int, err error) {
	for range 16 {
		if fd, err = bind(addr, v6only, true); err != nil || addr.Port() != 0 {
			return fd, err
		}
		chosen, err := bound(fd)
		unix.Close(fd)
		if err != nil {
			return -1, err
		}
		// Somebody may be quicker; then another port is tried.
		if fd, err = bind(netip.AddrPortFrom(addr.Addr(), chosen.Port()), v6only, true); err == nil {
			return fd, nil
		}
	}
	return -1, unix.EADDRINUSE
}

// join makes fd, which is bound, the last member of the group.
func (g *Group) join(fd, slot int) (*Socket, error) {
	if err := unix.Listen(fd, backlogMost); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("cannot listen on %v: %w", g.addr, err)
	}
	s := &Socket{fd: fd, slot: slot}
	if err := g.cfg.Watch.add(s); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("cannot watch %v: %w", g.addr, err)
	}
	g.order = append(g.order, s)
	if g.cfg.Joined != nil {
		g.cfg.Joined(s)
	}
	return s, nil
}

// backlogMost asks for the largest backlog, which the kernel cuts to somaxconn.
const backlogMost = -1

// Addr is the address, with the port that the kernel chose if it was 0.
func (g *Group) Addr() netip.AddrPort { return g.addr }

// Balance is how new connections are spread.
func (g *Group) Balance() Balance { return g.cfg.Balance }

// SetBalance changes it, between Even and Sticky: at once, for new connections.
// To or from Shared it cannot be changed.
func (g *Group) SetBalance(b Balance) error {
	if b == g.cfg.Balance {
		return nil
	}
	if b == Shared || g.cfg.Balance == Shared {
		return fmt.Errorf("cannot change the balance of %v between %v and %v: its sockets are others", g.addr, g.cfg.Balance, b)
	}
	g.cfg.Balance = b
	g.balance.reset(len(g.seats))
	g.armed, g.calm, g.next = false, false, time.Time{}
	err := g.apply()
	for _, s := range g.seats {
		if s != nil {
			g.arrange(s)
		}
	}
	g.rest()
	return err
}

// Steerable tells whether connections can be steered. Where they cannot, a
// slot's socket goes from one worker of the slot to the next, both accept in
// an overlap, and workers of a generation are not separable.
func (g *Group) Steerable() bool { return !g.hash && g.cfg.Balance != Shared }

// Has tells whether a socket is one of the group's.
func (g *Group) Has(s *Socket) bool { return slices.Contains(g.order, s) }

// Sockets returns the sockets in the kernel's order.
func (g *Group) Sockets() []*Socket { return slices.Clone(g.order) }

// Steered counts the programs attached so far.
func (g *Group) Steered() uint64 { return g.steered }

// Take returns a socket for a worker in slot: one that new connections already
// go to and nobody holds, else one with connections queued, else any parked
// one, else a new one. Release gives it back.
func (g *Group) Take(slot int) (*Socket, error) {
	s := g.pick(slot)
	if s == nil {
		fd, err := bind(g.addr, g.cfg.V6Only, false)
		if err != nil {
			return nil, fmt.Errorf("cannot bind %v once more: %w", g.addr, err)
		}
		if s, err = g.join(fd, slot); err != nil {
			return nil, err
		}
	}
	s.holders++
	s.slot = slot
	g.arrange(s)
	return s, nil
}

func (g *Group) pick(slot int) *Socket {
	if g.cfg.Balance == Shared {
		return g.order[0]
	}
	var best *Socket
	rank := 0
	for _, s := range g.order {
		r := 0
		switch {
		case g.hash && s.slot == slot:
			r = 5 // also while the worker before still has it
		case s.Held():
		case g.hash:
		case g.seated(s) && s.slot == slot:
			r = 4
		case g.seated(s):
			r = 3
		case s.pending() > 0:
			r = 2
		default:
			r = 1
		}
		if r > rank {
			best, rank = s, r
		}
	}
	if g.hash && len(g.order) == 1 && !g.order[0].Held() && best == nil {
		return g.order[0] // the first socket belongs to whoever comes first
	}
	return best
}

func (s *Socket) pending() int {
	n, _, _ := s.queue()
	return n
}

// Release says that one holder is gone. The socket stays open, parked when it
// was the last one.
func (g *Group) Release(s *Socket) {
	s.holders--
	if s.own && !s.Held() {
		s.own = false
		unix.SetNonblock(s.fd, true)
	}
	g.arrange(s)
}

// Steer sends new connections to the given sockets, one for each slot, nil for
// a slot that is unserved. With no socket at all nothing changes: connections wait
// where they were going, for a worker that takes that socket.
func (g *Group) Steer(seats []*Socket) error {
	if !slices.ContainsFunc(seats, func(s *Socket) bool { return s != nil }) {
		return nil
	}
	if slices.Equal(seats, g.seats) {
		return nil
	}
	old := g.seats
	g.seats = slices.Clone(seats)
	g.balance.reset(len(seats))
	g.armed, g.calm, g.next = false, false, time.Time{}
	err := g.apply()
	if err != nil {
		g.seats = nil // not so: the next call tries again
	}
	for _, s := range old {
		if s != nil {
			g.arrange(s)
		}
	}
	g.rest()
	return err
}

// apply attaches the program that the seats and their queues ask for.
func (g *Group) apply() error {
	if !g.Steerable() || len(g.seats) == 0 {
		return nil
	}
	indexes := make([]int, len(g.seats))
	var served []int
	for i, s := range g.seats {
		indexes[i] = unserved
		if s == nil || g.balance.away(i) {
			continue
		}
		if at := slices.Index(g.order, s); at >= 0 { // else it is lost
			indexes[i] = at
			served = append(served, at)
		}
	}
	if len(served) == 0 {
		return nil
	}
	if g.cfg.Balance == Sticky {
		return g.attach(stickyProgram(indexes))
	}
	slices.Sort(served)
	return g.attach(randomProgram(served))
}

func (g *Group) attach(p program) error {
	if g.program.equal(p) {
		return nil
	}
	// Attaching to a socket that a rogue has just shut down would make it a
	// group of its own, to which it would stay tied: the kernel then refuses
	// to let it listen again (EADDRINUSE).
	member := slices.IndexFunc(g.order, (*Socket).listening)
	if member < 0 {
		return nil // Mend is about to come, and applies it
	}
	if err := attach(g.order[member].fd, p); err != nil {
		return fmt.Errorf("cannot steer %v: %w", g.addr, err)
	}
	g.program = p
	g.steered++
	return nil
}

// arrange sets what the watch reports of a socket.
func (g *Group) arrange(s *Socket) {
	switch seated := slices.Contains(g.seats, s); {
	case !s.Held() && !seated && len(g.seats) > 0 && g.cfg.Balance != Shared:
		// Nothing should come here any more: report what does.
		g.cfg.Watch.arm(s)
	case seated && g.armed:
		g.cfg.Watch.arm(s)
	default:
		g.cfg.Watch.disarm(s)
	}
}

// rest arms the seats: the next connection calls for a look at the queues.
func (g *Group) rest() {
	if g.cfg.Balance != Even || !g.Steerable() {
		return
	}
	if n := len(g.seats); n < 2 { // nothing to choose from
		return
	}
	g.armed, g.next = true, time.Time{}
	for _, s := range g.seats {
		if s != nil {
			g.cfg.Watch.arm(s)
		}
	}
}

// Arrived says that an armed seat had a connection. It and Tick keep the
// balance; the owner calls Tick at Deadline.
func (g *Group) Arrived(now time.Time) {
	if !g.armed {
		return
	}
	g.armed = false
	for _, s := range g.seats {
		if s != nil {
			g.cfg.Watch.disarm(s)
		}
	}
	g.look(now)
	if g.next.IsZero() {
		g.next = now.Add(lookEvery) // a worker gets a moment to accept
	}
}

// Deadline is when Tick wants to be called; zero: when a connection has come.
func (g *Group) Deadline() time.Time { return g.next }

// Tick looks at the accept queues, at most every few milliseconds and only
// after connections have come: no work for a connection, none when idle.
func (g *Group) Tick(now time.Time) error {
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
	lengths := make([]int, len(g.seats))
	for i, s := range g.seats {
		lengths[i] = -1
		if s != nil {
			lengths[i] = s.pending()
			g.queueMost = max(g.queueMost, lengths[i])
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

// Away returns the slots that are steered away for a stalled accept queue.
func (g *Group) Away() []int {
	var slots []int
	for i, s := range g.seats {
		if s != nil && g.balance.away(i) {
			slots = append(slots, i)
		}
	}
	return slots
}

// Fallen notes that a socket does not listen any more, if that is so: it has
// left the group, and the last one moved into its place. When several have, it
// must be called for each, in the order of the watch's signals, before the
// first is mended: the kernel's index order depends on it. (A holder that calls
// shutdown and then listen itself gives no signal, and spoils the order until
// the socket is mended next; nobody does so by accident.)
func (g *Group) Fallen(s *Socket) {
	if !s.fallen && g.Has(s) && !s.listening() {
		s.fallen = true
		g.leave(s)
	}
}

// Mend repairs what a holder may have done to a socket that it shares with the
// master, and says what it was. Also to be called when a worker has called
// listen(2) with a backlog of its own: that was no wrong, and is not reported.
func (g *Group) Mend(s *Socket) (wrongs []string, err error) {
	if g.Fallen(s); s.fallen {
		s.fallen = false
		wrongs = append(wrongs, "shutdown(2) on the listening socket")
		// It is out of the kernel's order, and the last one is in its place: the
		// program must not point anywhere wrong when it listens again, which
		// makes it the last of the group, and whoever held it may have closed
		// it. (A group whose only member fell has no program to mend.)
		g.program = nil
		err = g.apply()
		if err := unix.Listen(s.fd, backlogMost); err != nil {
			g.close(s)
			g.program = nil
			return wrongs, errors.Join(fmt.Errorf("%w on %v: %w", ErrLost, g.addr, err), g.apply())
		}
		g.order = append(g.order, s)
		if len(g.order) == 1 || g.seated(s) {
			g.program = nil // the group may have lost it with its only member
			err = errors.Join(err, g.apply())
		}
		if len(g.seats) == 0 && g.Steerable() {
			err = g.attach(randomProgram([]int{0}))
		}
	} else if _, backlog, qerr := s.queue(); qerr == nil && backlog < g.backlog {
		err = unix.Listen(s.fd, backlogMost)
	}
	if flags, ferr := unix.FcntlInt(uintptr(s.fd), unix.F_GETFL, 0); ferr == nil && flags&unix.O_NONBLOCK == 0 && !s.own {
		wrongs = append(wrongs, "cleared O_NONBLOCK on the listening socket")
		err = errors.Join(err, unix.SetNonblock(s.fd, true))
	}
	if on, oerr := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_REUSEPORT); oerr == nil && on == 0 {
		wrongs = append(wrongs, "cleared SO_REUSEPORT on the listening socket")
		err = errors.Join(err, unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	}
	g.arrange(s)
	return wrongs, err
}

func (g *Group) close(s *Socket) {
	if g.cfg.Left != nil {
		g.cfg.Left(s)
	}
	g.cfg.Watch.remove(s)
	unix.Close(s.fd)
}

// leave takes a socket out of the record, as the kernel does it.
func (g *Group) leave(s *Socket) {
	i, last := slices.Index(g.order, s), len(g.order)-1
	g.order[i] = g.order[last]
	g.order = g.order[:last]
}

// ErrLost says that a socket could not be mended. It is closed and no longer of
// the group; whoever holds a duplicate has to be replaced.
var ErrLost = errors.New("cannot listen again")

// seated tells whether new connections go to a socket.
func (g *Group) seated(s *Socket) bool { return slices.Contains(g.seats, s) }

// halfOpen lists handshakes under way, once for all who ask at the same time.
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

// Rearm asks to be told of the next connection at a socket that nobody holds,
// after the one before has been dealt with.
func (g *Group) Rearm(s *Socket) { g.arrange(s) }

// QueueMost is the longest accept queue that was seen in looks at the balance.
func (g *Group) QueueMost() int { return g.queueMost }

// Pending is the number of connections in a socket's accept queue.
func (g *Group) Pending(s *Socket) int { return s.pending() }

// Close gives the address up. What is queued is reset unless a worker still
// has the socket.
func (g *Group) Close() {
	for _, s := range g.order {
		g.close(s)
	}
	g.order, g.seats, g.next, g.armed = nil, nil, time.Time{}, false
}
