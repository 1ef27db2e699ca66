package fleet

import (
	"slices"
	"time"
)

// More slots, or another worker in one, are limited as a reload is: if they cannot be
// started, the previous state is restored.

func (f *Fleet) setSlots(n int) {
	switch {
	case n == f.cfg.Slots && f.grown > 0:
		if !f.cfg.NoOverlap {
			f.startBeside()
		}
	case n <= f.grown:
		f.grown = 0
	case f.live != 0 && n > f.cfg.Slots && f.grown == 0:
		f.grown = f.cfg.Slots
	}
	f.cfg.Slots = n
}

// startBeside starts another worker beside one that starts in a new slot: more slots were
// asked for again, since the first one hangs, and what it was started from may have been
// repaired. Whichever is ready first serves; there are two at most, so that whoever asks
// again and again hinders no start.
func (f *Fleet) startBeside() {
	for slot := f.grown; slot < f.cfg.Slots; slot++ {
		f.slotState(slot, f.live).notBefore = time.Time{}
		var starting []*Worker
		for _, w := range f.workers {
			if w.Slot == slot && w.Gen == f.live && w.Phase == Starting {
				starting = append(starting, w)
			}
		}
		if len(starting) == 1 {
			starting[0].doubled = true
		}
	}
}

func (f *Fleet) restart(id ID) {
	w := f.worker(id)
	if w == nil || w.Leaving || w.Phase != Serving {
		return
	}
	w.Leaving = true
	s := f.slotState(w.Slot, w.Gen)
	s.trial, s.failures, s.notBefore = true, 0, time.Time{}
}

// tried abandons a SetSlots or Restart after a failed start of a slot of the live
// generation: after MaxFailures of them, or when no other start is pending.
func (f *Fleet) tried(s *slotState, reason string, last bool) {
	if s.gen != f.live || s.failures < f.cfg.MaxFailures && !last {
		return
	}
	switch {
	case s.trial:
		s.trial = false
		for _, w := range f.workers {
			if w.Slot == s.slot && w.Gen == s.gen && w.Phase == Serving && !w.hung {
				w.Leaving = false
			}
		}
		f.do(NotRestarted{Slot: s.slot, Gen: s.gen, Reason: reason})
	case f.grown > 0 && s.slot >= f.grown && s.slot < f.cfg.Slots:
		f.do(NotScaled{Slots: f.cfg.Slots, Back: f.grown, Slot: s.slot, Gen: s.gen, Reason: reason})
		f.cfg.Slots, f.grown = f.grown, 0
		f.slotStates = slices.DeleteFunc(f.slotStates, func(s *slotState) bool { return s.slot >= f.cfg.Slots }) // the next attempt starts counting again
	}
}

// settle ends a SetSlots or Restart once it serves.
func (f *Fleet) settle() {
	for _, s := range f.slotStates {
		if w := f.serving(s.slot, s.gen); w != nil && !w.Leaving {
			s.trial = false
		}
	}
	if f.grown == 0 {
		return
	}
	for slot := range f.cfg.Slots {
		if f.serving(slot, f.live) == nil {
			return
		}
	}
	f.grown = 0
}
