package master

import (
	"encoding/json"
	"errors"
	"time"

	"handoff/internal/sdnotify"
)

// upgrade starts a new binary, which looks at the state and says whether it can
// take over. This master goes on meanwhile; when the new one is ready it ends,
// like one that is killed, except that it has finished what it was about; the
// keeper gives the new one all that this one had.
func (m *Master) upgrade() {
	if m.upgrading {
		return
	}
	var err error
	switch {
	case m.cfg.Upgrade == nil || m.keep == nil:
		err = errors.New("cannot upgrade: there is no keeper")
	case m.keep.Mute():
		err = errors.New("cannot upgrade: the keeper does not respond (is it stopped?)")
	case m.fleet.Stopping():
		err = errors.New("cannot upgrade: everything stops")
	}
	state, jerr := json.Marshal(m.record())
	if err = errors.Join(err, jerr); err != nil {
		m.upgraded(err)
		return
	}
	m.upgrading = true
	m.log.Info("Upgrade: the binary on disk is started", "event", "master.upgrading")
	go func() { m.post(upgraded{m.cfg.Upgrade(state)}) }() // ends with the upgrade, which has a timeout
}

func (m *Master) upgraded(err error) {
	m.upgrading = false
	if err == nil {
		m.drainEvents()
		m.save()
		m.replaced = true
		return
	}
	if m.reloadNext {
		m.notReloaded("upgrade: " + err.Error())
		m.log.Error("The workers are not reloaded either", "event", "cluster.failed", "reason", "the upgrade failed")
	}
	m.reloadNext = false
	m.lastError = sdnotify.Printable("upgrade: " + err.Error())
	m.log.Error("Upgrade failed, this master goes on: "+err.Error(), "event", "upgrade.failed", "reason", err.Error())
	for _, to := range m.askers {
		to <- err
	}
	m.askers = nil
	if m.keeperGone {
		m.replaceKeeper()
	}
}

// drainEvents handles what workers have said already: nobody would hear it again.
func (m *Master) drainEvents() {
	for patience := time.Now().Add(lastEvents); time.Now().Before(patience); {
		select {
		case e := <-m.events:
			if _, ok := e.(signalled); ok {
				continue // the keeper tells the next one
			}
			m.handle(e)
			if q, ok := e.(drainAsked); ok { // or the answer would be lost with this process
				select {
				case <-q.told:
				case <-time.After(lastEvents / 5):
				}
			}
		default:
			return
		}
	}
}

// lastEvents bounds the time that a worker that talks and talks can take.
const lastEvents = 50 * time.Millisecond
