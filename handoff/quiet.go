package handoff

import (
	"maps"
	"net/netip"
	"time"
)

const (
	// A packet inside the old program when the new one was attached still
	// follows the old one: an RCU grace period, with room.
	settle = 2 * time.Millisecond
	// Between two looks; each costs a walk over the connection table while
	// handshakes are under way, and a TCP_INFO for each socket otherwise.
	quietLook = 10 * time.Millisecond
	// How long to wait where sock_diag is refused and half-open handshakes
	// cannot be seen.
	blindWait = time.Second
)

// Quiet waits until nothing more can come to a socket that is steered away: every
// handshake that was half open at the steering has ended, the accept queue is empty,
// and a grace has passed in which the program behind may
// take note of what it has accepted.
type Quiet struct {
	socket *Socket
	since  time.Time
	grace  time.Duration
	target bool                        // it was not steered away yet at the last look
	open   map[netip.AddrPort]struct{} // half open since the steering; nil before the first look
	blind  bool
}

// Quiet begins to wait; before the socket is steered away it is never quiet.
func (s *Socket) Quiet(now time.Time, grace time.Duration) *Quiet {
	return &Quiet{socket: s, since: now, grace: grace}
}

// Look says whether it is quiet, else when to look again.
func (q *Quiet) Look(now time.Time) (quiet bool, again time.Duration) {
	g := q.socket.group
	if g.Steerable() && g.isTarget(q.socket) {
		q.target = true // nobody else listens on this address yet
		return false, quietLook
	}
	if q.target { // it was steered away since the last look
		q.target, q.since, q.open = false, now, nil
	}
	if age := now.Sub(q.since); age < settle {
		return false, settle - age
	}
	if g.Steerable() {
		q.trackHalfOpen(now)
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
