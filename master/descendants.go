package master

import (
	"cmp"
	"time"

	"handoff/internal/events"
	"handoff/internal/sdnotify"
	"handoff/master/descendants"
	"handoff/master/fleet"
	"handoff/master/process"
)

// kill kills a worker and all that descends from it.
func (m *Master) kill(w *worker) {
	m.descendants.Kill(descendants.Worker(w.id), func() { m.report(events.SignalFailed, w.process.Kill()) })
}

// stop stops everything; now kills whatever is left.
func (m *Master) stop(now bool) {
	m.step(fleet.Stop{Now: now})
	if now {
		m.descendants.Hurry(time.Now())
	}
}

// over tells whether the loop has nothing more to do: the workers have ended, and what
// they had started has.
func (m *Master) over() bool {
	return m.history.end.replaced || m.history.end.done != nil && m.descendants.Idle()
}

// reap tells how a worker's process has ended, and has those end that it has left. A
// server that has a process for each connection has the drain timeout for them, also if it
// did not drain.
func (m *Master) reap(w *worker, fw fleet.Worker, end ended) (e process.Exit) {
	id := descendants.Worker(w.id)
	e.Ready, e.Listened = !fw.ReadyAt().IsZero(), w.listened
	left := m.descendants.Left(id, end.orphans, end.holdings, end.hidden && (!e.Ready || len(m.workers) == 0))
	for _, p := range left {
		e.Left = append(e.Left, sdnotify.Printable(p.String()))
	}
	e.InBackground = !e.Ready || m.descendants.Detached(id, left) && time.Since(fw.ReadyAt()) < m.cfg.Fleet.Stable
	e.Args = m.programs.Of(w.gen).Args()
	e.Status, e.Err = w.process.Reap()
	e.Asked = fw.Phase >= fleet.Quieting || fw.Leaving && e.Status.ExitStatus() == 0
	now := time.Now()
	how := descendants.End{Signal: m.drainSignal(w), Grace: m.cfg.Fleet.KillGrace, Serving: fw.DrainBy(), Drained: fw.Phase == fleet.Draining}
	if w.listened {
		how.By = how.Serving
	}
	if how.Serving.IsZero() && !fw.Overdue() {
		how.Serving = cmp.Or(w.drainedAt, now).Add(m.cfg.Fleet.DrainTimeout)
	}
	m.descendants.End(id, how, now)
	return e
}

// reportDescendants says what was done to processes that workers have left.
func (m *Master) reportDescendants() {
	for _, n := range m.descendants.Notices() {
		if !n.Until.IsZero() {
			text := sdnotify.Printable(n.Finish(m.listeners.AllSteerable()))
			m.log.Info(text, "event", events.WorkerDescendants, "worker", int(n.Of), "processes", len(n.Processes), "within", time.Until(n.Until).Round(time.Second))
			continue
		}
		if n.Signal == 0 {
			m.log.Error(sdnotify.Printable(n.String()), "event", events.WorkerDescendants, "worker", int(n.Of), "processes", 1, "reason", n.Reason)
			continue
		}
		m.log.Warn(sdnotify.Printable(n.String()), "event", events.WorkerDescendants, "worker", int(n.Of), "processes", len(n.Processes), "reason", n.Reason)
	}
}

// lookAtDescendants looks whether what still has a dead worker's listening socket accepts
// from it.
func (m *Master) lookAtDescendants(now time.Time) {
	if look := m.descendants.Due(now); look != nil {
		go func() { // ends after a second, or a bit later
			holdings := look()
			m.mail.post(asked{func(m *Master) { m.descendants.Looked(holdings, time.Now()) }})
		}()
	}
}
