package fleet

import (
	"slices"
	"time"
)

// A worker retires when connections go to others, and steering can fail. So a step that
// orders a Steer ends there, and continues with the answer.
//
//	Steer ──Steered──────► Live, Quiesce, Spawn … as planned
//	   └────SteerFailed──► as before: the wanted generation fails; if none is live, the
//	                       same is ordered again a second later

// order is a Steer that is not answered yet, with the state before it.
type order struct {
	live    Gen
	steered []ID
	fresh   []*Worker // in service by it
	report  []Action  // Live, if it makes a generation live
}

// steerAgain is how long after a failure steering is tried again.
const steerAgain = time.Second

// steer orders the set if it has changed, and reports whether it did; live is the
// generation before this step. An empty set changes nothing: connections queue at the
// previous targets; unless these must end before others can start.
func (f *Fleet) steer(set []*Worker, live Gen) bool {
	var ids []ID
	var fresh []*Worker
	for _, w := range set {
		if w == nil {
			continue
		}
		ids = append(ids, w.ID)
		if !w.InService {
			fresh = append(fresh, w)
		}
	}
	if slices.Equal(ids, f.steered) || len(ids) == 0 && !f.letWait() {
		return false
	}
	if f.now.Before(f.steerAt) {
		f.live = live // it does not serve a slot before it is steered to
		f.out = slices.DeleteFunc(f.out, isLive)
		f.by(f.steerAt)
		return false
	}
	f.order = &order{live: live, steered: f.steered, fresh: fresh}
	for _, w := range fresh {
		w.InService = true
	}
	f.steered = ids
	for _, a := range f.out {
		if isLive(a) {
			f.order.report = append(f.order.report, a)
		}
	}
	f.out = slices.DeleteFunc(f.out, isLive)
	f.do(Steer{IDs: slices.Clone(ids)})
	return true
}

func isLive(a Action) bool { _, is := a.(Live); return is }

// confirm continues after a Steer that succeeded.
func (f *Fleet) confirm() {
	f.out = append(f.out, f.order.report...)
	f.order, f.astray, f.steerAt = nil, false, time.Time{}
}

// steerFailed restores the state before a Steer.
func (f *Fleet) steerFailed(reason string) {
	f.steerAt = f.now.Add(steerAgain)
	o := f.order
	if o == nil {
		// Some connections go to retiring workers, and it is not known to which: all of
		// them stay until steering succeeds.
		f.astray, f.steered = true, nil
		for _, w := range f.workers {
			if w.Phase == Quieting {
				w.Phase, w.deadline, w.turn = Serving, time.Time{}, time.Time{}
				f.pinged(w)
			}
		}
		return
	}
	f.order = nil
	f.live, f.steered = o.live, o.steered
	for _, w := range o.fresh {
		w.InService = false
	}
	if f.live != 0 && f.wanted != f.live {
		f.giveUp("cannot steer connections to it: " + reason)
	}
}
