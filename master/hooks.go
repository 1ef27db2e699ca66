package master

import (
	"fmt"
	"time"

	"handoff/internal/api"
	"handoff/internal/sdnotify"
	"handoff/master/fleet"
)

// Veto asks somebody outside whether something may happen; the error is a no. It is
// called from a goroutine of its own, and must end in time.
type Veto func(about map[string]any) error

// reload puts the code of now into service, if nobody refuses; a changed binary of
// handoff's first, where upgrade says so. The error is that nothing is reloaded.
func (m *Master) reload(upgrade bool) error {
	if m.cfg.BeforeReload == nil || m.fleet.Stopping() {
		if err := m.reread(); err != nil {
			return err
		}
		m.reloadNow(upgrade)
		return nil
	}
	if m.asking { // what it is asked for comes after the answer, and so does this
		m.askedUpgrade = m.askedUpgrade || upgrade
		return nil
	}
	m.asking, m.askedUpgrade = true, upgrade
	next := int(m.fleet.Last()) + 1
	m.reloaded = api.ReloadStatus{Generation: next, Outcome: api.OutcomeRunning, Began: time.Now()}
	ask, about := m.cfg.BeforeReload, map[string]any{"name": m.cfg.Name, "generation": next, "serving": int(m.fleet.Live()), "workers": m.fleet.Slots()}
	go func() { m.post(reloadJudged{ask(about)}) }() // ends with the hook, which has a timeout
	return nil
}

func (m *Master) reloadJudged(err error) {
	m.asking = false
	if m.fleet.Stopping() {
		return
	}
	if err != nil {
		m.lastError = sdnotify.Printable(err.Error())
		m.log.Error("Reload refused, nothing changes: "+err.Error(), "event", "reload.refused", "reason", err.Error())
		m.notReloaded(err.Error())
		return
	}
	if m.reread() == nil { // only now: what is refused changes nothing
		m.reloadNow(m.askedUpgrade)
	}
}

func (m *Master) reloadNow(upgrade bool) {
	if upgrade && (m.upgrading || m.cfg.Changed != nil && !m.fleet.Stopping() && m.cfg.Changed()) {
		m.reloadNext = true
		m.reloaded = api.ReloadStatus{Generation: int(m.fleet.Last()) + 1, Outcome: api.OutcomeRunning, Began: time.Now()}
		m.upgrade()
		return
	}
	m.step(fleet.Reload{})
}

// ready: a worker can serve, if nobody refuses. Where its word is not waited for, it
// only seems so: gunicorn says READY=1, and has loaded nothing yet.
func (m *Master) ready(w *worker) {
	if m.cfg.BeforeReady == nil {
		m.step(fleet.Ready{ID: w.id, Seems: m.cfg.ReadyWhen != Ready})
		return
	}
	if w.judging || w.dead {
		return
	}
	for _, fw := range m.fleet.Workers() {
		if fw.ID == w.id && fw.Phase == fleet.Starting {
			w.judging = true
			ask, id := m.cfg.BeforeReady, w.id
			about := map[string]any{"name": m.cfg.Name, "slot": w.slot, "pid": w.pid, "generation": int(w.gen), "worker": int(id)}
			if w.port > 0 {
				about["port"] = w.port
			}
			go func() { m.post(readyJudged{id, ask(about)}) }() // ends with the hook, which has a timeout
		}
	}
}

func (m *Master) readyJudged(w *worker, err error) {
	if w.judging = false; w.dead {
		return
	}
	if err == nil {
		m.step(fleet.Ready{ID: w.id, Seems: m.cfg.ReadyWhen != Ready})
		return
	}
	m.log.Error("Worker is not put into service: "+err.Error(), w.attrs("worker.refused", "reason", err.Error())...)
	m.step(fleet.Unfit{ID: w.id, Reason: fmt.Sprintf("slot %d: %v", w.slot, err)})
}
