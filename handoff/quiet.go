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

// Quiet waits until nothing more can come to sockets that are steered away:
// every handshake that was half open at the steering has ended, and the accept
// queues are empty, and a grace has passed in which the program behind may
// take note of what it has accepted.
type Quiet struct {
	group   *Group
	sockets []*Socket
	since   time.Time
	grace   time.Duration
	open    map[netip.AddrPort]struct{} // half open since the steering; nil before the first look
	blind   bool
}

// Quiet begins to wait for sockets that have just been steered away.
func (g *Group) Quiet(now time.Time, grace time.Duration, sockets ...*Socket) *Quiet {
	return &Quiet{group: g, sockets: sockets, since: now, grace: grace}
}

// Look says whether it is quiet, else when to look again.
func (q *Quiet) Look(now time.Time) (quiet bool, again time.Duration) {
	if age := now.Sub(q.since); age < settle {
		return false, settle - age
	}
	if q.group.Steerable() {
		for _, s := range q.sockets {
			if q.group.seated(s) {
				// Nobody else listens on this address yet.
				return false, quietLook
			}
		}
		q.trackHalfOpen(now)
		if len(q.open) > 0 {
			return false, quietLook
		}
		for _, s := range q.sockets {
			if s.pending() > 0 {
				return false, quietLook / 2
			}
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
	now, err := q.group.halfOpen(at)
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
