package master

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"handoff/internal/procs"
	"handoff/master/fleet"
)

// Recycling: what has workers replaced one at a time, when nothing is wrong with the
// code. The fleet keeps their turns (fleet.Tire); what is found out here is who.

// weighEvery is how often the memory of workers is looked at, where there is a
// most. It takes a walk through /proc, which a goroutine does.
const weighEvery = 5 * time.Second

// weigh starts a look at the workers' memory, when it is time.
func (m *Master) weigh(now time.Time) {
	if m.cfg.MemoryMost <= 0 || m.weighing || now.Before(m.weighAt) {
		return
	}
	m.weighing, m.weighAt = true, now.Add(weighEvery)
	groups := map[int]fleet.ID{}
	for _, w := range m.workers {
		groups[w.pid] = w.id
	}
	go func() { // ends when it has looked
		found := map[fleet.ID]int64{}
		procs.Walk(func(p procs.Process) {
			if id, ok := groups[p.Group]; ok {
				found[id] += p.RSS
			}
		})
		m.post(weighed{found})
	}()
}

// weighed has workers that are too large replaced.
func (m *Master) weighed(bytes map[fleet.ID]int64) {
	m.weighing = false
	for _, id := range slices.Sorted(maps.Keys(bytes)) {
		if n := bytes[id]; n > m.cfg.MemoryMost && m.cfg.MemoryMost > 0 {
			m.tire(id, fmt.Sprintf("%d MB resident, more than %d", n>>20, m.cfg.MemoryMost>>20))
		}
	}
}

func (m *Master) tire(id fleet.ID, reason string) {
	if m.fleet.Stays(id) {
		m.step(fleet.Tire{ID: id, Reason: reason})
	}
}

// requestsMost is after how many requests a worker is replaced: up to a tenth fewer
// than configured, so that those that started together do not all go together.
func (m *Master) requestsMost(id fleet.ID) int {
	most := m.cfg.MaxRequests
	return most - most/10*int(uint32(id)*2654435761>>24)/256
}

// served: a worker says how many requests it has served since its start.
func (m *Master) served(w *worker, requests int) {
	if w.requests = requests; m.cfg.MaxRequests > 0 && requests >= m.requestsMost(w.id) {
		m.tire(w.id, strconv.Itoa(requests)+" requests served")
	}
}
