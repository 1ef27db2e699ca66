package sdnotify

import "time"

// Limiter reduces a worker's notices to news. A worker may send any notice at any rate:
// one that changes nothing, or comes too often, is not news, so that it only loads the
// reader. The zero value has had no notice, and reports no keep-alive.
type Limiter struct {
	AliveEvery time.Duration // minimum time between two WATCHDOG=1 that are news; 0: none are

	ready, stopping, stores, hung bool
	aliveAt                       time.Time
	extendedAt                    time.Time     // time of the last extension
	extend                        time.Duration // is to become news
	asked                         int           // questions since askedAt
	askedAt                       time.Time
	requests                      int
	requestsAt                    time.Time
	said, reported                State
	reportedAt                    time.Time
}

const (
	// stateEvery is the minimum interval at which a worker's state is news. The last one
	// always is. The same applies to the number of its requests.
	stateEvery = 100 * time.Millisecond
	// extendEvery is the same for extensions: they count from then on.
	extendEvery = 100 * time.Millisecond
	// maxAsks is how many questions X_DRAINING a worker is answered per second. It asks
	// for each signal that it gets; no answer means no.
	maxAsks = 100
)

// State is the last state of the worker.
func (l *Limiter) State() State { return l.said }

// Hear returns the news in n, and when to call it again with an empty notice if no other
// comes; zero: never.
func (l *Limiter) Hear(now time.Time, n Notice) (news Notice, again time.Time) {
	news.Ready = n.Ready && !l.ready
	news.Stopping = n.Stopping && !l.stopping
	news.Stores = n.Stores && !l.stores
	news.Hung = n.Hung && !l.hung
	l.ready, l.stopping, l.stores, l.hung = l.ready || n.Ready, l.stopping || n.Stopping, l.stores || n.Stores, l.hung || n.Hung
	if n.Alive && l.AliveEvery > 0 && now.Sub(l.aliveAt) >= l.AliveEvery {
		news.Alive, l.aliveAt = true, now
	}
	news.Extend, again = l.extends(now, n.Extend)
	if n.Requests > l.requests && now.Sub(l.requestsAt) >= stateEvery { // counts only increase
		news.Requests, l.requests, l.requestsAt = n.Requests, n.Requests, now
	}
	if n.State != nil {
		l.said = *n.State
	}
	if l.said != l.reported {
		if at := l.reportedAt.Add(stateEvery); now.Before(at) {
			again = earlier(again, at)
		} else {
			l.reported, l.reportedAt = l.said, now
			state := l.said
			news.State = &state
		}
	}
	return news, again
}

func (l *Limiter) extends(now time.Time, by time.Duration) (news time.Duration, again time.Time) {
	if by > 0 {
		l.extend = by
	}
	if l.extend == 0 {
		return 0, time.Time{}
	}
	if at := l.extendedAt.Add(extendEvery); now.Before(at) {
		return 0, at
	}
	news, l.extend, l.extendedAt = l.extend, 0, now
	return news, time.Time{}
}

// MayAsk counts a question, and reports whether to answer it.
func (l *Limiter) MayAsk(now time.Time) bool {
	if now.Sub(l.askedAt) >= time.Second {
		l.asked, l.askedAt = 0, now
	}
	l.asked++
	return l.asked <= maxAsks
}

// earlier is the earlier of two times, of which zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
