package master

import (
	"fmt"
	"time"

	"handoff/internal/api"
	"handoff/internal/events"
	"handoff/internal/sdnotify"
	"handoff/master/fleet"
)

// notScaled reports that more workers could not be started.
func (m *Master) notScaled(a fleet.NotScaled) {
	stderrTail := m.notChanged(a.Gen, fmt.Sprintf("not scaled to %d workers: slot %d: %s", a.Slots, a.Slot, a.Reason),
		api.ChangeStatus{Change: api.ChangeScale, Workers: a.Slots, Slot: a.Slot, Reason: a.Reason})
	m.log.Error(fmt.Sprintf("Not scaled: no worker can be started in slot %d; there are %d workers again", a.Slot, a.Back),
		append([]any{"event", events.ScaleFailed, "wanted", a.Slots, "workers", a.Back, "slot", a.Slot, "reason", a.Reason}, stderrTail...)...)
}

// notRestarted reports that a worker could not be replaced.
func (m *Master) notRestarted(a fleet.NotRestarted) {
	stderrTail := m.notChanged(a.Gen, fmt.Sprintf("slot %d not restarted: %s", a.Slot, a.Reason),
		api.ChangeStatus{Change: api.ChangeRestart, Slot: a.Slot, Reason: a.Reason})
	m.log.Error(fmt.Sprintf("Not restarted: no new worker can be started in slot %d", a.Slot),
		append([]any{"event", events.RestartFailed, "slot", a.Slot, "reason", a.Reason}, stderrTail...)...)
}

// notChanged records a failed change for the status, and returns the last lines of the
// worker for the log.
func (m *Master) notChanged(gen fleet.Gen, what string, c api.ChangeStatus) []any {
	var stderrTail []string
	if p := m.programs.Of(gen); p != nil {
		stderrTail = p.StderrTail
	}
	for _, line := range stderrTail {
		c.Stderr = append(c.Stderr, sdnotify.Printable(line))
	}
	c.Reason, c.At = sdnotify.Printable(c.Reason), time.Now()
	m.history.failedChange, m.history.lastError = &c, sdnotify.Printable(what)
	return stderrAttr(stderrTail)
}
