package master

import (
	"context"
	"time"

	"handoff/internal/api"
	"handoff/master/fleet"
)

// Metrics asks what there is, and how often it has happened.
func (c Control) Metrics(ctx context.Context) (s api.Metrics, err error) {
	err = c.do(ctx, func(m *Master) error {
		s = api.Metrics{Status: m.status(), Counters: m.history.counters.Clone()}
		return nil
	})
	return s, err
}

// measureEnd counts the end of a worker.
func (m *Master) measureEnd(w *worker, phase fleet.Phase, leaving bool) {
	if !leaving && phase < fleet.Quieting {
		m.history.counters.CountRestart("crashed")
	}
	if !w.drainedAt.IsZero() {
		m.history.counters.Drain.Add(time.Since(w.drainedAt))
	}
}
