package sequence

import (
	"strings"
	"testing"
	"time"

	"handoff/internal/api"
	"handoff/master/fleet"
	"handoff/master/reload"
	"handoff/master/snapshot"
)

// finished is a desk that takes note of the outcome of reloads.
type finished struct {
	desk
	results []reload.Result
}

func (f *finished) CarryOut(a reload.Action) {
	if a, ok := a.(reload.Finished); ok {
		f.results = append(f.results, a.Result)
	}
}

// A reload that has failed in the record, but is still said to run there, is said to have
// failed by the next master; one that is under way, or serves, is not.
func TestOutcomeIsNotLost(t *testing.T) {
	for _, c := range []struct {
		live, wanted fleet.Gen
		failed       bool
	}{{1, 1, true}, {1, 2, false}, {2, 2, false}} {
		r := snapshot.Record{Fleet: fleet.State{Slots: 1, LastGen: 2, Live: c.live, Wanted: c.wanted, Known: []fleet.Gen{c.live, c.wanted}},
			Reloaded: &api.ReloadStatus{Generation: 2, Outcome: reload.Running}}
		f := &finished{desk: desk{out: &strings.Builder{}, now: time.Unix(1000, 0), workers: map[fleet.ID]bool{}}}
		TakeOver(f, fleet.Config{Slots: 1}, false, "", r)()
		if failed := len(f.results) == 1 && f.results[0].Outcome == reload.Failed; failed != c.failed || len(f.results) > 1 {
			t.Errorf("generation %d serves, %d is wanted, 2 is said to run: %+v", c.live, c.wanted, f.results)
		}
	}
}
