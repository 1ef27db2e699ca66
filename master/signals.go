package master

import (
	"fmt"
	"os"
	"os/signal"

	"handoff/internal/events"
	"handoff/internal/linux"
	"handoff/master/fleet"
	"handoff/master/reload"

	"golang.org/x/sys/unix"
)

// watchSignals posts handoff's signals until stop is called.
//
// The keeper forwards them as real-time signals: base plus their number; 0: no keeper.
func watchSignals(base int, post func(event)) (stop func()) {
	ch := make(chan os.Signal, 16)
	for _, s := range [...]unix.Signal{unix.SIGUSR2, unix.SIGHUP, unix.SIGTERM, unix.SIGINT, unix.SIGQUIT,
		unix.SIGTTIN, unix.SIGTTOU, unix.SIGUSR1} {
		signal.Notify(ch, s, s+unix.Signal(base))
	}
	go func() { // ends when ch is closed
		for s := range ch {
			if n := int(s.(unix.Signal)) - base; base > 0 && n > 0 {
				post(signalled{unix.Signal(n), true})
			} else {
				post(signalled{s, false})
			}
		}
	}()
	return func() {
		signal.Stop(ch)
		close(ch)
	}
}

func (m *Master) signalled(s os.Signal) {
	m.history.saver.Handled(s.(unix.Signal))
	switch s {
	case unix.SIGUSR2:
		m.order(reload.Order{Upgrade: true})
	case unix.SIGHUP:
		m.order(reload.Order{})
	case unix.SIGTERM, unix.SIGINT, unix.SIGQUIT:
		if m.fleet.Stopping() {
			m.history.end.hurried = s
			m.log.Warn("Stopping immediately; killing workers", "event", events.ClusterShutdown, "signal", linux.SignalName(s.(unix.Signal)))
			m.stop(true)
			return
		}
		what := "Stopping; draining workers"
		if s == unix.SIGINT {
			what += "; Ctrl-C again kills them"
		}
		m.log.Info(what, "event", events.ClusterShutdown, "signal", linux.SignalName(s.(unix.Signal)),
			"workers", len(m.workers), "within", m.cfg.Fleet.DrainTimeout+m.cfg.Fleet.KillGrace)
		m.stop(false)
	case unix.SIGTTIN:
		m.scale(+1)
	case unix.SIGTTOU:
		m.scale(-1)
	case unix.SIGUSR1:
		if err := m.cfg.Reopen(); err != nil {
			m.log.Error("Cannot reopen the log file: "+err.Error(), "event", events.LogReopened)
			return
		}
		m.log.Info("Log file reopened", "event", events.LogReopened)
	}
}

func (m *Master) scale(by int) {
	n := m.fleet.Slots() + by
	if n < 1 || n > m.cfg.MaxSlots {
		m.log.Warn(fmt.Sprintf("Not scaled: allowed are 1 to %d workers", m.cfg.MaxSlots), "event", events.ClusterScaled, "workers", n-by, "least", 1, "most", m.cfg.MaxSlots)
		return
	}
	m.scaleTo(n)
}

func (m *Master) scaleTo(n int) {
	m.log.Info("Changing the number of workers", "event", events.ClusterScaled, "workers", n)
	m.step(fleet.SetSlots{N: n})
}
