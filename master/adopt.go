package master

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/cmsg"
	"handoff/internal/events"
	"handoff/internal/keeper/fdstore"
	"handoff/internal/linux"
	"handoff/internal/sdnotify"
	"handoff/master/contract"
	"handoff/master/descendants"
	"handoff/master/fleet"
	"handoff/master/listeners"
	"handoff/master/process"
	"handoff/master/readiness"
	"handoff/master/reload"
	"handoff/master/sequence"
	"handoff/master/snapshot"
)

// A master that follows a dead one gets the latter's descriptors, by name, and its record
// from the keeper's store. It adopts the live workers and continues what was in progress.
// It closes what it cannot use.

// inherit examines what the keeper has stored. It reports whether there is something to
// adopt, and what must be done first.
func (m *Master) inherit(s snapshot.Descriptors) (first func(), adopted bool) {
	if fd := s.Take(fdstore.Program); fd >= 0 {
		unix.Close(fd) // was read at the start; it is stored again
	}
	fd := s.Take(fdstore.State)
	if r, found, ok := m.recoverIf(fd < 0 && len(s) == 0); ok {
		return m.takeOver(r, found), true
	}
	if fd < 0 {
		m.killStored(s)
		m.discard(s)
		m.keep.Flush() // else the addresses are still in use
		m.killUnrecorded(func(fleet.ID) bool { return true })
		return func() {}, false
	}
	r, err := snapshot.Read(fd)
	if err != nil {
		m.log.Error(err.Error()+"; starting from scratch", "event", events.ClusterFailed)
		m.killStored(s)
		m.discard(s)
		m.keep.Flush() // else the addresses are still in use
		m.killUnrecorded(func(fleet.ID) bool { return true })
		return func() {}, false
	}
	return m.takeOver(r, s), true
}

// recoverIf looks for workers that have survived keeper and master.
func (m *Master) recoverIf(start bool) (r snapshot.Record, s snapshot.Descriptors, found bool) {
	if !start || !m.contract.Plan().Survives || m.cfg.Name == "" {
		return r, nil, false
	}
	return snapshot.Search{Service: m.service(), Slots: m.cfg.Fleet.Slots, Balance: m.cfg.Balance.String(), Holds: m.cfg.Holds, Environ: process.Environ,
		Listen: m.cfg.Listen, File: m.history.file, Warn: func(pid int, err error) {
			m.log.Warn("Cannot adopt a worker of a previous handoff: "+err.Error(), "event", events.WorkerLost, "pid", pid)
		}}.Find()
}

// service identifies this service: programs of the same name may run in several folders.
func (m *Master) service() string {
	return cmp.Or(m.cfg.Identity, m.cfg.Name) + "@" + m.cfg.Command.Dir
}

// takeOver takes over from the previous master, and returns what must be done first.
func (m *Master) takeOver(r snapshot.Record, s snapshot.Descriptors) (first func()) {
	m.history.clock = snapshot.NewClock(r)
	m.history.clock.Read(&r)
	h := &heir{effects: effects{m}, r: r, s: s}
	first = sequence.TakeOver(h, m.cfg.Fleet, m.cfg.BeforeReload != nil, m.cfg.UpgradeFailed, r)
	m.reportAdopted(r, h.Now())
	for _, w := range m.workers {
		m.attend(w)
	}
	m.checkAdopted()
	return first
}

// heir is a master that takes over, as package sequence sees it.
type heir struct {
	effects
	r     snapshot.Record
	s     snapshot.Descriptors
	whole bool // everything in the record was there
}

func (h *heir) Step(e fleet.Event)       { h.m.step(e) }
func (h *heir) CarryOut(a reload.Action) { h.m.carryOut(a) }
func (h *heir) Has(id fleet.ID) bool     { return h.m.workers[id] != nil }
func (h *heir) Dead(id fleet.ID) bool    { return h.m.workers[id].process.Pidfd().Dead() }

