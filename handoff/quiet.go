package handoff

import (
	"maps"
	"net/netip"
	"time"
)

const (
	// A packet that was inside the old program when the new one was attached still
	// follows the old one: an RCU grace period, with a margin.
	settle = 2 * time.Millisecond
	// Between two checks. A check walks the connection table while handshakes are half
	// open, and else reads the TCP_INFO of each socket.
	quietLook = 10 * time.Millisecond
	// How long to wait if sock_diag does not work and half-open handshakes are unknown.
	blindWait = time.Second
)

// Quiet waits until no connection can reach a socket any more after the steering: every
// handshake that was half open has ended, the accept queue is empty, and a grace period
// has passed in which the program registers what it has accepted.
type Quiet struct {
	socket *Socket
	since  time.Time
	grace  time.Duration
	target bool                        // it was still a target at the last check
	open   map[netip.AddrPort]struct{} // half open since the steering; nil before the first check
	blind  bool
}

// Quiet begins to wait. A socket that is still a target is never quiet.
func (s *Socket) Quiet(now time.Time, grace time.Duration) *Quiet {
	return &Quiet{socket: s, since: now, grace: grace}
}

// Look reports whether the socket is quiet, else the time until the next check.
func (q *Quiet) Look(now time.Time) (quiet bool, again time.Duration) {
	g := q.socket.group
	if g.Steerable() && g.isTarget(q.socket) && !g.noWait {
		q.target = true // no other worker listens on this address yet
		return false, quietLook
	}
	if q.target { // connections were steered away since the last check
		q.target, q.since, q.open = false, now, nil
	}
	if age := now.Sub(q.since); age < settle {
		return false, settle - age
	}
	if g.Steerable() {
		if !g.cfg.Datagram {
			q.trackHalfOpen(now)
		}
		if len(q.open) > 0 {
			return false, quietLook
		}
		if q.socket.Pending() > 0 {
			return false, quietLook / 2
		}
	}
	wait := q.grace
	if q.blind {
		wait = max(wait, blindWait)
	}
	if left := q.since.Add(wait).Sub(now); left > 0 {
		return false, left
	}
	q.socket.quiet = true
	return true, 0
}

func (q *Quiet) trackHalfOpen(at time.Time) {
	if q.blind || q.open != nil && len(q.open) == 0 {
		return
	}
	now, err := q.socket.group.halfOpen(at)
	switch {
	case err != nil:
		q.blind, q.open = true, nil
	case q.open == nil:
		q.open = maps.Clone(now)
	default:
		for peer := range q.open {
			if _, still := now[peer]; !still {
				delete(q.open, peer)
			}
		}
	}
}
