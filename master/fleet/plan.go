package fleet

import (
	"fmt"
	"slices"
	"time"

	"handoff/internal/jitter"
)

// plan compares the facts with the wanted state.
func (f *Fleet) plan() {
	f.expire()
	if f.stopping {
		f.end()
		return
	}
	live := f.live
	f.judge()
	f.settle()
	f.renew()
	f.recycle()
	set := f.choose()
	f.vacate(set)
	if f.steer(set, live) {
		return // the rest follows when the Steer is done
	}
	f.retire(set)
	f.spawn()
	f.forget()
}

// expire ends every phase that is past its deadline.
func (f *Fleet) expire() {
	for _, w := range slices.Clone(f.workers) {
		if w.Phase == Serving && !w.pingBy.IsZero() && !f.now.Before(w.pingBy) {
			f.hang(w, hungReason, false)
		}
		if w.deadline.IsZero() || f.now.Before(w.deadline) {
			continue
		}
		switch {
		case w.Phase == Starting && w.seems:
			f.serve(w)
		case w.Phase == Starting:
			f.late(w)
		case w.Phase == Quieting:
			f.drainInTurn(w)
		case w.asked < askedTerm:
			f.term(w, w.overdue())
		default:
			f.kill(w, "did not exit on SIGTERM")
		}
	}
}

// serve marks a worker as ready.
func (f *Fleet) serve(w *Worker) {
	w.Phase, w.readyAt, w.deadline, w.doubled = Serving, f.now, time.Time{}, false
	f.pinged(w)
}

// late handles a start that took too long: a failure, which makes a reload fail.
func (f *Fleet) late(w *Worker) {
	reason := fmt.Sprintf("not ready within %v", f.cfg.ReadyTimeout)
	if w.lacks != "" {
		reason += ": it " + w.lacks
	}
	if w.doubled {
		f.term(w, reason)
		return
	}
	s := f.failure(w)
	f.term(w, reason)
	f.tried(s, reason, true)
	if w.Gen == f.wanted && w.Gen != f.live && (f.live != 0 || s.failures >= f.cfg.MaxFailures) {
		f.giveUp(reason)
	}
}

// end retires all workers.
func (f *Fleet) end() {
	for _, w := range f.workers {
		if w.Phase < Draining {
			f.dismiss(w)
		}
	}
	if len(f.workers) == 0 && !f.done {
		f.done = true
		f.do(Done{Failed: f.failed})
	}
}

// judge makes the wanted generation live once it serves every slot.
func (f *Fleet) judge() {
	if f.wanted == f.live {
		return
	}
	if f.canaryUnderWay() {
		if c := f.serving(0, f.wanted); c != nil {
			proof := c.readyAt.Add(f.cfg.Canary)
			if f.now.Before(proof) {
				f.by(proof)
				return
			}
			f.proven = true
		}
	}
	for slot := range f.cfg.Slots {
		w := f.serving(slot, f.wanted)
		if w == nil {
			return
		}
		if proof := w.readyAt.Add(f.cfg.ReadyDelay); f.cfg.NoOverlap && f.live != 0 && w.seems && f.now.Before(proof) {
			f.by(proof)
			return
		}
	}
	f.live = f.wanted
	f.do(Live{Gen: f.live, Took: f.now.Sub(f.began)})
}

// renew requests a reload when it is due.
func (f *Fleet) renew() {
	if f.cfg.ReloadEvery <= 0 || f.live == 0 || f.wanted != f.live {
		return
	}
	if due := f.began.Add(f.cfg.ReloadEvery); f.now.Before(due) {
		f.by(due)
		return
	}
	f.began = f.now
	f.do(Renew{})
}

// recycle replaces workers that are marked for recycling or too old, one at a time, when
// every slot is served by a worker that stays and none is starting. The replacement
// starts first.
func (f *Fleet) recycle() {
	if f.live == 0 || f.wanted != f.live || f.frozen {
		return // a reload replaces all workers
	}
	var due *Worker
	for _, w := range f.workers {
		if w.Phase != Serving || w.Slot >= f.cfg.Slots || w.Gen != f.live {
			continue
		}
		if w.recycleReason == "" && f.cfg.MaxAge > 0 {
			if at := w.readyAt.Add(f.age(w)); f.now.Before(at) {
				f.by(at)
			} else {
				w.recycleReason = tooOld
			}
		}
		if w.recycleReason != "" && !w.Leaving && due == nil {
			due = w
		}
	}
	if due == nil {
		return
	}
	for slot := range f.cfg.Slots {
		if w := f.serving(slot, f.live); w == nil || w.Leaving {
			return
		}
	}
	if slices.ContainsFunc(f.workers, func(w *Worker) bool { return w.Phase == Starting }) {
		return
	}
	due.Leaving = true
	if due.recycleReason != tooOld {
		f.failure(due) // limits replacements if every worker exceeds a limit from its start
	}
	f.do(Recycle{ID: due.ID, Reason: due.recycleReason})
}

