// Package health decides by the results of checks which workers are well. It is pure: it says
// when a worker is to be checked, and is told what came of it.
//
//	starting ──passed `rise` times──► well ◄──passed `rise` times── unwell
//	   │                               └──────failed `fall` times─────►
//	   └──not in the start period──► refused
//
// A worker has one check at a time. One that starts is checked often, since others wait for it.
package health

import (
	"fmt"
	"slices"
	"time"
)

// Config is how often is checked, and what follows.
type Config struct {
	Interval    time.Duration // between two checks of a worker; 0: nothing is checked
	Rise, Fall  int           // results in a row
	StartPeriod time.Duration // from its first check, in which a worker that starts must pass
}

// ID identifies a worker.
type ID int

// Kind is what a verdict says.
type Kind int

// The kinds.
const (
	Passed  Kind = iota // a worker that starts is well
	Refused             // it is not, and its time is over
	Unwell              // one that was well is not any more; again while that lasts
	Well                // it is again
)

// Verdict is a decision on a worker.
type Verdict struct {
	ID     ID
	Kind   Kind
	Reason string
}

// startInterval is the longest time between two checks of a worker that starts.
const startInterval = 500 * time.Millisecond

// worker is one that is checked.
type worker struct {
	id      ID
	kind    Kind // Refused: it starts; Passed and Well: it is well
	first   time.Time
	next    time.Time // of its next check
	checks  bool      // one is under way
	passes  int       // in a row
	fails   int
	limit   int // fails until the next verdict
	failure string
}

func (w *worker) starts() bool { return w.kind == Refused }

// Room has the workers that are checked.
type Room struct {
	cfg     Config
	workers []*worker
}

// New returns a room without workers.
func New(cfg Config) *Room { return &Room{cfg: cfg} }

// Configure changes the configuration. Workers that were started without checks are not
// checked.
func (r *Room) Configure(cfg Config) {
	if r.cfg = cfg; cfg.Interval == 0 {
		r.workers = nil
	}
}

// Ready: a worker seems ready. It reports whether it may serve now; if not, a verdict follows.
func (r *Room) Ready(now time.Time, id ID) bool {
	if r.cfg.Interval == 0 {
		return true
	}
	w := r.worker(id)
	if w == nil {
		w = &worker{id: id, kind: Refused, first: now, next: now}
		r.workers = append(r.workers, w)
	}
	return !w.starts()
}

// Serves: a worker serves already, since before this master.
func (r *Room) Serves(now time.Time, id ID) {
	if r.cfg.Interval > 0 && r.worker(id) == nil {
		r.workers = append(r.workers, &worker{id: id, kind: Passed, next: now.Add(r.cfg.Interval), limit: r.cfg.Fall})
	}
}

// Ended: a worker is not checked any more: it has ended, or has been told to.
func (r *Room) Ended(id ID) {
	r.workers = slices.DeleteFunc(r.workers, func(w *worker) bool { return w.id == id })
}

// Failing is why a worker is not well, or does not pass; "": it is, or nothing is known.
func (r *Room) Failing(id ID) string {
	if w := r.worker(id); w != nil && (w.starts() || w.kind == Unwell) {
		return w.failure
	}
	return ""
}

// Unwell are the workers to which no connections should go.
func (r *Room) Unwell() (ids []ID) {
	for _, w := range r.workers {
		if w.kind == Unwell {
			ids = append(ids, w.id)
		}
	}
	return ids
}

func (r *Room) worker(id ID) *worker {
	if i := slices.IndexFunc(r.workers, func(w *worker) bool { return w.id == id }); i >= 0 {
		return r.workers[i]
	}
	return nil
}

// Deadline is when Due must be called; zero: not by time.
func (r *Room) Deadline() (next time.Time) {
	for _, w := range r.workers {
		if !w.checks && (next.IsZero() || w.next.Before(next)) {
			next = w.next
		}
	}
	return next
}

// Due returns the workers to check now: Checked is called for each.
func (r *Room) Due(now time.Time) (ids []ID) {
	for _, w := range r.workers {
		if !w.checks && !now.Before(w.next) {
			w.checks = true
			ids = append(ids, w.id)
		}
	}
	return ids
}

// Checked takes what came of a check; "": it was passed. It returns what follows, if anything
// does.
func (r *Room) Checked(now time.Time, id ID, failure string) (v Verdict, news bool) {
	w := r.worker(id)
	if w == nil || !w.checks {
		return v, false
	}
	w.checks = false
	defer func() {
		w.next = now.Add(r.cfg.Interval)
		if w.starts() || w.kind == Unwell {
			w.next = now.Add(min(r.cfg.Interval, startInterval))
		}
	}()
	if failure == "" {
		w.passes, w.fails, w.limit = w.passes+1, 0, r.cfg.Fall
	} else {
		w.passes, w.fails, w.failure = 0, w.fails+1, failure
	}
	v = Verdict{ID: id, Reason: failure}
	switch {
	case failure == "" && w.passes < r.cfg.Rise || w.kind != Unwell && !w.starts() && failure == "":
		return v, false
	case failure == "" && w.starts():
		v.Kind = Passed
	case failure == "":
		v.Kind = Well
	case w.starts():
		if now.Sub(w.first) < r.cfg.StartPeriod {
			return v, false
		}
		w.first = now // if it stays all the same
		v.Kind = Refused
		v.Reason = fmt.Sprintf("health check failed: %s", failure)
		return v, true
	case w.fails < w.limit:
		return v, false
	default:
		w.limit *= 2 // what was ordered takes its time
		v.Kind = Unwell
	}
	if w.kind = v.Kind; v.Kind == Well || v.Kind == Passed {
		w.failure = ""
	}
	return v, true
}
