package master

import (
	"cmp"
	"errors"
	"time"

	"handoff/internal/events"
	"handoff/internal/linux"
	conns "handoff/internal/takeover"
	"handoff/master/fleet"
	"handoff/master/listeners"
	"handoff/master/snapshot"
	"handoff/master/takeover"
)

// takesConnections begins to take over a worker's kept connections, before it is told to drain.
// It reports whether that was begun.
func (m *Master) takesConnections(w *worker) bool {
	if m.fleet.Stopping() || len(m.listeners.Targets()) == 0 {
		return false // nobody would answer
	}
	j, ok := m.takeoverOf(w)
	if ok {
		m.takeover.Begin(takeover.Worker(w.id), j, time.Now())
	}
	return ok
}

// takeoverOf is how a worker's connections are taken over; ok is false where they are not.
func (m *Master) takeoverOf(w *worker) (j conns.Job, ok bool) {
	if m.cfg.KeepConnections == "" || m.cfg.KeepConnections == conns.Off || m.cfg.Contract == NodeContract || w.dead {
		return j, false
	}
	j = conns.Job{Linger: m.cfg.Linger, Patience: m.cfg.Fleet.DrainTimeout * 9 / 10, Watch: m.cfg.Fleet.DrainTimeout + m.cfg.Fleet.KillGrace,
		Target: conns.Target{Worker: int(w.id), PID: w.process.PID(), Peers: m.cfg.KeepConnections}}
	for _, a := range m.listeners.AcceptsOn(listeners.Worker(w.id)) {
		if at := a.Address.Local(); at.IsValid() {
			j.Held = append(j.Held, at)
		} else {
			j.Unix = append(j.Unix, a.Inode)
		}
	}
	bound := w.session.State().Bound
	if bound > 0 {
		j.Others = []int{bound}
	}
	j.Uncaught, _ = linux.Ends(cmp.Or(bound, j.PID), m.drainSignal(w))
	return j, len(j.Held)+len(j.Unix) > 0
}

// tookOver handles what the room of kept connections says.
func (m *Master) tookOver(said []takeover.Notice) {
	for _, n := range said {
		switch n := n.(type) {
		case takeover.Ready:
			if w := m.workers[fleet.ID(n.Worker)]; w != nil && !w.dead {
				m.reportTakeover(w, n)
				m.drain(w)
			}
		case takeover.Counted:
			k := &m.history.counters.Kept
			k.Taken, k.Answered, k.Idle, k.Closed, k.Left = k.Taken+n.Taken, k.Answered+n.Answered, k.Idle+n.Idle, k.Closed+n.Closed, k.Left+n.Left
		case takeover.Finished:
			m.log.Info("Took over the kept connections of workers that drained", "event", events.ConnectionsKept,
				"taken", n.Taken, "answered", n.Answered, "idle", n.Idle, "closed", n.Closed, "left", n.Left)
		case takeover.Lost:
			m.history.counters.Kept.Lost += n.Connections
			m.log.Error("The relay process was killed; kept connections that it had alone are lost", "event", events.ConnectionsLost, "connections", n.Connections)
		case takeover.Emptied:
			m.emptied(n)
		case takeover.Swept:
			if n.Filters > 0 {
				m.log.Info("Removed filters that a relay process has left on connections", "event", events.ConnectionsLost, "filters", n.Filters)
			}
		}
	}
}

// reportTakeover says what is not taken over of a worker that is told to drain now.
func (m *Master) reportTakeover(w *worker, n takeover.Ready) {
	if n.Err != nil {
		why := n.Err.Error()
		if errors.Is(n.Err, conns.ErrRefused) {
			why += " (kernel.yama.ptrace_scope, a container's seccomp profile, or a worker of another user: run handoff as root, or with CAP_SYS_PTRACE)"
		}
		m.once("takeover "+why, "Kept connections are left to the program; a client can lose a request on one that it closes in a drain: "+why, w.attrs(events.ConnectionsUnkept, "reason", n.Err.Error())...)
	}
	if n.Armed.Busy > 0 {
		m.log.Warn("The drain signal ends the program, which has not answered everything in time", w.attrs(events.ConnectionsUnkept, "requests", n.Armed.Busy)...)
	}
}

// restoreTakeover continues what the previous master has begun.
func (m *Master) restoreTakeover(r snapshot.Record, s snapshot.Descriptors) {
	m.tookOver(m.takeover.Restore(r.Takeover, s.Take, func(id takeover.Worker) (j conns.Job, ok bool) {
		w := m.workers[fleet.ID(id)]
		if w == nil || m.fleet.Worker(w.id).Phase != fleet.Draining {
			return j, false
		}
		return m.takeoverOf(w)
	}, time.Now()))
	if r.Keeper == 0 { // keeper and master have died, and perhaps a relay process with them
		var all []conns.Target
		for _, w := range m.workers {
			if j, ok := m.takeoverOf(w); ok {
				all = append(all, j.Target)
			}
		}
		m.takeover.Sweep(all)
	}
}

// empties begins to have what waits at a socket whose worker is gone passed to live ones, and
// reports whether it did.
func (m *Master) empties(q listeners.Queue) bool {
	peers := m.cfg.KeepConnections
	if peers == "" || peers == conns.Off || m.cfg.Contract == NodeContract || m.fleet.Stopping() || !m.listeners.Waits(q) {
		return false
	}
	fd, err := q.Duplicate()
	if err == nil {
		m.takeover.Empty(q, fd, peers)
	}
	return err == nil
}

// emptied: what is left waits for the next worker of the slot.
func (m *Master) emptied(n takeover.Emptied) {
	q := n.Of.(listeners.Queue)
	if n.Taken > 0 {
		m.history.counters.Rescued += n.Taken
		m.log.Info("Passed connections of a dead worker's queue to live workers", "event", events.AddressRescued, "address", q.Address().Name(), "connections", n.Taken)
	}
	if n.Left > 0 || n.Err != nil {
		m.contract.Queued(q)
		return
	}
	m.resteer() // so that what comes late is reported
}
