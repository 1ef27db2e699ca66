package master

import (
	"context"
	"time"

	"handoff/internal/api"
	"handoff/master/fleet"
)

// Metrics returns the status and the counters.
func (c Control) Metrics(ctx context.Context) (api.Metrics, error) {
	return ask(ctx, c, func(m *Master) (api.Metrics, error) {
		s := m.status() // it updates the longest queue
		return api.Metrics{Status: s, Counters: m.history.counters.Clone()}, nil
	})
}

// measureEnd counts the end of a worker.
func (m *Master) measureEnd(w *worker, phase fleet.Phase, leaving bool) {
	if !leaving && phase < fleet.Quieting {
		m.history.counters.CountRestart(w.slot, "crashed", "")
	}
	if !w.drainedAt.IsZero() {
		m.history.counters.Drain.Add(time.Since(w.drainedAt))
	}
}
