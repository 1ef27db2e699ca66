package master

import (
	"errors"
	"os"
	"syscall"
	"time"

	"handoff/internal/events"
	"handoff/internal/keeper/fdstore"
	"handoff/internal/linux"
	"handoff/master/fleet"
	"handoff/master/reload"
	"handoff/master/snapshot"
)

// keeperMute reports that the keeper does not read its messages. Any goroutine may call
// it.
func (m *Master) keeperMute(why error) {
	m.log.Error("The keeper does not respond ("+why.Error()+"); state changes are not stored until it does", "event", events.KeeperMute)
}

// tickKeeper probes a mute keeper, and stores everything again if it responds.
func (m *Master) tickKeeper(now time.Time) {
	if !m.keep.Tick(now) {
		return
	}
	m.resyncKeeper()
	if !m.keep.Mute() {
		m.log.Info("Keeper responds again; state resynchronised", "event", events.KeeperAnswers)
	}
}

// resyncKeeper stores the current descriptors with the keeper, and removes all others.
func (m *Master) resyncKeeper() {
	kept, err := m.kept()
	m.report(events.RecordFailed, err)
	m.keep.Resync(kept.Named)
	kept.Close()
	m.history.saver.Forget() // write the record again, with later changes
}

// keeperDied continues without the keeper. Under a service manager that stores
// descriptors this master exits, so that no change is lost, and is restarted with them.
// Else it starts a new keeper, gives it everything that the old one had, and is replaced
// by a master of the new one: so there is only one way to adopt, that after a killed
// master.
func (m *Master) keeperDied() {
	m.log.Error("The keeper died; the workers keep serving", "event", events.KeeperDied, "keeper", m.cfg.PID, "pid", os.Getpid())
	m.history.lastError = "the keeper died"
	m.keep.Close()
	m.keep = nil
	m.order(reload.KeeperDied{})
}

func (m *Master) replaceKeeper() {
	var err error
	switch {
	case m.fleet.Stopping():
		return // and ends as ordered
	case m.cfg.ManagerStores:
		m.log.Warn("The service manager has the state and restarts handoff", "event", events.KeeperAwaited)
		m.drainEvents()
		m.history.end.replaced = true
		return
	case m.cfg.WorkerEvents != nil: // for the parent program the service has ended
		m.log.Error("The keeper died, and with it the connection to the program that started handoff; stopping", "event", events.ClusterShutdown, "workers", len(m.workers))
		m.step(fleet.Stop{})
		return
	case m.cfg.ReplaceKeeper == nil:
		err = errors.New("this process cannot start one")
	default:
		m.drainEvents()
		var kept fdstore.Copies
		if kept, err = m.kept(); err == nil {
			err = m.cfg.ReplaceKeeper(kept.Named, m.cfg.Program) // ends this process if it succeeds
		}
		kept.Close()
	}
	m.log.Error("Cannot start a new keeper: "+err.Error()+"; this master keeps serving and takes signals at its own pid. If it dies, nobody supervises the workers (Node workers end): restart handoff when convenient",
		"event", events.KeeperMissing, "pid", os.Getpid(), "reason", err.Error())
}

// kept returns duplicates of everything that the keeper has. The caller closes them.
func (m *Master) kept() (kept fdstore.Copies, err error) {
	state, err := snapshot.Write(m.record())
	if err != nil {
		return kept, err
	}
	defer state.Close()
	kept.AddFile(fdstore.State, state)
	if m.cfg.Program != nil {
		program, err := snapshot.File(m.cfg.Program)
		if err != nil {
			return kept, err
		}
		defer program.Close()
		kept.AddFile(fdstore.Program, program)
	}
	if m.clients.admin != nil {
		kept.AddFile(fdstore.Admin, m.clients.admin)
	}
	for _, w := range m.workers {
		if !w.dead { // else the next master starts another
			w.kept(kept.AddFile, kept.Add)
		}
	}
	m.listeners.Kept(kept.Add)
	m.takeover.Kept(kept.Add)
	return kept, kept.Err()
}

// kept names the descriptors of a worker that the keeper has, and still owns them.
func (w *worker) kept(file func(name string, f syscall.Conn), each func(name string, fd int)) {
	name := func(what string) string { return fdstore.WorkerName(int(w.id), what) }
	file(name(fdstore.PID), w.process.Pidfd())
	stdout, stderr := w.process.Output()
	if stderr != nil {
		file(name(fdstore.Stderr), stderr)
	}
	if stdout != nil {
		file(name(fdstore.Stdout), stdout)
	}
	if w.notify != nil {
		file(name(fdstore.Notify), w.notify)
	}
	w.session.Kept(func(what string, fd int) { each(name(what), fd) })
}

// watchKeeper waits for the keeper's death, and posts it.
func watchKeeper(pid int, post func(event)) {
	if pid <= 0 {
		return
	}
	p, err := linux.OpenPidfd(pid)
	if err != nil {
		post(keeperDied{})
		return
	}
	defer p.Close()
	if p.AwaitDeath(time.Time{}) == nil {
		post(keeperDied{})
	}
}
