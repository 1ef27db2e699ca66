package master

import (
	"handoff/internal/linux"
	"handoff/master/fleet"
	"handoff/master/recycle"
)

// recycle is what of the configuration the room master/recycle goes by.
func (l *Live) recycle() recycle.Config {
	return recycle.Config{MaxMemory: l.MaxMemory, MaxRequests: l.MaxRequests}
}

// sampleMemory looks at the memory of the workers' process groups: a walk through /proc,
// in a goroutine of its own.
func (m *Master) sampleMemory() {
	groups := map[int]int{}
	for _, w := range m.workers {
		groups[w.process.PID()] = int(w.id)
	}
	go func() { // ends when it has looked
		resident := map[int]int64{}
		for p := range linux.Processes() {
			if id, ok := groups[p.Group]; ok {
				resident[id] += p.RSS
			}
		}
		m.mail.post(memorySampled{resident})
	}()
}

// recycle has a worker replaced when its turn comes.
func (m *Master) recycle(v recycle.Verdict) {
	if id := fleet.ID(v.Worker); m.fleet.Stays(id) {
		m.step(fleet.MarkRecycle{ID: id, Reason: v.Reason})
	}
}

// served: a worker says how many requests it has served since its start.
func (m *Master) served(w *worker, requests int) {
	w.requests = requests
	if v, ok := m.recycler.Served(int(w.id), requests); ok {
		m.recycle(v)
	}
}
