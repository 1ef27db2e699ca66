package master

import (
	"handoff/internal/linux"
	"handoff/master/fleet"
	"handoff/master/recycle"
)

// recycle is the configuration of the room master/recycle.
func (l *Live) recycle() recycle.Config {
	return recycle.Config{MaxMemory: l.MaxMemory, MaxRequests: l.MaxRequests}
}

// sampleMemory reads the memory of the workers' process groups: a walk through /proc, in
// a goroutine of its own.
func (m *Master) sampleMemory() {
	groups := map[int]int{}
	for _, w := range m.workers {
		groups[w.process.PID()] = int(w.id)
	}
	go func() { // ends when it has read all
		resident := map[int]int64{}
		for p := range linux.Processes() {
			if id, ok := groups[p.Group]; ok {
				resident[id] += p.RSS
			}
		}
		m.mail.post(memorySampled{resident})
	}()
}

// recycle marks a worker for replacement.
func (m *Master) recycle(v recycle.Verdict) {
	if id := fleet.ID(v.Worker); m.fleet.Stays(id) {
		m.step(fleet.MarkRecycle{ID: id, Reason: v.Reason})
	}
}

// served: a worker reports how many requests it has served since its start.
func (m *Master) served(w *worker, requests int) {
	w.requests = requests
	if v, ok := m.recycler.Served(int(w.id), requests); ok {
		m.recycle(v)
	}
}