const tooOld = "older than its maximum age"

// age is the maximum age of a worker: up to a tenth less than configured, so that workers
// that started together are not replaced together. It is derived from the ID, so that a
// step is repeatable.
func (f *Fleet) age(w *Worker) time.Duration {
	return f.cfg.MaxAge - jitter.Of(f.cfg.MaxAge/10, int(w.ID))
}

// canaryUnderWay reports whether only slot 0 may have the wanted generation yet.
func (f *Fleet) canaryUnderWay() bool {
	return f.cfg.Canary > 0 && f.live != 0 && f.wanted != f.live && !f.proven
}

// serving returns the worker of the generation that serves the slot: one that
// stays, if there is one.
func (f *Fleet) serving(slot int, gen Gen) *Worker {
	var found *Worker
	for _, w := range f.workers {
		if w.Slot == slot && w.Gen == gen && w.Phase == Serving && !w.hung && !w.dead && (found == nil || found.Leaving) {
			found = w
		}
	}
	return found
}

// choose returns the workers to which connections go, one for each slot, nil for an
// unserved slot.
func (f *Fleet) choose() []*Worker {
	set := make([]*Worker, f.cfg.Slots)
	for slot := range set {
		set[slot] = f.chooseFor(slot)
	}
	if slices.ContainsFunc(set, (*Worker).accepts) {
		return set
	}
	// Exits have left every slot unserved, or who serves has hung: any worker that serves
	// is used.
	for slot := range set {
		if w := f.serving(slot, f.wanted); w != nil {
			set[slot] = w
		}
	}
	if slices.ContainsFunc(set, (*Worker).accepts) {
		return set
	}
	// Also one whose slot is removed.
	var spare *Worker
	for _, w := range f.workers {
		if w.Phase == Serving && w.InService && !w.dead && !slices.Contains(set, w) && (spare == nil || spare.hung) {
			spare = w
		}
	}
	if spare != nil && (spare.accepts() || !slices.ContainsFunc(set, func(w *Worker) bool { return w != nil })) {
		set = append(set, spare)
	}
	return set
}

// accepts reports whether a worker gets what is steered to it: one that hangs has been
// abandoned, and nothing goes to it any more.
func (w *Worker) accepts() bool { return w != nil && !w.hung }

func (f *Fleet) chooseFor(slot int) *Worker {
	target := f.live
	early := f.bySlot() && !f.canaryUnderWay() || f.cfg.Canary > 0 && slot == 0
	if f.live == 0 || early && f.serving(slot, f.wanted) != nil {
		target = f.wanted
	}
	if w := f.serving(slot, target); w != nil {
		return w
	}
	// None of the right generation: keep those in service.
	var kept *Worker
	for _, w := range f.workers {
		if w.Slot == slot && w.Phase == Serving && w.InService && !w.dead && (!kept.accepts() || w.accepts()) {
			kept = w
		}
	}
	return kept
}

// retire ends the workers that are not needed any more, but none that still gets
// connections.
func (f *Fleet) retire(set []*Worker) {
	var quieted []*Worker
	for _, w := range f.workers {
		if w.Phase > Serving || slices.Contains(set, w) || f.hasPurpose(w) {
			continue
		}
		if slices.Contains(f.steered, w.ID) || f.astray && w.InService {
			continue // steering has failed: connections still come to it
		}
		if w.hung {
			f.kill(w, f.inTheWay())
			continue
		}
		if w.InService {
			w.Phase, w.deadline = Quieting, f.now.Add(f.cfg.QuietTimeout)
			f.do(Quiesce{w.ID})
			quieted = append(quieted, w)
			continue
		}
		// It has never had a connection of a steered address, but may have some of a
		// shared one.
		f.dismiss(w)
	}
	if f.cfg.NoOverlap {
		return // who drains later starts later
	}
	for i, w := range quieted {
		w.turn = f.now.Add(f.cfg.DrainSpread * time.Duration(i) / time.Duration(len(quieted)))
	}
}

// drainInTurn drains a quiet worker in its turn, so that not all long-lived connections
// are closed, and reconnect, at once.
func (f *Fleet) drainInTurn(w *Worker) {
	if f.now.Before(w.turn) {
		w.deadline = w.turn
		return
	}
	f.drain(w)
}

// dismiss drains a worker without waiting for quiet, since one that is not ready yet has
// little to finish.
func (f *Fleet) dismiss(w *Worker) {
	starting := w.Phase == Starting
	f.drain(w)
	switch {
	case f.stopping: // the next master gets the order again
	case !starting:
		f.out[len(f.out)-1] = Drain{ID: w.ID, AtOnce: true}
	}
	if starting {
		w.deadline = f.now.Add(min(f.cfg.KillGrace, f.cfg.DrainTimeout))
	}
}