func (h *heir) Lost(id fleet.ID) {
	if w := h.m.workers[id]; w != nil {
		h.m.noteListened(w)
	}
	h.m.listeners.ReleaseAll(listeners.Worker(id), time.Now())
}

func (h *heir) Begin(f *fleet.Fleet, r *reload.Machine) { h.m.fleet, h.m.reloads = f, r }

func (h *heir) Adopt() {
	h.m.restoreRooms(h.r)
	h.whole = h.m.restoreListeners(h.r, h.s)
	h.whole = h.m.adoptWorkers(h.r, h.s) && h.whole
	h.m.descendants.Restore(h.r.Descendants, h.r.Keeper, h.r.Instance, time.Now())
	h.m.restoreTakeover(h.r, h.s)
}

func (h *heir) Discard(unrecorded func(fleet.ID) bool) {
	m := h.m
	m.killStored(h.s)
	m.discard(h.s)
	if recovered := h.r.Keeper == 0 && m.cfg.PID != 0; recovered || !h.whole { // the keeper does not have these descriptors
		m.resyncKeeper()
	}
	m.killUnrecorded(unrecorded)
}

// restoreRooms restores the state of the rooms that do not decide.
func (m *Master) restoreRooms(r snapshot.Record) {
	h := &m.history
	h.counters, h.reported, h.began, h.keeper, h.lastError = r.Counters, r.Reported, r.Began, r.Keeper, r.LastError
	if r.Restarts != nil {
		h.restarts = r.Restarts
	}
	if r.Instance != "" {
		m.cfg.Instance = r.Instance
		m.history.file = m.workersFile()
	}
	m.contract, m.readiness = m.newContract(r.Seq), readiness.New(r.Served)
	h.verifyAt = time.Now().Add(verifyBySelf)
	m.programs.Restore(r.Generations)
	for _, gen := range r.Fleet.Known {
		if m.programs.Of(gen) == nil { // it was ordered, and not started
			m.prepare(gen)
		}
	}
}

// restoreListeners takes over the sockets, and reports whether all were there.
func (m *Master) restoreListeners(r snapshot.Record, s snapshot.Descriptors) (whole bool) {
	whole = true
	for _, lost := range m.listeners.Restore(r.State, s.Take) {
		m.log.Error(lost.Error(), "event", events.AddressLost, "address", lost.Name)
		whole = false
	}
	for _, lost := range m.listeners.RestorePreopened(r.Preopened, m.cfg.Listen) {
		m.log.Error(lost.Error(), "event", events.AddressLost, "address", lost.Name)
	}
	return whole
}

// adoptWorkers takes over the workers, and reports whether it could adopt all.
func (m *Master) adoptWorkers(r snapshot.Record, s snapshot.Descriptors) (whole bool) {
	whole = true
	for _, wr := range r.Workers {
		w, err := m.adoptWorker(wr, s)
		if err != nil {
			m.log.Error("Cannot adopt a worker: "+err.Error(), "event", events.WorkerLost, "slot", wr.Slot, "pid", wr.PID, "generation", int(wr.Gen), "worker", int(wr.ID))
			whole = false
			continue
		}
		m.workers[wr.ID] = w
	}
	return whole
}

