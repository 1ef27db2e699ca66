// Package fleet decides which workers are started, steered to, drained and ended. It is
// pure: no I/O, no clock, no goroutine. Its input is an event and the time, its output
// actions and the next deadline.
//
// Each step has two halves. observe updates the facts; plan compares them with the wanted
// state and orders what is missing. A lost or repeated event does no harm, and a reload
// during a reload needs no special code.
//
//	Starting ──ready──► Serving ──retire──► Quieting ──quiet──► Draining ──exit──► gone
//	   │                   │                                        │
//	   └── crash, ready timeout: backoff, then failed               └── drain timeout: TERM, then KILL
//
// A generation is wanted from the reload on; it is live once it serves every slot. Until
// then the previous generation is live, and the wanted one can fail without effect on
// clients.
package fleet

import (
	"fmt"
	"slices"
	"time"

	"handoff/internal/jitter"
)

// ID identifies a worker. IDs are positive, increase, and are never reused.
type ID int

// Gen identifies a generation, from 1. 0 is none.
type Gen int

// Strategy is how a new generation takes over.
type Strategy int

const (
	// All switches every slot at once, when the new generation serves them all. Until
	// then the previous one keeps serving.
	All Strategy = iota
	// Slot switches slot by slot, with fewer processes at once.
	Slot
)

// Config configures the fleet. A zero duration means zero.
type Config struct {
	Slots        int
	ReadyTimeout time.Duration // from start to ready
	ReadyDelay   time.Duration // how long a new worker that seems ready must keep running before it counts as ready, while an old one serves
	QuietTimeout time.Duration // from steered away to drain
	DrainTimeout time.Duration // from drain to TERM
	KillGrace    time.Duration // from TERM to KILL
	DrainedGrace time.Duration // from drained to exit
	Respawn      time.Duration // minimum time between two starts of a slot
	Backoff      time.Duration // maximum time between them
	Stable       time.Duration // time of serving after which earlier failures are forgotten
	MaxFailures  int           // consecutive failed starts of a slot before a new generation fails; 1 with NoOverlap
	Strategy     Strategy
	Surge        int           // starts at once in a reload; 0: all slots, or 1 with Slot or NoOverlap
	Canary       time.Duration // time that slot 0 serves alone first in a reload
	Watchdog     time.Duration // maximum time between pings of a serving worker; 0: no watchdog
	DrainSpread  time.Duration // time over which the drains of workers that retire together are spread
	MaxAge       time.Duration // time of serving after which a worker is replaced; 0: never
	RetryFirst   bool          // the first generation never fails, and ReadyTimeout applies only to reloads
	ReloadEvery  time.Duration // after the last reload, the next one; 0: never
	NoOverlap    bool          // a worker is started only when the one before it in its slot has ended
}

// Phase is the phase of a worker's life.
type Phase int

// The phases, in order.
const (
	Starting Phase = iota
	Serving
	Quieting
	Draining
)

func (p Phase) String() string {
	return [...]string{"starting", "serving", "quieting", "draining"}[p]
}

// asked is what a worker has been told to do.
type asked int

const (
	askedNothing asked = iota
	askedDrain
	askedTerm
	askedKill
)

// Worker is one process.
type Worker struct {
	ID    ID
	Slot  int
	Gen   Gen
	Phase Phase

	InService bool // has ever been steered to
	Leaving   bool // wants to be replaced

	extra         bool   // was started in a slot that another worker served
	hung          bool   // has stopped pinging
	doubled       bool   // starts, and another one was started beside it
	dead          bool   // its process is; it has not exited yet, see Died
	recycleReason string // why it is marked for replacement; "": it is not
	asked         asked
	drained       bool
	started       time.Time
	seems         bool      // seems ready; at the deadline it counts as ready
	late          time.Time // the deadline of its start, while it seems ready
	lacks         string    // what it lacks to be ready, in words; "": not known
	readyAt       time.Time
	pingBy        time.Time // zero: need not
	turn          time.Time // of its drain, if drains are spread
	deadline      time.Time // of the phase; zero: none
	latest        time.Time // that the deadline may become by extensions; zero: none was asked for
}

// ReadyAt returns when the worker became ready, zero if it is not.
func (w Worker) ReadyAt() time.Time { return w.readyAt }

// Seems returns when a worker that seems ready counts as ready, zero if it does not.
func (w Worker) Seems() time.Time {
	if w.Phase == Starting && w.seems {
		return w.deadline
	}
	return time.Time{}
}

