package integration

import (
	"testing"
	"time"

	"handoff/internal/load"
)

// Programs that close their idle connections at the drain signal, which a client may be
// sending on: clients that keep theirs, and try nothing twice, lose nothing. Without
// --keep-connections each of these loses some.
func TestKeptConnections(t *testing.T) {
	for _, name := range []string{"Go, Shutdown", "gunicorn gthread"} {
		for _, p := range anyPrograms {
			if p.name == name {
				t.Run(name, func(t *testing.T) { keepsConnections(t, p) })
			}
		}
	}
}

func keepsConnections(t *testing.T, p program) {
	w := p.start(t)
	var runs []*load.Run
	for _, pause := range []time.Duration{0, 2 * time.Millisecond, 50 * time.Millisecond, 500 * time.Millisecond} {
		runs = append(runs, w.load(load.Config{Mode: load.KeepAlive, Clients: 2, Pause: pause}))
	}
	for range times(20, 2) {
		runs[0].Await(50, testTimeout)
		w.reload()
		w.retired(2)
	}
	for _, r := range runs {
		w.nothingLost(r)
	}
	w.await("connections.kept")
	w.stop()
}
