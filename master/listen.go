package master

import (
	"os"
	"time"

	"handoff/internal/events"
	"handoff/internal/linux"
	"handoff/master/fleet"
	"handoff/master/listeners"
)

// socketStore stores the listeners' sockets with the current keeper.
type socketStore struct{ m *Master }

func (s socketStore) Store(name string, fd int) error { return s.m.keep.Store(name, fd) }
func (s socketStore) Remove(name string)              { s.m.keep.Remove(name) }

// unheldGrace is the minimum time that an address without a lease is kept: a worker that
// closes its server may be exiting, and its successor requests the address again.
// Connections wait in the meantime.
const unheldGrace = 5 * time.Second

func (m *Master) grace() time.Duration { return max(unheldGrace, m.cfg.Fleet.ReadyTimeout) }

// workerUser is the user whose permissions apply to the addresses that workers request;
// nil: handoff's own user, which is also the workers'.
func (l *Live) workerUser() *linux.User {
	u := l.Conditions.User
	if u == nil || u.UID == os.Geteuid() {
		return nil
	}
	return &linux.User{UID: u.UID, GID: u.GID, Groups: u.Groups}
}

// openListens opens the preopened addresses, and holds them until the end.
func (m *Master) openListens() error {
	for _, l := range m.cfg.Listen {
		a, err := m.listeners.Preopen(l)
		if err != nil {
			return err
		}
		m.log.Debug("Listening for the workers", "event", events.AddressOpened, "address", a.Name(), "name", l.Name)
	}
	return nil
}

// handleListenerNotices handles the notices of the listeners.
func (m *Master) handleListenerNotices() {
	for {
		notices := m.listeners.Notices()
		if len(notices) == 0 {
			return
		}
		for _, n := range notices {
			m.noticed(n)
		}
	}
}

func (m *Master) noticed(n listeners.Notice) {
	switch n := n.(type) {
	case listeners.Violation:
		m.history.saver.Changed()
		attrs := []any{"event", events.AddressMended, "address", n.Address.Name()}
		if w := m.workers[fleet.ID(n.Worker)]; w != nil {
			attrs = append(w.attrs(events.AddressMended), "address", n.Address.Name())
		}
		m.log.Warn("A worker "+n.What+"; repaired", attrs...)
	case listeners.Stranger:
		m.history.saver.Changed()
		if n.Left {
			m.log.Info(n.String(), "event", events.AddressStranger, "address", n.Address.Name())
		} else {
			m.log.Warn(n.String(), "event", events.AddressStranger, "address", n.Address.Name())
		}
	case listeners.Detached:
		m.resteer()
		m.step(fleet.Leave{ID: fleet.ID(n.Worker)})
	case listeners.Queued:
		if !m.empties(n.Queue) {
			m.contract.Queued(n.Queue)
		}
	case listeners.Accepted:
		m.contract.Accepted(n)
	case listeners.Unused:
		if m.fleet.Complete() && m.listeners.CloseUnused(n.Address) {
			m.history.saver.Changed()
			m.log.Info("Closed unused address", "event", events.AddressClosed, "address", n.Address.Name())
		}
	case listeners.Quiet:
		m.step(fleet.Quiet{ID: fleet.ID(n.Worker)})
	case listeners.Stalled:
		if w := m.workers[fleet.ID(n.Worker)]; w != nil {
			m.history.counters.Stalls++
			m.log.Warn("Worker stalled; new connections go to the others", w.attrs(events.WorkerStalled)...)
		}
	case listeners.Recovered:
		if w := m.workers[fleet.ID(n.Worker)]; w != nil {
			m.log.Info("Worker accepts connections again", w.attrs(events.WorkerRecovered, "after", n.After.Round(time.Millisecond))...)
		}
	case listeners.StallTimeout:
		if id := fleet.ID(n.Worker); m.fleet.Stays(id) {
			m.step(fleet.Hung{ID: id, Reason: "stalled for " + n.After.String(), Stalled: true})
		}
	case listeners.Waited:
		m.history.saver.Changed()
		m.log.Info(n.String(), "event", events.AddressWaited, "address", n.Address.Name(), "connections", n.N, "waited", n.For.Round(time.Millisecond))
	case listeners.Unsteerable:
		m.once("hash", "The kernel refuses the steering program: it distributes connections by hash, and generations share sockets during a reload", "event", events.AddressHash, "address", n.Address.Name())
	case listeners.OneSocket:
		m.log.Warn(n.Why.Error()+": its one socket, the service manager's, is shared by all workers", "event", events.AddressShared)
	case listeners.Failed:
		m.report(events.AddressFailed, n.Err)
	}
}

// earliest is the first of several times; zero is none.
func earliest(times ...time.Time) (first time.Time) {
	for _, t := range times {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first
}