// DrainBy returns when a worker that drains is overdue, zero for one that does not drain,
// or is overdue.
func (w Worker) DrainBy() time.Time {
	if w.Phase == Draining && w.asked == askedDrain && !w.drained {
		return w.deadline
	}
	return time.Time{}
}

// Overdue reports whether a worker was ended by force.
func (w Worker) Overdue() bool { return w.asked > askedDrain }

// slotState counts the starts of a slot of a generation.
type slotState struct {
	slot      int
	gen       Gen
	failures  int
	notBefore time.Time
	trial     bool // a Restart waits for a new worker in it
}

// Fleet is the state. Only Step changes it.
type Fleet struct {
	cfg        Config
	workers    []*Worker // by ID
	slotStates []*slotState
	lastID     ID
	lastGen    Gen
	live       Gen
	wanted     Gen
	known      []Gen // prepared and not forgotten
	began      time.Time
	grown      int // the number of slots before an increase that is not complete; 0: none is under way
	steered    []ID
	order      *order    // of a Steer that is not answered yet
	steerAt    time.Time // after a failed one: not before
	astray     bool      // connections may go to others than steered
	proven     bool      // the wanted generation's canary is over
	unprepared bool      // the wanted generation was prepared in this step, and may be Broken

	frozen   bool // no worker is started any more
	stopping bool
	failed   bool // stopping because the first generation failed
	done     bool

	now  time.Time
	wake time.Time
	out  []Action
}

// New returns a fleet without workers. A Reload starts its first generation.
func New(cfg Config) *Fleet { return &Fleet{cfg: cfg} }

// Live returns the generation in service, 0 before the first serves.
func (f *Fleet) Live() Gen { return f.live }

// Wanted returns the wanted generation. In a reload it differs from Live.
func (f *Fleet) Wanted() Gen { return f.wanted }

// Last returns the newest generation, also if it failed.
func (f *Fleet) Last() Gen { return f.lastGen }

// Deadline is when Step must be called at the latest; zero: not by time.
func (f *Fleet) Deadline() time.Time { return f.wake }

// Slots returns the number of slots.
func (f *Fleet) Slots() int { return f.cfg.Slots }

// Failures returns how many starts of a slot of a generation have failed in a row, and
// when it is started again at the soonest.
func (f *Fleet) Failures(slot int, gen Gen) (n int, notBefore time.Time) {
	for _, s := range f.slotStates {
		if s.slot == slot && s.gen == gen {
			return s.failures, s.notBefore
		}
	}
	return 0, time.Time{}
}

// Workers returns a copy of all workers, by ID.
func (f *Fleet) Workers() []Worker {
	ws := make([]Worker, len(f.workers))
	for i, w := range f.workers {
		ws[i] = *w
	}
	return ws
}

// Worker returns a copy of a worker, zero if it is not there.
func (f *Fleet) Worker(id ID) Worker {
	if w := f.worker(id); w != nil {
		return *w
	}
	return Worker{}
}

// Started reports whether a worker has become ready.
func (f *Fleet) Started(id ID) bool {
	w := f.worker(id)
	return w != nil && w.Phase != Starting
}

// Stays reports whether a worker exists and has not been told to exit.
func (f *Fleet) Stays(id ID) bool {
	w := f.worker(id)
	return w != nil && w.Phase <= Serving && !f.stopping
}

// Stopping reports whether the fleet is stopping.
func (f *Fleet) Stopping() bool { return f.stopping }

// Step takes an event, or nil if only time has passed, and returns the actions, in order,
// and when to call it again at the latest (zero: not by time).
func (f *Fleet) Step(now time.Time, e Event) ([]Action, time.Time) {
	f.now, f.wake, f.out, f.unprepared = now, time.Time{}, nil, false
	if _, failed := e.(SteerFailed); f.order != nil && !failed {
		f.confirm()
	}
	if e != nil {
		f.observe(e)
	}
	f.plan()
	for _, w := range f.workers {
		f.by(w.deadline)
		if w.Phase == Serving {
			f.by(w.pingBy)
		}
	}
	out := f.out
	f.out = nil
	return out, f.wake
}

func (f *Fleet) do(a Action) { f.out = append(f.out, a) }

// by sets the next deadline to t, if that is earlier.
func (f *Fleet) by(t time.Time) {
	if !t.IsZero() && (f.wake.IsZero() || t.Before(f.wake)) {
		f.wake = t
	}
}

