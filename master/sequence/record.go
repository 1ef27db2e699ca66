package sequence

import (
	"time"

	"handoff/internal/api"
	"handoff/internal/sdnotify"
	"handoff/master/reload"
	"handoff/master/snapshot"
)

// Note puts the state of reloads into a record. It has only one of Ask and Reload: an
// older binary would follow both.
func Note(r *snapshot.Record, s reload.State) {
	r.Reload = s.Pending.Reload && !s.Pending.Ask
	r.Asking = s.Phase == reload.Asking || s.Pending.Ask
	r.Upgrade = s.Pending.Upgrade
	r.Reloaded = Status(s.Last)
}

// Reloads is the state of reloads in a record.
func Reloads(r snapshot.Record) reload.State {
	s := reload.State{Generation: int(r.Fleet.LastGen)}
	switch {
	case r.Asking:
		s.Phase, s.Pending.Upgrade = reload.Asking, r.Upgrade
	case r.Reload:
		s.Phase, s.Pending.Reload = reload.Upgrading, true
	}
	if last := r.Reloaded; last != nil {
		s.Last = reload.Result{Generation: last.Generation, Outcome: last.Outcome, Reason: last.Reason, Stderr: last.Stderr, Began: last.Began,
			Took: time.Duration(last.Seconds * float64(time.Second))}
	}
	return s
}

// Status is the outcome of a reload, for the status; nil if there was none.
func Status(last reload.Result) *api.ReloadStatus {
	if last.Generation == 0 {
		return nil
	}
	s := &api.ReloadStatus{Generation: last.Generation, Outcome: last.Outcome, Reason: sdnotify.Printable(last.Reason), Began: last.Began, Seconds: last.Took.Round(time.Millisecond).Seconds()}
	for _, line := range last.Stderr {
		s.Stderr = append(s.Stderr, sdnotify.Printable(line))
	}
	return s
}
