package handoff

import (
	"errors"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// renew replaces a parked socket that a worker has had, as soon as nothing can reach it any
// more: whatever the worker has left on it, or who else has a duplicate, is gone with it.
// Else it is cleaned. It returns the socket that is in the place. One whose lock is held
// stays as it is.
func (g *Group) renew(s *Socket, now bool) *Socket {
	if g.cfg.Datagram || g.hidden || s.probe() == errLocked {
		return s
	}
	if s.quiet && g.renewable(s) && s.Pending() == 0 {
		changed, _ := s.reset(false) // to say what the worker has done
		g.repaired(s, changed)
		if n, err := g.replace(s); err == nil {
			g.watch.later(Renewed{g, s})
			return n
		}
	}
	return g.clean(s, now)
}

// renewable reports whether a socket is parked, is not steered to, and has been a worker's.
func (g *Group) renewable(s *Socket) bool {
	return !g.hidden && s.used && !s.closed && !s.stuck() && !s.Held() && (!s.foreign || g.cfg.Datagram) && g.Steerable() && len(g.targets) > 0 && !g.isTarget(s) && s.listening()
}

// renewParked replaces the parked sockets that have become quiet only now: their workers
// were killed, or connections went on coming.
func (g *Group) renewParked(now time.Time) {
	for _, s := range slices.Clone(g.order) {
		if !g.renewable(s) || g.cfg.Datagram && s.quiet { // of UDP, the next one to join replaces it
			s.calming = nil
			continue
		}
		if s.calming == nil {
			s.calming, s.look = s.Quiet(now, 0), now
		}
		if now.Before(s.look) {
			continue
		}
		quiet, again := s.calming.Look(now)
		// What is in its queue waits for a worker, which may take its time.
		s.look = now.Add(max(again, now.Sub(s.calming.since)/4))
		if quiet && g.renew(s, false) != s {
			s.calming = nil
		}
	}
}

// renewAt is when renewParked has something to look at; zero: not by time.
func (g *Group) renewAt() (next time.Time) {
	for _, s := range g.order {
		if s.calming != nil && (next.IsZero() || s.look.Before(next)) {
			next = s.look
		}
	}
	return next
}

// replace puts a new socket into the place of another, which is closed. The kernel moves
// the last socket of the group into the place of one that leaves: the new one, so that the
// attached program stays right at every instant.
func (g *Group) replace(s *Socket) (*Socket, error) {
	n, err := g.grow(s.slot)
	if err != nil {
		return nil, err
	}
	if g.watch.Grown != nil {
		g.watch.Grown(g)
	}
	if s.shut { // meanwhile: repair follows
		return nil, errors.Join(unix.EBUSY, g.drop(n))
	}
	for i, t := range g.targets {
		if t == s {
			g.targets[i] = n
		}
	}
	g.drop(s)
	if err := g.reattach(); err != nil { // who has a duplicate could detach the program until now
		g.watch.later(Failed{g, err})
	}
	g.arrange(n)
	return n, nil
}
