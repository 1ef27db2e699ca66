package fleet

import "slices"

// Without overlap the workers of a slot run one after the other, for programs with a pid
// file, a lock or a state that only one process can have.
//
//	Serving ──its turn──► nothing is steered to it ──► Quieting ──► Draining ──► gone
//	             (but to other slots; if there are none,                         │
//	             connections wait in held sockets)       Serving ◄── Starting ◄──┘
//
// Slots take turns, as many at once as Surge says. That the next worker cannot start is
// known only when the one before is gone: so the first failed start fails a reload, and
// the previous generation is started again, in the same way.

// bySlot reports whether a slot gets a new generation before the others have it.
func (f *Fleet) bySlot() bool { return f.cfg.Strategy == Slot || f.cfg.NoOverlap }

// due is the generation that a slot should have now.
func (f *Fleet) due(slot int) Gen {
	if f.canaryUnderWay() && slot > 0 {
		return f.live
	}
	return f.wanted
}

// outgoing reports whether a worker must end before its slot gets the one that it should
// have.
func (f *Fleet) outgoing(w *Worker) bool {
	return f.cfg.NoOverlap && w.Slot < f.cfg.Slots && (w.Leaving || w.Gen != f.due(w.Slot))
}

// vacate takes those out of the set whose turn it is to end.
func (f *Fleet) vacate(set []*Worker) {
	if !f.cfg.NoOverlap || f.astray {
		return
	}
	out := 0 // slots that are not served
	for _, w := range set {
		if w == nil || !f.isSteeredTo(w) {
			out++
		}
	}
	for slot, w := range set {
		if w == nil || !f.outgoing(w) {
			continue
		}
		if f.isSteeredTo(w) {
			if out >= f.surge() || !f.replaceable(w) {
				continue
			}
			out++
		}
		set[slot] = nil
	}
}

func (f *Fleet) isSteeredTo(w *Worker) bool { return slices.Contains(f.steered, w.ID) }

// replaceable reports whether another worker can be started in the slot of one at once.
func (f *Fleet) replaceable(w *Worker) bool {
	if f.frozen {
		return false
	}
	if f.unprepared {
		f.by(f.now)
		return false
	}
	if s := f.slotState(w.Slot, f.due(w.Slot)); f.now.Before(s.notBefore) {
		f.by(s.notBefore)
		return false
	}
	return true
}

// letWait reports whether connections have to wait, since nobody is left that could have
// them, and those who have them until now must end first.
func (f *Fleet) letWait() bool {
	return slices.ContainsFunc(f.workers, func(w *Worker) bool {
		return f.outgoing(w) && w.Phase == Serving && !w.dead && f.isSteeredTo(w)
	})
}

// spawnAlone starts workers in the slots that have none.
func (f *Fleet) spawnAlone() {
	for slot := range f.cfg.Slots {
		if !f.occupied(slot) {
			f.fill(slot, f.due(slot))
		}
	}
}

// occupied reports whether a slot has a process.
func (f *Fleet) occupied(slot int) bool {
	return slices.ContainsFunc(f.workers, func(w *Worker) bool { return w.Slot == slot })
}

// GivingWay returns the workers to which nothing is steered any more, so that others can
// be started in their slots: connections for which there is nobody else wait.
func (f *Fleet) GivingWay() (ids []ID) {
	for _, w := range f.workers {
		if f.cfg.NoOverlap && w.InService && !f.isSteeredTo(w) {
			ids = append(ids, w.ID)
		}
	}
	return ids
}

// inTheWay is why a worker that does not respond is killed.
func (f *Fleet) inTheWay() string {
	if f.cfg.NoOverlap {
		return "it does not respond; another worker starts when it has ended"
	}
	return "it does not respond; another worker serves"
}
