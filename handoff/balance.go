package handoff

import "time"

// Times of the correction by accept queues. A worker that stalls is steered
// away within restAfterCalm + lookEvery, and some scheduling.
const (
	lookEvery     = 5 * time.Millisecond  // between two looks at queues that are not empty
	restAfterCalm = 10 * time.Millisecond // between a look at empty queues and the next arming
	maxLookEvery  = time.Second           // between looks at a worker stalled for long
)

// gauge is what is known of the accept queue of one target.
type gauge struct {
	length int
	stuck  time.Time // since when it is not empty and has not become shorter; zero: it moves
	away   bool      // steered away since it was found stuck
}

// balancer corrects a random choice by the accept queues. It is pure: lengths
// and times come in, a verdict goes out.
//
//	queue empty, or shorter than at the last look  ──► serves
//	not empty and no shorter in two looks, 5 ms apart,
//	while another serving queue is empty           ──► steered away
//
// It needs no look while the queues are empty: the owner arms the sockets and
// is told of the next connection.
type balancer struct {
	gauges []gauge
}

// reset forgets all, for a new list of n targets.
func (b *balancer) reset(n int) { b.gauges = make([]gauge, n) }

// look takes the queue lengths of all targets (negative: one that is nobody).
// It says whether the set of those that serve has changed, and when it wants
// to look again; 0 means when a connection comes.
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

// away tells whether target i is steered away at present.
func (b *balancer) away(i int) bool { return b.gauges[i].away }

func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b < a {
		return b
	}
	return a
}
