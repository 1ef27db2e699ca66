package master

import (
	"testing"

	"handoff/internal/sdnotify"
	"handoff/master/contract"
	"handoff/master/fleet"
)

// A worker that asks again and again to be replaced is one that asks once.
func TestAsksAgainAndAgain(t *testing.T) {
	w := activated(t, base("activation", ActivationContract))
	id := fleet.ID(w.status().Workers[0].Worker)
	if err := w.control.do(t.Context(), func(m *Master) error {
		for range 100 {
			m.learned(m.workers[id], contract.Leaving{})
			m.notified(m.workers[id], sdnotify.Notice{Stopping: true})
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	w.await("worker.shutdown")
	if n := w.count("worker.leaving"); n != 1 {
		t.Errorf("logged %d times", n)
	}
	m, err := w.control.Metrics(t.Context())
	if err != nil || m.Counters.Restarts["asked"] != 1 {
		t.Errorf("counters %+v, %v", m.Counters, err)
	}
}
