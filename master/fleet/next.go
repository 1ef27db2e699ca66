package fleet

import (
	"slices"
	"time"
)

// Plan is what will happen if nothing else does.
type Plan struct {
	What     What
	Slot     int // -1: it is of all
	Gen      Gen
	At       time.Time // zero: when its turn comes
	Failures int       // of a Start: failed starts in a row
	Reason   string    // of a Recycle
}

// What is what a Plan is about.
type What int

// What may come.
const (
	PlanStart   What = iota // a worker is started, after failures
	PlanReplace             // one is, in the place of one that serves until then
	PlanGiveUp              // a start takes too long
	PlanRecycle             // a worker is replaced
	PlanReload              // everything is
	PlanTerm                // a worker that drains gets SIGTERM
	PlanKill                // one that has got it is killed
)

func (w What) String() string {
	return [...]string{"start", "replace", "give_up", "recycle", "reload", "terminate", "kill"}[w]
}

// Next returns what will happen, the soonest first, and at its end what has no time. Of
// what happens to many workers for the same reason it has the first.
func (f *Fleet) Next(now time.Time) []Plan {
	var plans []Plan
	first := func(p Plan) {
		i := slices.IndexFunc(plans, func(o Plan) bool { return o.What == p.What && o.Reason == p.Reason })
		switch {
		case i < 0:
			plans = append(plans, p)
		case p.At.Before(plans[i].At):
			plans[i] = p
		}
	}
	if !f.stopping && !f.frozen {
		for _, s := range f.slotStates {
			if (s.gen == f.wanted || s.gen == f.live) && s.slot < f.cfg.Slots && s.notBefore.After(now) && !f.stays(s.slot, s.gen) {
				p := Plan{What: PlanStart, Slot: s.slot, Gen: s.gen, At: s.notBefore, Failures: s.failures}
				if f.served(s.slot) && s.gen == f.live {
					p.What, p.Failures = PlanReplace, 0 // it may only be paced
				}
				plans = append(plans, p)
			}
		}
		if f.cfg.ReloadEvery > 0 && f.live != 0 && f.wanted == f.live {
			first(Plan{What: PlanReload, Slot: -1, At: f.began.Add(f.cfg.ReloadEvery)})
		}
	}
	for _, w := range f.workers {
		p := Plan{Slot: w.Slot, Gen: w.Gen, At: w.deadline}
		recycled := w.Phase == Serving && !w.Leaving && !f.stopping && !f.frozen && w.Gen == f.wanted && w.Gen == f.live
		switch {
		case recycled && w.recycleReason != "":
			p.What, p.Reason, p.At = PlanRecycle, w.recycleReason, time.Time{}
			first(p)
		case recycled && f.cfg.MaxAge > 0:
			p.What, p.Reason, p.At = PlanRecycle, tooOld, w.readyAt.Add(f.age(w))
			first(p)
		case w.deadline.IsZero():
		case w.Phase == Starting && !w.seems:
			p.What = PlanGiveUp
			first(p)
		case w.Phase == Draining && w.asked == askedDrain:
			p.What = PlanTerm
			first(p)
		case w.Phase == Draining && w.asked == askedTerm:
			p.What = PlanKill
			first(p)
		}
	}
	slices.SortStableFunc(plans, func(a, b Plan) int {
		switch {
		case a.At.IsZero() != b.At.IsZero():
			return map[bool]int{true: 1, false: -1}[a.At.IsZero()]
		}
		return a.At.Compare(b.At)
	})
	return plans
}

// stays reports whether a slot has a worker of a generation that is not to go.
func (f *Fleet) stays(slot int, gen Gen) bool {
	return slices.ContainsFunc(f.workers, func(w *Worker) bool {
		return w.Slot == slot && w.Gen == gen && w.Phase <= Serving && !w.Leaving && !w.doubled
	})
}

// Vacant are the slots in which nobody serves or starts, with the plan of the next start;
// one without a time is not started at all.
func (f *Fleet) Vacant(now time.Time) []Plan {
	var vacant []Plan
	for slot := range f.cfg.Slots {
		if slices.ContainsFunc(f.workers, func(w *Worker) bool { return w.Slot == slot && (w.Phase <= Serving || f.cfg.NoOverlap) }) {
			continue
		}
		p := Plan{What: PlanStart, Slot: slot, Gen: f.live}
		if f.live == 0 {
			p.Gen = f.wanted
		}
		if n, at := f.Failures(slot, p.Gen); !f.stopping && !f.frozen {
			if p.Failures = n; at.After(now) {
				p.At = at
			}
		}
		vacant = append(vacant, p)
	}
	return vacant
}

// Complete reports whether every slot serves and no worker is starting.
func (f *Fleet) Complete() bool {
	serving := 0
	for _, w := range f.workers {
		switch w.Phase {
		case Starting:
			return false
		case Serving:
			serving++
		}
	}
	return serving >= f.cfg.Slots
}
