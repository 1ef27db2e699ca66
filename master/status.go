package master

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"handoff/internal/api"
	"handoff/master/fleet"
	"handoff/master/health"
	"handoff/master/listeners"
	"handoff/master/outlook"
	"handoff/master/sequence"
)

// status is the status without the resource usage of workers.
func (m *Master) status() api.Status {
	s := api.Status{Schema: 1, Name: m.cfg.Name, Version: m.cfg.Version, PID: m.cfg.PID, Started: m.history.began,
		Generation: int(m.fleet.Live()), Wanted: int(m.fleet.Wanted()), Slots: m.fleet.Slots(), LastError: m.history.lastError, Reload: sequence.Status(m.reloads.Last), Failed: m.history.failedChange,
		Output: slices.Clone(m.history.output), LostLines: m.history.counters.LinesLost, Upgrades: m.history.counters.Upgrades,
		Addresses: []api.AddressStatus{}, Workers: []api.WorkerStatus{}}
	outlook.Put(&s, m.fleet, m.history.counters.Slots, time.Now())
	m.verify(time.Now(), verifyAsked)
	at, unserved := m.listeners.Report(), m.unserved()
	m.history.counters.MaxQueue = max(m.history.counters.MaxQueue, at.MaxQueue)
	for _, a := range at.Addresses {
		s.Addresses = append(s.Addresses, api.AddressStatus{Address: a.Name, Balance: a.Balance, Queue: a.Queue, Waited: a.Waited.Round(time.Millisecond).Seconds(), Unserved: slices.Contains(unserved, a.Name)})
	}
	served := map[int]bool{}
	for _, fw := range m.fleet.Workers() {
		w := m.workers[fw.ID]
		if w == nil {
			continue
		}
		ws := api.WorkerStatus{Slot: fw.Slot, PID: w.process.PID(), Worker: int(fw.ID), Generation: int(fw.Gen), Phase: fw.Phase.String(),
			Started: w.began, Queue: at.Queues[listeners.Worker(fw.ID)], Restarts: m.history.restarts[fw.Slot], Status: w.state.Status, Reloading: w.state.Reloading,
			Port: w.port, Requests: w.requests, RestartReasons: maps.Clone(m.history.counters.Slots[fw.Slot]), Stalled: m.listeners.Stalls(listeners.Worker(fw.ID)),
			Steered: m.listeners.IsTarget(listeners.Worker(fw.ID)), Unhealthy: m.health.Failing(health.ID(fw.ID))}
		if at := fw.ReadyAt(); !at.IsZero() {
			ws.Ready = &at
		}
		served[fw.Slot] = served[fw.Slot] || ws.Steered && fw.Phase == fleet.Serving
		s.Workers = append(s.Workers, ws)
	}
	if kept := m.history.counters.Kept; kept != (api.KeptConnections{}) {
		s.Kept = &kept
	}
	for _, f := range m.descendants.Finishing() {
		s.Finishing = append(s.Finishing, api.FinishingStatus{Worker: int(f.Of), Processes: f.Processes, Until: f.Until})
	}
	slices.SortFunc(s.Workers, func(a, b api.WorkerStatus) int { return cmp.Or(a.Slot-b.Slot, a.Worker-b.Worker) })
	for slot := range s.Slots {
		if served[slot] {
			s.Ready++
		}
	}
	switch {
	case m.fleet.Stopping():
		s.State = api.StateStopping
	case s.Generation == 0:
		s.State = api.StateStarting
	case s.Wanted != s.Generation:
		s.State = api.StateReloading
	case s.Ready < s.Slots || len(unserved) > 0:
		s.State = api.StateDegraded
	default:
		s.State = api.StateServing
	}
	return s
}
