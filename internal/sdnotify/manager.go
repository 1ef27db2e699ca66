package sdnotify

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Manager is what a service tells its service manager: for systemd's Type=notify, and
// notify-reload, which wants RELOADING=1 with the monotonic time, then READY=1. It
// belongs to one goroutine.
type Manager struct {
	send     func(text string)
	watchdog time.Duration
	aliveAt  time.Time // when the next sign of life is due
}

// NewManager returns what speaks to a service manager by send. watchdog is how often it
// wants a sign of life; 0: never.
func NewManager(send func(text string), watchdog time.Duration, now time.Time) *Manager {
	return &Manager{send: send, watchdog: watchdog, aliveAt: now}
}

// margin is what is asked for beyond the time that a step may take.
const margin = 10 * time.Second

// Ready says that the service serves, and how.
func (m *Manager) Ready(status string) { m.send("READY=1\nSTATUS=" + status) }

// Reloading says that a reload begins, which may take so long. Ready ends it.
func (m *Manager) Reloading(status string, within time.Duration) {
	var now unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	m.send(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d\nSTATUS=%s%s", now.Nano()/1000, status, extend(within)))
}

// Stopping says that the service stops, which may take so long.
func (m *Manager) Stopping(status string, within time.Duration) {
	m.send("STOPPING=1\nSTATUS=" + status + extend(within))
}

func extend(by time.Duration) string {
	return fmt.Sprintf("\nEXTEND_TIMEOUT_USEC=%d", (by + margin).Microseconds())
}

// Deadline is when the next sign of life is due; zero: never.
func (m *Manager) Deadline() time.Time {
	if m.watchdog <= 0 {
		return time.Time{}
	}
	return m.aliveAt
}

// Tick says that the service lives, three times as often as is wanted.
func (m *Manager) Tick(now time.Time) {
	if m.watchdog <= 0 || now.Before(m.aliveAt) {
		return
	}
	m.send("WATCHDOG=1")
	m.aliveAt = now.Add(m.watchdog / 3)
}
