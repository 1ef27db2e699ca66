package master

import (
	"os"
	"strconv"
	"strings"
	"time"

	"handoff/internal/events"
	"handoff/internal/linux"
	"handoff/master/fleet"
	"handoff/master/listeners"
)

// socketStore keeps the listeners' sockets with whoever is the keeper now.
type socketStore struct{ m *Master }

func (s socketStore) Store(name string, fd int) error { return s.m.keep.Store(name, fd) }
func (s socketStore) Remove(name string)              { s.m.keep.Remove(name) }

// unheldGrace is how long, at least, an address is kept for which no worker asks
// any more: one that closes its server may be about to end, and its successor
// asks for it again, or it asks late. Connections wait meanwhile.
const unheldGrace = 5 * time.Second

func (m *Master) grace() time.Duration { return max(unheldGrace, m.cfg.Fleet.ReadyTimeout) }

// workerUser is whose rights count for the addresses that workers ask for; nil: those of
// handoff's own user, which the workers are.
func (l *Live) workerUser() *linux.User {
	u := l.Conditions.User
	if u == nil || u.UID == os.Geteuid() {
		return nil
	}
	return &linux.User{UID: u.UID, GID: u.GID, Groups: u.Groups}
}

// openListens opens what the workers are given, and holds it to the end.
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

// activate takes the worker's share of what it is given, and returns the
// descriptors, which stay the table's, and the environment that speaks of them.
func (m *Master) activate(id fleet.ID, slot int) (fds []int, env []string, err error) {
	leases, names, err := m.listeners.TakePreopened(listeners.Worker(id), slot)
	if err != nil || len(leases) == 0 {
		return nil, nil, err
	}
	for i, l := range leases {
		fds = append(fds, l.FD())
		if names[i] == "" {
			names[i] = "unknown" // as systemd has it for what has no name
		}
	}
	return fds, []string{"LISTEN_FDS=" + strconv.Itoa(len(fds)), "LISTEN_FDNAMES=" + strings.Join(names, ":")}, nil
}

// handleListenerNotices does what follows from what the listeners have found out.
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
	case listeners.Detached:
		m.resteer()
		m.step(fleet.Leave{ID: fleet.ID(n.Worker)})
	case listeners.Queued:
		m.contract.Queued(n.Queue)
	case listeners.Accepted:
		m.contract.Accepted(n)
	case listeners.Unused:
		if m.complete() && m.listeners.CloseUnused(n.Address) {
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
	case listeners.Unsteerable:
		m.once("hash", "The kernel refuses the steering program: it distributes connections by hash, and generations share sockets during a reload", "event", events.AddressHash, "address", n.Address.Name())
	case listeners.OneSocket:
		m.log.Warn(n.Why.Error()+": its one socket, the service manager's, is shared by all workers", "event", events.AddressShared)
	case listeners.Failed:
		m.report(events.AddressFailed, n.Err)
	}
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