// reportAdopted reports what was taken over, and what the previous master did not report.
func (m *Master) reportAdopted(r snapshot.Record, now time.Time) {
	switch {
	case r.Keeper == 0 && r.Instance == "":
		m.log.Warn("Adopted workers of a previous handoff; reloading", "event", events.MasterRecovered,
			"workers", len(m.workers), "addresses", m.names())
	case m.cfg.Upgraded:
		m.history.counters.Upgrades++
		m.log.Info("Upgraded; this master continues with the workers", "event", events.MasterUpgraded, "version", m.cfg.Version,
			"workers", len(m.workers), "addresses", m.names())
	case m.cfg.UpgradeFailed != "":
		m.log.Warn("Continuing with the previous binary and the workers", "event", events.MasterAdopted, "reason", m.cfg.UpgradeFailed,
			"restarts", m.cfg.Restarts, "workers", len(m.workers), "addresses", m.names())
	default:
		m.history.counters.Masters++
		m.log.Warn("The previous master died; this one continues with its workers", "event", events.MasterAdopted, "reason", m.cfg.Reason,
			"restarts", m.cfg.Restarts, "workers", len(m.workers), "addresses", m.names())
	}
	live := m.fleet.Live()
	if live > m.history.reported { // it steered, and did not report it
		m.do(fleet.Live{Gen: live, Took: now.Sub(r.Fleet.Began)})
	}
	if live > 0 && !m.fleet.Stopping() { // a service manager that has restarted the keeper waits for it
		m.reportServing()
		if wanted := r.Fleet.Wanted; wanted != live {
			m.reportReloading(int(wanted))
		}
	}
}

// discard closes what is left in the store, also in the keeper.
func (m *Master) discard(s snapshot.Descriptors) {
	for name, fd := range s {
		unix.Close(fd)
		m.keep.Remove(name)
	}
}

// adoptWorker takes over a worker.
func (m *Master) adoptWorker(r snapshot.Worker, s snapshot.Descriptors) (w *worker, err error) {
	pidfd, err := s.Pidfd(r.PID, fdstore.WorkerName(int(r.ID), fdstore.PID))
	if pidfd == nil {
		return nil, cmp.Or(err, errors.New("its pidfd was not stored"))
	}
	w = &worker{process: process.Adopt(pidfd, s.File(fdstore.WorkerName(int(r.ID), fdstore.Stdout)), s.File(fdstore.WorkerName(int(r.ID), fdstore.Stderr))), id: r.ID, slot: r.Slot, gen: r.Gen,
		began: r.Began, state: sdnotify.State{Status: r.Status, Reloading: r.Reloading}, port: r.Port, requests: r.Requests, unreported: r.Unreported}
	if fd := s.Take(fdstore.WorkerName(int(r.ID), fdstore.Notify)); fd >= 0 {
		w.notify, _ = cmsg.Open(fd)
	}
	w.identify()
	state := contract.State{InFlight: r.InFlight, Bound: r.Bound, Several: r.Several, Ports: r.Ports, Promises: r.Promises}
	w.session, err = m.contract.Restore(m.counterpart(w), state, func(what string) int { return s.Take(fdstore.WorkerName(int(r.ID), what)) })
	return w, err
}

// killStored kills processes of a previous master that are not in its record: it died
// between their start and the record. A pidfd that is left in the store belongs to one,
// whatever its environment says.
func (m *Master) killStored(s snapshot.Descriptors) {
	for _, name := range slices.Sorted(maps.Keys(s)) {
		if !fdstore.IsWorker(name, fdstore.PID) {
			continue
		}
		fd := s.Take(name)
		if p, err := linux.NewPidfd(linux.PIDOf(fd), fd); err == nil {
			if !p.Dead() {
				m.killedUnrecorded(p)
			}
			p.Close()
		}
		m.keep.Remove(name)
	}
}

func (m *Master) killedUnrecorded(p *linux.Pidfd) {
	m.log.Warn("Killed a process that the previous master had not recorded", "event", events.WorkerKilled, "pid", p.PID())
	m.report(events.SignalFailed, process.Adopt(p, nil, nil).Kill())
}

// killUnrecorded kills those whose pidfd was not yet stored, and what descends from them.
func (m *Master) killUnrecorded(unrecorded func(fleet.ID) bool) {
	killed := m.descendants.KillUnrecorded(func(of descendants.Worker) bool { return unrecorded(fleet.ID(of)) }, outputGrace)
	for _, p := range killed {
		m.log.Warn("Killed a process that the previous master had not recorded", "event", events.WorkerKilled, "pid", p.PID)
	}
}
