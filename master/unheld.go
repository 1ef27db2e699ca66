package master

import (
	"handoff/internal/events"
	"handoff/master/descendants"
	"handoff/master/fleet"
	"handoff/master/listeners"
	"handoff/master/unheld"
)

func (f facts) Later(do func(unheld.Loop)) {
	f.m.mail.post(asked{func(m *Master) { do(facts{m}) }})
}

func (f facts) Waits(id listeners.Worker) bool {
	w := f.m.workers[fleet.ID(id)]
	return w != nil && !w.dead && f.m.fleet.Worker(w.id).Phase == fleet.Starting && f.m.listeners.Count(id) == 0
}

func (f facts) Lacks(id listeners.Worker, what string) {
	w := f.m.workers[fleet.ID(id)]
	f.m.once("unheld", "Worker not ready: it "+what, w.attrs(events.WorkerIncomplete, "reason", what)...)
	f.m.step(fleet.Lacks{ID: w.id, What: what})
}

// Holders are the workers that may have an address on a socket that is not held.
func (f facts) Holders() (all []unheld.Worker) {
	for id, w := range f.m.workers {
		if f.m.cfg.Contract == BindContract {
			break
		}
		f.m.descendants.Look(descendants.Worker(id))
		all = append(all, unheld.Worker{Slot: w.slot, Processes: f.Processes(listeners.Worker(id))})
	}
	return all
}
