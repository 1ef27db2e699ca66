package listeners

import (
	"maps"
	"slices"
	"time"
)

// stallReported is how long a worker must stall before it is reported: shorter stalls are
// common. New connections are steered away from it at once.
const stallReported = time.Second

// stall is the stall of a target that accepts nothing, while others do.
type stall struct {
	since    time.Time
	reported bool
	timeout  time.Time // start of the next StallTimeout
}

// Stalls reports whether a worker accepts nothing, while others do.
func (t *Table) Stalls(id Worker) bool { return t.stalls[id] != nil }

// lookStalls reports workers that stall, or have recovered.
func (t *Table) lookStalls(now time.Time) {
	stalled := map[Worker]bool{}
	for _, a := range t.list {
		if a.group == nil {
			continue
		}
		for _, slot := range a.group.Stalled() {
			if slot < len(t.targets) && t.targets[slot] != 0 {
				stalled[t.targets[slot]] = true
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(t.stalls)) {
		s := t.stalls[id]
		if stalled[id] {
			continue
		}
		if s.reported {
			t.note(Recovered{id, now.Sub(s.since)})
		}
		delete(t.stalls, id)
	}
	for _, id := range slices.Sorted(maps.Keys(stalled)) {
		s := t.stalls[id]
		if s == nil {
			s = &stall{since: now, timeout: now}
			t.stalls[id] = s
		}
		if !s.reported && now.Sub(s.since) >= stallReported {
			s.reported = true
			t.note(Stalled{id})
		}
		if after := t.cfg.StallTimeout; after > 0 && now.Sub(s.timeout) >= after {
			s.timeout = now
			t.note(StallTimeout{id, after})
		}
	}
}

func (t *Table) stallDeadline() (next time.Time) {
	for _, s := range t.stalls {
		if !s.reported {
			next = earlier(next, s.since.Add(stallReported))
		}
		if t.cfg.StallTimeout > 0 {
			next = earlier(next, s.timeout.Add(t.cfg.StallTimeout))
		}
	}
	return next
}
