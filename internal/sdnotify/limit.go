package sdnotify

import "time"

// Limiter turns what a worker says into what is news. A worker may say what it likes
// as often as it likes: what changes nothing, or comes too often, is no news, so that it
// keeps nobody busy but who reads it. The zero value has heard nothing yet, and reports
// no sign of life.
type Limiter struct {
	AliveEvery time.Duration // between two WATCHDOG=1 that are news; 0: none are

	ready, stopping, stores, hung bool
	aliveAt                       time.Time
	extendedAt                    time.Time     // when more time was asked for last
	extend                        time.Duration // is to become news
	asked                         int           // questions since askedAt
	askedAt                       time.Time
	requests                      int
	requestsAt                    time.Time
	said, reported                State
	reportedAt                    time.Time
}

const (
	// stateEvery is how often a worker's state is news, at most. The last one always
	// is. So it is with the number of its requests.
	stateEvery = 100 * time.Millisecond
	// extendEvery is the same for asking for more time: it counts from then on.
	extendEvery = 100 * time.Millisecond
	// maxAsks is how often in a second a worker is answered whether it is to drain. It
	// asks for each signal that it gets; no answer means no.
	maxAsks = 100
)

// State is what the worker has said last.
func (l *Limiter) State() State { return l.said }

// Hear returns what is news in n, and when to call it again if nothing else comes, with
// an empty notice; zero: need not.
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
	if n.Requests > l.requests && now.Sub(l.requestsAt) >= stateEvery { // a count only grows
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

// MayAsk counts a question, and reports whether it is to be answered.
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
