package handoff

import "time"

// Intervals of the queue checks. New connections are steered away from a stalled worker
// within restAfterCalm + lookEvery, plus scheduling.
const (
	lookEvery     = 5 * time.Millisecond  // between two checks of queues that are not empty
	restAfterCalm = 10 * time.Millisecond // from a check that finds empty queues to the next arming
	maxLookEvery  = time.Second           // between checks of a worker that has been stalled for long
)

// gauge is the state of one target's accept queue.
type gauge struct {
	length int
	stuck  time.Time // since when it has been neither empty nor shorter; zero: it moves
	away   bool      // steered away, because it does not move
}

// balancer corrects the random choice by the lengths of the accept queues. It is pure:
// its input is lengths and times.
//
//	queue empty, or shorter than at the last check ──► serves
//	not empty and no shorter in two checks, 5 ms apart,
//	while another serving queue is empty           ──► steered away
//
// It needs no check while the queues are empty: the owner arms the sockets, and the next
// connection is an event.
type balancer struct {
	gauges []gauge
}

// reset clears the state for a new list of n targets.
func (b *balancer) reset(n int) { b.gauges = make([]gauge, n) }

// look takes the queue lengths of all targets (negative: unserved). It reports whether
// the set of serving targets has changed, and the time until the next check; 0: at the
// next connection.
func (b *balancer) look(now time.Time, lengths []int) (changed bool, again time.Duration) {
	idle := false
	for i, n := range lengths {
		g := &b.gauges[i]
		switch {
		case n <= 0 || n < g.length:
			changed = changed || g.away
			*g = gauge{length: max(n, 0)}
		case g.stuck.IsZero():
			g.stuck = now
		}
		g.length = max(n, 0)
		idle = idle || n == 0
	}
	for i := range b.gauges {
		g := &b.gauges[i]
		if g.stuck.IsZero() {
			if g.length > 0 {
				again = sooner(again, lookEvery)
			}
			continue
		}
		age := now.Sub(g.stuck)
		if !g.away && idle && age >= lookEvery-time.Millisecond {
			g.away, changed = true, true
		}
		if g.away {
			again = sooner(again, min(max(age/10, lookEvery), maxLookEvery))
		} else {
			again = sooner(again, lookEvery)
		}
	}
	return changed, again
}

// away reports whether connections are steered away from target i.
func (b *balancer) away(i int) bool { return b.gauges[i].away }

func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b < a {
		return b
	}
	return a
}
