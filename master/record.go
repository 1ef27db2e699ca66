package master

import (
	"slices"

	"handoff/internal/events"
	"handoff/internal/keeper/fdstore"
	"handoff/internal/sdnotify"
	"handoff/master/sequence"
	"handoff/master/snapshot"
)

// record returns the record for the next master.
func (m *Master) record() snapshot.Record {
	r := snapshot.Record{Version: snapshot.Version, Fleet: m.fleet.State(), State: m.listeners.State(), Seq: m.contract.Seq(),
		Began: m.history.began, Restarts: m.history.restarts, LastError: m.history.lastError,
		Instance: m.cfg.Instance, Keeper: m.cfg.PID, Reported: m.history.reported, Counters: m.history.counters, Descendants: m.descendants.State(), Served: m.readiness.State(), Takeover: m.takeover.State()}
	sequence.Note(&r, m.reloads.State)
	r.Generations = m.programs.State(r.Fleet.Known)
	for _, fw := range r.Fleet.Workers {
		w := m.workers[fw.ID]
		if w == nil {
			continue
		}
		state := w.session.State()
		wr := snapshot.Worker{ID: w.id, Slot: w.slot, Gen: w.gen, PID: w.process.PID(), Bound: state.Bound, Several: state.Several, Ports: state.Ports, Promises: state.Promises, Began: w.began,
			Status: w.state.Status, Reloading: w.state.Reloading, Port: w.port, Requests: w.requests, InFlight: state.InFlight, Unreported: w.unreported}
		r.Workers = append(r.Workers, wr)
	}
	m.history.clock.Write(&r)
	return r
}

// save stores the record with the keeper.
func (m *Master) save() {
	if err := m.history.file.Save(m.identities()); err != nil {
		m.once("workers file", err.Error()+"; if keeper and master are both killed, a program that has overwritten its environment is not found", "event", events.RecordFailed)
	}
	if m.keep != nil {
		m.report(events.RecordFailed, m.history.saver.Save(m.record(), m.keep))
	}
}

// workersFile returns their file, nil if workers do not outlive their master.
func (m *Master) workersFile() *snapshot.WorkersFile {
	if !m.contract.Plan().Survives || m.cfg.Name == "" || m.cfg.DryRun {
		return nil
	}
	return snapshot.NewWorkersFile(m.cfg.RuntimeDir, m.service(), m.cfg.Instance)
}

// identities returns who the workers are.
func (m *Master) identities() (all []snapshot.Identity) {
	for _, w := range m.workers {
		if w.identity.Start != 0 {
			all = append(all, w.identity)
		}
	}
	slices.SortFunc(all, func(a, b snapshot.Identity) int { return int(a.ID - b.ID) })
	return all
}

// identify notes who a worker is.
func (w *worker) identify() {
	pid, start := snapshot.IdentityOf(w.process.Pidfd())
	w.identity = snapshot.Identity{ID: w.id, Slot: w.slot, Gen: w.gen, PID: pid, Start: start, Notify: sdnotify.Address(w.notify)}
}

// CheckRecord reports whether this binary can take over from a master with that state.
func CheckRecord(b []byte) error {
	_, err := snapshot.Parse(b)
	return err
}

// keepProgram stores the configuration for the next master with the keeper.
func (m *Master) keepProgram() {
	if m.cfg.Program == nil {
		return
	}
	f, err := snapshot.File(m.cfg.Program)
	if err != nil {
		m.report(events.RecordFailed, err)
		return
	}
	defer f.Close()
	m.keep.StoreFile(fdstore.Program, f)
}
