// Package outlook converts the fleet's next actions for the control API.
package outlook

import (
	"maps"
	"time"

	"handoff/internal/api"
	"handoff/internal/sdnotify"
	"handoff/master/fleet"
)

// Put puts into a status the slots in which nobody serves or starts, and what will happen.
func Put(s *api.Status, f *fleet.Fleet, restarts map[int]map[string]int, now time.Time) {
	for _, p := range f.Vacant(now) {
		v := api.SlotStatus{Slot: p.Slot, State: api.SlotNotStarted, Generation: int(p.Gen), Failures: p.Failures, At: at(p.At),
			RestartReasons: maps.Clone(restarts[p.Slot])}
		if v.At != nil {
			v.State = api.SlotBackoff
		}
		s.Vacant = append(s.Vacant, v)
	}
	for _, p := range f.Next(now) {
		s.Next = append(s.Next, api.NextStatus{Action: p.What.String(), Slot: p.Slot, Generation: int(p.Gen), At: at(p.At), Failures: p.Failures,
			Reason: sdnotify.Printable(p.Reason)})
	}
}

// at is nil for no time.
func at(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