func (f *Fleet) observe(e Event) {
	switch e := e.(type) {
	case Reload:
		f.reload()
	case Broken:
		if e.Gen == f.wanted && e.Gen != f.live {
			f.giveUp(e.Reason)
		}
	case SetSlots:
		f.setSlots(max(e.N, 1))
	case Configure:
		slots := f.cfg.Slots
		f.cfg = e.Config
		f.cfg.Slots = slots
	case Freeze:
		f.frozen = true
	case Stop:
		f.stop(e.Now)
	case Ready:
		w := f.worker(e.ID)
		switch {
		case w == nil || w.dead || w.Phase != Starting:
		case e.Seems && f.cfg.NoOverlap: // nobody serves in the meantime
			w.seems = true
			f.serve(w)
		case e.Seems && f.cfg.ReadyDelay > 0 && f.live != 0 && w.Gen != f.live:
			if !w.seems {
				w.seems, w.late, w.deadline = true, w.deadline, f.now.Add(f.cfg.ReadyDelay)
			}
		default:
			f.serve(w)
		}
	case Lacks:
		if w := f.worker(e.ID); w != nil && w.Phase == Starting && !w.dead {
			if w.lacks = e.What; w.seems {
				w.seems, w.deadline = false, w.late
			}
		}
	case Ping:
		if w := f.worker(e.ID); w != nil && w.Phase == Serving && !w.hung && !w.dead {
			f.pinged(w)
		}
	case Hung:
		if w := f.worker(e.ID); w != nil && w.Phase == Serving && !w.dead {
			f.hang(w, e.Reason, e.Stalled)
		}
	case Extend:
		f.extend(e)
	case Restart:
		f.restart(e.ID)
	case Leave:
		f.leave(e.ID)
	case MarkRecycle:
		if w := f.worker(e.ID); w != nil && w.Phase == Serving && w.recycleReason == "" {
			w.recycleReason = e.Reason
		}
	case Unfit:
		f.unfit(e)
	case Steered: // see Step
	case SteerFailed:
		f.steerFailed(e.Reason)
	case Quiet:
		if w := f.worker(e.ID); w != nil && w.Phase == Quieting {
			f.drainInTurn(w)
		}
	case Drained:
		if w := f.worker(e.ID); w != nil && w.Phase == Draining && w.asked == askedDrain {
			w.drained = true
			if by := f.now.Add(f.cfg.DrainedGrace); by.Before(w.deadline) {
				w.deadline = by
			}
		}
	case Died:
		if w := f.worker(e.ID); w != nil {
			w.dead, w.pingBy = true, time.Time{}
			if w.Phase == Starting {
				w.deadline = time.Time{} // what it seems to be, or is late for, it will never be
			}
		}
	case Exited:
		f.exited(e)
	default:
		panic(fmt.Sprintf("fleet: unknown event %T", e))
	}
}

func (f *Fleet) reload() {
	if f.stopping {
		return
	}
	f.lastGen++
	f.wanted, f.began, f.proven = f.lastGen, f.now, false
	f.known = append(f.known, f.wanted)
	f.unprepared = true
	f.do(Prepare{f.wanted})
}

// unfit handles a start that a hook or check has rejected.
func (f *Fleet) unfit(e Unfit) {
	w := f.worker(e.ID)
	if w == nil || w.Phase != Starting {
		return
	}
	if w.doubled {
		f.term(w, e.Reason)
		return
	}
	s := f.failure(w)
	f.term(w, e.Reason)
	f.tried(s, e.Reason, false)
	if w.Gen == f.wanted && w.Gen != f.live && (f.live != 0 || s.failures >= f.cfg.MaxFailures) {
		f.giveUp(e.Reason)
	}
}

func (f *Fleet) stop(now bool) {
	if !f.stopping {
		f.stopping = true
		f.do(Unlisten{})
	}
	if now {
		for _, w := range f.workers {
			f.kill(w, "the service stops immediately")
		}
	}
}

func (f *Fleet) leave(id ID) {
	w := f.worker(id)
	if w == nil || w.Leaving || w.Phase > Serving {
		return
	}
	w.Leaving = true
	f.failure(w) // limits a program that asks for it at every start
}

// pinged restarts the watchdog of a worker.
func (f *Fleet) pinged(w *Worker) {
	w.pingBy = time.Time{}
	if f.cfg.Watchdog > 0 {
		w.pingBy = f.now.Add(f.cfg.Watchdog)
	}
}

