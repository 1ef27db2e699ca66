package handoff

import (
	"fmt"
	"slices"
	"time"
)

// LetWait steers new connections to sockets that nobody accepts from, one for each of n
// slots: they wait in the accept queues, for the workers that take these sockets with
// [Group.Take]. The workers that have had connections until now become quiet, although
// there are no others yet. [Group.Steer] ends it.
//
// What waits is limited by the backlog, net.core.somaxconn for each socket. Beyond it the
// kernel drops the last packet of a handshake, and the client repeats it, a second later at
// first; with net.ipv4.tcp_abort_on_overflow it is reset.
//
// Where no other socket can be bound nothing changes, and the watch reports it: the one that
// ends may accept some connections more, and what is queued then waits in its socket.
func (g *Group) LetWait(n int) error {
	if !g.Steerable() || g.noWait {
		return nil
	}
	if g.LetsWait() {
		return g.ensure()
	}
	if g.cfg.Datagram { // datagrams wait in the socket of the one that ends
		g.noWait = true
		return nil
	}
	targets, places := make([]*Socket, n), make([]int, n)
	for slot := range targets {
		s, err := g.waiting(slot, targets[:slot])
		if err != nil {
			g.noWait = true
			g.watch.later(Failed{g, fmt.Errorf("cannot bind a socket to %v in which connections wait; those in the queue of the worker that ends wait for the next one: %w", g.addr, err)})
			return nil
		}
		targets[slot], places[slot] = s, slot
	}
	for _, s := range targets {
		s.waits = true
	}
	if g.watch.Grown != nil { // the next owner must know them before connections come
		g.watch.Grown(g)
	}
	old, oldPlaces := g.targets, g.places
	g.targets, g.places = targets, places
	g.balance.reset(n)
	g.armed, g.calm, g.next = false, false, time.Time{}
	g.noteStrangers()
	err := g.apply()
	if err != nil {
		g.targets, g.places = old, oldPlaces
		g.balance.reset(len(old))
		for _, s := range targets {
			s.waits = false
		}
	}
	for _, s := range slices.Concat(old, targets) {
		if s != nil && !s.closed {
			s.quiet = s.quiet && !g.isTarget(s)
			g.arrange(s)
		}
	}
	return err
}

// waiting returns a socket that no worker has had, and that is none of taken.
func (g *Group) waiting(slot int, taken []*Socket) (*Socket, error) {
	for _, s := range g.Sockets() {
		if !s.used && !s.Held() && !s.reserved && !s.stuck() && !s.shut && !s.foreign && !g.isTarget(s) && !slices.Contains(taken, s) {
			s.slot = slot
			return s, nil
		}
	}
	return g.grow(slot)
}

// LetsWait reports whether connections wait for workers, see [Group.LetWait].
func (g *Group) LetsWait() bool {
	return slices.ContainsFunc(g.targets, func(s *Socket) bool { return s != nil && s.waits })
}

// Waited is how many connections were found waiting when workers took the sockets, since the
// last [Group.LetWait].
func (g *Group) Waited() (n int) {
	for _, s := range g.order {
		n += max(s.waited, s.pendingIfWaits())
	}
	return n
}

func (s *Socket) pendingIfWaits() int {
	if !s.waits {
		return 0
	}
	return s.Pending()
}

// waitOver: connections are steered to workers again.
func (g *Group) waitOver() {
	g.noWait = false
	for _, s := range g.order {
		s.waits, s.waited = false, 0
	}
}