// hasPurpose reports whether a worker that is not steered to is kept: it is starting,
// waits for its generation, or is needed if the reload fails.
func (f *Fleet) hasPurpose(w *Worker) bool {
	if w.Slot >= f.cfg.Slots || w.Gen != f.wanted && w.Gen != f.live || f.outgoing(w) {
		return false
	}
	if other := f.serving(w.Slot, w.Gen); other != nil && other != w && (w.Leaving || !other.Leaving) {
		return false // two of one slot: one has come back because steering had failed
	}
	if w.Gen == f.wanted {
		return true
	}
	// Of the live generation, in a reload.
	taken := f.bySlot() && !f.canaryUnderWay() && f.serving(w.Slot, f.wanted) != nil
	return !taken
}

// spawn starts missing workers. An unserved slot starts at once; if a worker serves,
// starts wait for their turn.
func (f *Fleet) spawn() {
	switch {
	case f.frozen:
		return
	case f.cfg.NoOverlap:
		f.spawnAlone()
		return
	}
	for slot := range f.cfg.Slots {
		served := f.served(slot)
		if f.wanted != f.live && f.live != 0 {
			started := false
			if f.wantsLive(slot) && (!served || f.extra() < f.surge()) {
				started = f.fill(slot, f.live)
			}
			if f.canaryUnderWay() && slot > 0 || f.cfg.Strategy == Slot && !served && started {
				continue
			}
		}
		if !served || f.extra() < f.surge() {
			f.fill(slot, f.wanted)
		}
	}
}

// wantsLive reports whether a slot has lost its worker during a reload. The replacement
// is of the live generation, since the wanted one is not in service yet.
func (f *Fleet) wantsLive(slot int) bool {
	for _, w := range f.workers {
		if w.Slot == slot && w.Phase == Serving && w.InService && !w.Leaving {
			return false
		}
	}
	return f.cfg.Strategy == All || f.serving(slot, f.wanted) == nil
}

// served reports whether a slot has a worker in service.
func (f *Fleet) served(slot int) bool {
	return slices.ContainsFunc(f.workers, func(w *Worker) bool {
		return w.Slot == slot && w.Phase == Serving && w.InService
	})
}

// extra counts the running starts that have waited for their turn.
func (f *Fleet) extra() int {
	n := 0
	for _, w := range f.workers {
		if w.Phase == Starting && w.extra {
			n++
		}
	}
	return n
}

// fill makes sure that a slot has a worker that stays, and reports whether it has one;
// not while it must wait after failures.
func (f *Fleet) fill(slot int, gen Gen) bool {
	if gen == 0 {
		return false
	}
	if f.stays(slot, gen) {
		return true
	}
	if s := f.slotState(slot, gen); f.now.Before(s.notBefore) {
		f.by(s.notBefore)
		return false
	}
	f.lastID++
	w := &Worker{ID: f.lastID, Slot: slot, Gen: gen, extra: f.served(slot), started: f.now}
	if !f.cfg.RetryFirst || f.live != 0 && gen != f.live { // with RetryFirst only reloads fail
		w.deadline = f.now.Add(f.cfg.ReadyTimeout)
	}
	f.workers = append(f.workers, w)
	f.do(Spawn{ID: f.lastID, Slot: slot, Gen: gen})
	return true
}

func (f *Fleet) surge() int {
	switch {
	case f.cfg.Surge > 0:
		return f.cfg.Surge
	case f.bySlot():
		return 1
	}
	return f.cfg.Slots
}

// forget drops the generations of which no worker can be started any more.
func (f *Fleet) forget() {
	f.known = slices.DeleteFunc(f.known, func(gen Gen) bool {
		if gen == f.wanted || gen == f.live ||
			slices.ContainsFunc(f.workers, func(w *Worker) bool { return w.Gen == gen }) {
			return false
		}
		f.slotStates = slices.DeleteFunc(f.slotStates, func(s *slotState) bool { return s.gen == gen })
		f.do(Forget{gen})
		return true
	})
}

func (f *Fleet) drain(w *Worker) {
	w.Phase, w.asked, w.deadline, w.latest = Draining, askedDrain, f.now.Add(f.cfg.DrainTimeout), time.Time{}
	f.do(Drain{ID: w.ID})
}

// overdue says why a draining worker gets SIGTERM.
func (w *Worker) overdue() string {
	if w.drained {
		return "drained, but did not exit"
	}
	return "drain timeout"
}

func (f *Fleet) term(w *Worker, reason string) {
	w.Phase, w.asked, w.deadline = Draining, askedTerm, f.now.Add(f.cfg.KillGrace)
	f.do(Signal{ID: w.ID, Reason: reason})
}

func (f *Fleet) kill(w *Worker, reason string) {
	if w.asked == askedKill {
		return
	}
	w.Phase, w.asked, w.deadline = Draining, askedKill, time.Time{}
	f.do(Signal{ID: w.ID, Kill: true, Reason: reason})
}