// hang abandons a serving worker that does not respond: others get its connections at
// once, and it is killed when it has been replaced.
func (f *Fleet) hang(w *Worker, reason string, stalled bool) {
	w.hung, w.pingBy = true, time.Time{}
	w.Leaving = true
	f.do(Abandon{ID: w.ID, Reason: reason, Stalled: stalled})
	s := f.failure(w)
	if w.Gen == f.wanted && w.Gen != f.live && (f.canaryUnderWay() || s.failures >= f.cfg.MaxFailures) {
		f.giveUp(reason)
	}
}

const hungReason = "it sent no WATCHDOG=1 in time"

// maxExtend limits one extension, and all of them beyond the phase's own deadline: a
// worker could hold up a stop for ever.
const maxExtend = time.Hour

// extend gives a worker that starts or drains more time.
func (f *Fleet) extend(e Extend) {
	w := f.worker(e.ID)
	if w == nil || w.deadline.IsZero() || w.seems && w.Phase == Starting || w.Phase != Starting && (w.Phase != Draining || w.asked != askedDrain || w.drained) {
		return
	}
	if w.latest.IsZero() {
		w.latest = w.deadline.Add(maxExtend)
	}
	by := f.now.Add(min(e.By, maxExtend))
	if by.After(w.latest) {
		by = w.latest
	}
	if by.After(w.deadline) {
		w.deadline = by
	}
}

func (f *Fleet) exited(e Exited) {
	w := f.worker(e.ID)
	if w == nil {
		return
	}
	f.workers = slices.DeleteFunc(f.workers, func(o *Worker) bool { return o == w })
	if w.Phase > Serving || w.Leaving || w.doubled || f.stopping {
		return
	}
	s := f.failure(w)
	f.tried(s, e.Reason, e.Final)
	if w.Gen == f.live && e.Final && f.hopeless(w) {
		f.abort(e.Reason)
	}
	if w.Gen != f.wanted || w.Gen == f.live {
		return // a live generation cannot fail
	}
	switch {
	case w.Phase == Serving && f.canaryUnderWay():
		f.giveUp("the canary failed: " + e.Reason)
	case e.Final || s.failures >= f.cfg.MaxFailures || f.cfg.NoOverlap && f.live != 0:
		f.giveUp(e.Reason)
	}
}

// hopeless tells whether the first generation has only seemed to serve: nobody of it
// does, and it has just begun.
func (f *Fleet) hopeless(w *Worker) bool {
	return w.Gen == 1 && f.wanted == 1 && !f.cfg.RetryFirst && f.now.Sub(f.began) < f.cfg.Stable &&
		!slices.ContainsFunc(f.workers, func(o *Worker) bool { return o.Phase == Serving })
}

// failure counts a failed start for the worker's slot, and sets when the slot may start
// again: Respawn after the last start the first time, then with doubling waits.
func (f *Fleet) failure(w *Worker) *slotState {
	s := f.slotState(w.Slot, w.Gen)
	if !w.readyAt.IsZero() && f.now.Sub(w.readyAt) >= f.cfg.Stable {
		s.failures = 0
	}
	s.failures++
	if s.failures == 1 {
		s.notBefore = w.started.Add(f.cfg.Respawn)
		return s
	}
	wait := f.cfg.Respawn
	for i := 1; i < s.failures && wait < f.cfg.Backoff; i++ {
		wait *= 2
	}
	wait = min(wait, f.cfg.Backoff)
	// A jitter of up to a quarter downwards, so that the maximum holds; it is derived
	// from the ID, so that a step is repeatable.
	wait -= jitter.Of(wait/4, int(w.ID))
	s.notBefore = f.now.Add(wait)
	return s
}

func (f *Fleet) slotState(slot int, gen Gen) *slotState {
	for _, s := range f.slotStates {
		if s.slot == slot && s.gen == gen {
			return s
		}
	}
	s := &slotState{slot: slot, gen: gen}
	f.slotStates = append(f.slotStates, s)
	return s
}

// giveUp abandons the wanted generation. The live one is wanted again; if none is live
// the fleet stops.
func (f *Fleet) giveUp(reason string) {
	if f.live == 0 && f.cfg.RetryFirst {
		return
	}
	if f.live == 0 {
		f.abort(reason)
		return
	}
	f.do(Failed{Gen: f.wanted, Reason: reason, Back: f.live})
	f.wanted = f.live
}

// abort ends everything: there is nothing to fall back to.
func (f *Fleet) abort(reason string) {
	f.do(Failed{Gen: f.wanted, Reason: reason})
	f.failed = true
	f.stop(false)
}

func (f *Fleet) worker(id ID) *Worker {
	for _, w := range f.workers {
		if w.ID == id {
			return w
		}
	}
	return nil
}
