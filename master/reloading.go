package master

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"handoff/internal/events"
	"handoff/internal/sdnotify"
	"handoff/master/fleet"
	"handoff/master/health"
	"handoff/master/reload"
)

// The loop's side of the room master/reload: carries out its actions.

// Veto asks a hook whether something may happen; an error is a no. It is called in a
// goroutine of its own, and must have a timeout.
type Veto func(about map[string]any) error

// order passes an event to the reload room. Like step, it only queues the consequences of
// an action.
func (m *Master) order(e reload.Event) {
	m.history.saver.Changed()
	m.steps.Do(func() {
		for _, a := range m.reloads.Step(time.Now(), e) {
			m.carryOut(a)
		}
	})
}

func (m *Master) carryOut(a reload.Action) {
	switch a := a.(type) {
	case reload.Ask:
		about := map[string]any{"name": m.cfg.Name, "generation": a.Generation, "serving": int(m.fleet.Live()), "workers": m.fleet.Slots()}
		ask := m.cfg.BeforeReload
		go func() { m.mail.post(reloadJudged{ask(about)}) }() // ends with the hook, which has a timeout
	case reload.ReadAgain:
		wrong := errorText(m.reread())
		changed := wrong == "" && a.Upgrade && m.cfg.Changed != nil && m.cfg.Changed()
		m.order(reload.Reread{Upgrade: a.Upgrade, Changed: changed, Wrong: wrong})
	case reload.Reload:
		m.step(fleet.Reload{})
	case reload.Upgrade:
		m.startUpgrade()
	case reload.UpgradeFailed:
		m.history.lastError = sdnotify.Printable("upgrade: " + a.Reason)
		m.log.Error("Upgrade failed; this master continues: "+a.Reason, "event", events.UpgradeFailed, "reason", a.Reason)
		for _, to := range m.clients.upgrades {
			to <- errors.New(a.Reason)
		}
		m.clients.upgrades = nil
	case reload.NotReloaded:
		m.notReloaded(a)
	case reload.Finished:
		m.history.counters.CountReload(a.Result.Outcome)
		if a.Result.Outcome == reload.Served {
			m.history.counters.Reload.Add(a.Result.Took)
		}
	case reload.ReplaceKeeper:
		m.steps.AtRest = m.replaceKeeper
	case reload.Leave:
		m.steps.AtRest = func() {
			m.drainEvents()
			if m.reloads.Phase != reload.Leaving { // the keeper has died in the meantime
				return
			}
			m.save()
			m.history.end.replaced = true
		}
	default:
		panic(fmt.Sprintf("master: unknown action %T", a))
	}
}

// notReloaded reports a reload that was not started, also to a service manager that waits
// for it.
func (m *Master) notReloaded(a reload.NotReloaded) {
	m.history.lastError = sdnotify.Printable(a.Result.Reason)
	switch a.By {
	case reload.ByHook:
		m.log.Error("Reload refused; nothing changes: "+a.Reason, "event", events.ReloadRefused, "reason", a.Reason)
	case reload.ByConfiguration:
		m.log.Error("Invalid configuration; nothing changes: "+a.Reason, "event", events.ConfigFailed, "reason", a.Reason)
	case reload.ByUpgrade:
		m.log.Error("Workers not reloaded: the upgrade failed", "event", events.ClusterFailed, "reason", "the upgrade failed")
	}
	m.reportReloading(a.Result.Generation)
	m.manager.Ready(sdnotify.Printable(fmt.Sprintf("Generation %d %s; not reloaded: %s", m.fleet.Live(), m.status().Serving(), a.Result.Reason)))
}

