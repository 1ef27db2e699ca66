package master

import (
	"slices"
	"time"

	"handoff/internal/events"
	"handoff/master/fleet"
	"handoff/master/listeners"
	"handoff/master/sequence"
)

// effects is the loop, as package sequence sees it.
type effects struct{ m *Master }

func (e effects) Now() time.Time    { return time.Now() }
func (e effects) Save()             { e.m.save() }
func (e effects) Do(a fleet.Action) { e.m.do(a) }
func (e effects) Steered()          { e.m.reportReady() } // also of a previous master, which did not report it
func (e effects) Retry()            { e.m.contract.Retry() }

func (e effects) Aim(ids []fleet.ID) (undo func()) {
	m := e.m
	before, targets := m.listeners.Targets(), make([]listeners.Worker, m.fleet.Slots())
	for _, id := range ids {
		w := m.workers[id]
		if w == nil {
			continue
		}
		for len(targets) <= w.slot {
			targets = append(targets, 0)
		}
		targets[w.slot] = listeners.Worker(id)
		w.unreported = w.unreported || !slices.Contains(before, listeners.Worker(id))
	}
	m.listeners.SetTargets(targets)
	m.history.counters.Steerings++
	return func() { m.listeners.SetTargets(before) }
}

func (e effects) Steer() error {
	e.m.listeners.GiveWay(listeners.Workers(e.m.fleet.GivingWay()), time.Now())
	err := e.m.listeners.Steer()
	e.m.report(events.AddressFailed, err)
	return err
}

// resteer applies the targets after a worker has started or stopped accepting, and
// retries waiting connections.
func (m *Master) resteer() { sequence.Resteer(effects{m}, m.step) }
