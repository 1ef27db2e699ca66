package master

import (
	"fmt"
	"os"

	"handoff/internal/cmsg"
	"handoff/internal/linux"
	"handoff/internal/sdnotify"
	"handoff/master/fleet"
)

// hearNotices returns a server for a worker's notify socket that posts its notices.
func (m *Master) hearNotices(id fleet.ID, pid int, c *cmsg.Conn) *sdnotify.Server {
	keeper := m.cfg.PID // of a program that outlives its parent it is the parent
	return &sdnotify.Server{
		Conn:    c,
		Believe: func(sender int) bool { return linux.Descends(sender, pid) || linux.LeftBehind(sender, pid, keeper) },
		Limiter: sdnotify.Limiter{AliveEvery: m.cfg.Fleet.Watchdog / 8},
		News:    func(n sdnotify.Notice) { m.mail.post(notified{id, n}) },
		Draining: func() (yes bool, delivered func()) {
			answer, done := make(chan bool, 1), make(chan struct{})
			m.mail.post(drainAsked{id, answer, done})
			select {
			case yes = <-answer:
			case <-m.mail.quit:
			}
			return yes, func() { close(done) }
		},
	}
}

// notifyPlace is the place of the workers' notify sockets.
func (m *Master) notifyPlace() sdnotify.Place {
	p := sdnotify.Place{Dir: m.cfg.RuntimeDir, UID: os.Geteuid()}
	if m.cfg.Conditions.User != nil {
		p.UID = m.cfg.Conditions.User.UID
	}
	return p
}

// Notices to the service manager. The keeper sends them, since it is the main process of
// the service.

func (m *Master) reportReloading(generation int) {
	m.manager.Reloading(fmt.Sprintf("Reloading: generation %d starts", generation), m.cfg.Fleet.ReadyTimeout)
}

func (m *Master) reportServing() {
	if s := m.status(); !s.Serves() {
		m.manager.Ready(fmt.Sprintf("Generation %d %s", m.fleet.Live(), s.Serving()))
		return
	}
	m.manager.Ready(fmt.Sprintf("Generation %d serves on %s, %d workers", m.fleet.Live(), m.names(), m.fleet.Slots()))
}

func (m *Master) reportStopping() {
	m.manager.Stopping("Stopping: draining workers", m.cfg.Fleet.DrainTimeout+m.cfg.Fleet.KillGrace)
}
