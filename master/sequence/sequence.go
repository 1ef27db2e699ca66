// Package sequence has the order in which decisions are written down and carried out, and
// in which a master takes over from the record of the previous one. It has no I/O, no
// clock and no goroutine: what is done is behind [World], which is the master's loop, or
// a simulated one (master/sim), whose masters die between any two calls.
//
//	fleet.Step ──► Save, for some ──► actions, in order ──► Steer, the last one
//	                                                          Aim ─► Save ─► Steer ─► Steered
//	                                                                           └─ refused: undo ─► Steer ─► SteerFailed ─► Save
package sequence

import (
	"slices"
	"time"

	"handoff/master/fleet"
	"handoff/master/reload"
	"handoff/master/snapshot"
)

// World carries out what is decided.
type World interface {
	Now() time.Time
	// Save writes the record for the next master.
	Save()
	// Do carries out an action of the fleet, which is no Steer.
	Do(fleet.Action)
	// Aim sets the targets of new connections, which Steer applies; undo restores the
	// previous ones.
	Aim(ids []fleet.ID) (undo func())
	// Steer has the kernel send new connections to the targets. After an error the
	// previous ones remain, at one address at least.
	Steer() error
	// Steered: the kernel has applied the targets.
	Steered()
	// Retry gives connections that wait for a worker to those that there are now.
	Retry()
}

// Step passes an event to the fleet and carries out its actions, until no Steer is left
// to be answered.
func Step(w World, f *fleet.Fleet, e fleet.Event) {
	for again := true; again; {
		actions, _ := f.Step(w.Now(), e)
		again = false
		if _, refused := e.(fleet.SteerFailed); refused || slices.ContainsFunc(actions, recordedFirst) {
			w.Save()
		}
		for _, a := range actions {
			if to, ok := a.(fleet.Steer); ok { // the last action, which is answered
				e, again = steer(w, to.IDs), true
			} else {
				w.Do(a)
			}
		}
	}
}

// recordedFirst reports whether the next master must know of an action, should it be
// carried out: of the order of a reload, and of who was told to go and may not be steered
// to again. (That nothing follows of a steering that was refused is recorded likewise.)
func recordedFirst(a fleet.Action) bool {
	if d, ok := a.(fleet.Drain); ok {
		return d.AtOnce
	}
	_, ok := a.(fleet.Prepare)
	return ok
}

// steer sends connections to these workers, and answers the fleet. If it fails at one
// address, the previous targets are restored at all.
func steer(w World, ids []fleet.ID) fleet.Event {
	undo := w.Aim(ids)
	// Before the kernel is told: otherwise the next master could steer back, and clients
	// would see the previous generation again.
	w.Save()
	if err := w.Steer(); err != nil {
		undo()
		w.Steer() // reports its error
		// The record still has what was aimed at, with the fleet's state that goes with it.
		return fleet.SteerFailed{Reason: err.Error()}
	}
	w.Steered()
	w.Retry()
	return fleet.Steered{}
}

// Resteer applies the targets after a worker has started or stopped accepting, and
// retries waiting connections. step queues an event of the fleet.
func Resteer(w World, step func(fleet.Event)) {
	if err := w.Steer(); err != nil {
		step(fleet.SteerFailed{Reason: err.Error()})
	} else {
		w.Steered()
	}
	w.Retry()
}

// Heir is a World that takes over from a previous master. Its steps are paused.
type Heir interface {
	World
	// Step queues an event of the fleet.
	Step(fleet.Event)
	CarryOut(reload.Action)
	// Begin has the rooms that decide, restored.
	Begin(*fleet.Fleet, *reload.Machine)
	// Adopt takes over generations, sockets and workers.
	Adopt()
	// Has reports whether a worker was adopted.
	Has(fleet.ID) bool
	// Dead reports whether the process of one that was is dead.
	Dead(fleet.ID) bool
	// Lost: one was not, or is dead. What it had is free.
	Lost(fleet.ID)
	// Discard kills the processes of the previous master that are not in its record, and
	// closes what is left in the store. Unrecorded reports whether a worker is one of
	// these, by its number.
	Discard(unrecorded func(fleet.ID) bool)
}

// TakeOver takes over from the master that left a record, and returns what must be done
// when steps are no longer paused, before everything else. hook: a hook can refuse
// reloads. upgradeFailed is why the master of an upgrade did not take over, but this one.
func TakeOver(h Heir, cfg fleet.Config, hook bool, upgradeFailed string, r snapshot.Record) (first func()) {
	now := h.Now()
	reloads, ordered := reload.Restore(Reloads(r), hook, upgradeFailed, now)
	// Connections go to the targets. The fleet may already have decided to send them
	// elsewhere, in a step that was not carried out: it decides again.
	state := r.Fleet
	state.Steered = nil
	for _, id := range r.Targets {
		if id != 0 {
			state.Steered = append(state.Steered, fleet.ID(id))
		}
	}
	f, actions := fleet.Restore(cfg, state, now)
	h.Begin(f, reloads)
	h.Adopt()
	var gone []fleet.Event // nobody retires for these
	for _, w := range f.Workers() {
		switch {
		case !h.Has(w.ID):
			gone = append(gone, fleet.Exited{ID: w.ID, Reason: "lost with the previous master"})
		case h.Dead(w.ID):
			gone = append(gone, fleet.Died{ID: w.ID})
		default:
			continue
		}
		h.Lost(w.ID)
	}
	Resteer(h, h.Step) // if it fails, nothing is decided before that is known
	for _, e := range gone {
		h.Step(e)
	}
	h.Discard(func(id fleet.ID) bool {
		return !h.Has(id) && (id > r.Fleet.LastID || slices.ContainsFunc(r.Fleet.Workers, func(w fleet.WorkerState) bool { return w.ID == id }))
	})
	if last := reloads.Last; last.Outcome == reload.Running && last.Generation <= int(f.Last()) && last.Generation != int(f.Wanted()) && last.Generation != int(f.Live()) {
		// It has failed, and the previous master was killed before it said so.
		ordered = append(ordered, reloads.Step(now, reload.Ended{Generation: last.Generation, Outcome: reload.Failed, Reason: "it failed as the master died"})...)
	}
	if f.Stopping() {
		reloads.Step(now, reload.Stopping{})
		ordered = nil
	}
	return func() {
		for _, a := range actions {
			h.Do(a)
		}
		for _, a := range ordered {
			h.CarryOut(a)
		}
	}
}