// reread applies changes of the configuration. A wrong one changes nothing.
func (m *Master) reread() error {
	if m.cfg.Reread == nil {
		return nil
	}
	live, later, err := m.cfg.Reread()
	if err != nil {
		return err
	}
	slots, balance := m.cfg.Fleet.Slots, m.cfg.Balance
	m.cfg.Live = live
	m.listeners.SetStallTimeout(live.StallKill)
	m.listeners.SetUser(live.workerUser(), live.Allow)
	m.reloads.Hook = live.BeforeReload != nil
	m.recycler.Configure(m.cfg.recycle())
	m.health.Configure(live.healthConfig())
	m.keepProgram()
	if live.Balance != balance { // a change by handoff's commands stays, as long as the file does not change
		m.rebalance(live.Balance)
	}
	m.step(fleet.Configure{Config: live.Fleet})
	if live.Fleet.Slots != slots { // a number set by handoff scale stays, as long as the file does not change
		m.scaleTo(live.Fleet.Slots)
	}
	for _, what := range later {
		m.log.Warn("Changing "+what+" requires a restart of handoff", "event", events.ConfigLater, "key", what)
	}
	return nil
}

// startUpgrade starts a new binary, which reads the state and reports whether it can take
// over. This master continues in the meantime. When the new one is ready it ends, like a
// killed one, except that it has finished its current work; the keeper gives the new one
// everything that this one had.
func (m *Master) startUpgrade() {
	var err error
	switch {
	case m.cfg.Upgrade == nil || m.keep == nil:
		err = errors.New("cannot upgrade: there is no keeper")
	case m.keep.Mute():
		err = errors.New("cannot upgrade: the keeper does not respond (is it stopped?)")
	case m.fleet.Stopping():
		err = errors.New("cannot upgrade: the service is stopping")
	}
	state, jerr := json.Marshal(m.record())
	if err = errors.Join(err, jerr); err != nil {
		m.order(reload.UpgradeEnded{Failed: err.Error()})
		return
	}
	m.keep.Upgrading(true) // the keeper accepts a candidate from now on
	m.log.Info("Upgrading: starting the binary on disk", "event", events.MasterUpgrading)
	go func() { m.mail.post(upgraded{m.cfg.Upgrade(state)}) }() // ends with the upgrade, which has a timeout
}

// drainEvents handles messages that workers have already sent: the next master would not
// get them.
func (m *Master) drainEvents() {
	for deadline := time.Now().Add(lastEvents); time.Now().Before(deadline); {
		m.handleListenerNotices()
		select {
		case e := <-m.mail.events:
			if _, ok := e.(signalled); ok {
				continue // the keeper tells the next one
			}
			m.handle(e)
			switch e := e.(type) {
			case socketActivity: // it is reported again until it is handled
				m.listeners.Tick(time.Now())
			case drainAsked: // else the answer would be lost with this process
				select {
				case <-e.delivered:
				case <-time.After(lastEvents / 5):
				}
			}
		default:
			if !m.listeners.Accepting() {
				return
			}
			// Connections that were taken out of a queue would be lost with this process.
			m.listeners.Tick(time.Now())
			<-time.After(time.Millisecond)
		}
	}
}

// lastEvents limits how long a worker that keeps sending can delay this.
const lastEvents = 50 * time.Millisecond

// ready: a worker can serve, unless its health check fails or a hook refuses. Unless --ready-when is ready, it only
// seems so: gunicorn sends READY=1 before it has loaded anything.
func (m *Master) ready(w *worker) {
	if w.stderr != nil {
		go w.stderr.Serves() // ends when what was held back is written
		w.stderr = nil
	}
	if w.dead || !m.health.Ready(time.Now(), health.ID(w.id)) {
		return // [Master.checked] follows
	}
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
			about := m.about(w)
			go func() { m.mail.post(readyJudged{id, ask(about)}) }() // ends with the hook, which has a timeout
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
	m.refuse(w, err.Error())
}

// refuse does not put a worker into service.
func (m *Master) refuse(w *worker, reason string) {
	m.log.Error("Worker not put into service: "+reason, w.attrs(events.WorkerRefused, "reason", reason)...)
	m.step(fleet.Unfit{ID: w.id, Reason: fmt.Sprintf("slot %d: %s", w.slot, reason)})
}

// errorText is the text of an error; "": none.
func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
