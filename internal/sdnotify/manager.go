package sdnotify

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Manager sends the notices of a service to its service manager: for systemd's
// Type=notify, and notify-reload, which requires RELOADING=1 with the monotonic time,
// then READY=1. It belongs to one goroutine.
type Manager struct {
	send     func(text string)
	watchdog time.Duration
	aliveAt  time.Time // when the next keep-alive is due
}

// NewManager returns a Manager that sends notices with send. watchdog is the service
// manager's watchdog interval; 0: none.
func NewManager(send func(text string), watchdog time.Duration, now time.Time) *Manager {
	return &Manager{send: send, watchdog: watchdog, aliveAt: now}
}

// margin is added to the time that an operation may take.
const margin = 10 * time.Second

// Ready reports that the service serves, with a status text.
func (m *Manager) Ready(status string) { m.send("READY=1\nSTATUS=" + status) }

// Reloading reports the start of a reload, which may take so long. Ready ends it.
func (m *Manager) Reloading(status string, within time.Duration) {
	var now unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	m.send(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d\nSTATUS=%s%s", now.Nano()/1000, status, extend(within)))
}

// Stopping reports that the service stops, which may take so long.
func (m *Manager) Stopping(status string, within time.Duration) {
	m.send("STOPPING=1\nSTATUS=" + status + extend(within))
}

func extend(by time.Duration) string {
	return fmt.Sprintf("\nEXTEND_TIMEOUT_USEC=%d", (by + margin).Microseconds())
}

// Deadline is when the next keep-alive is due; zero: never.
func (m *Manager) Deadline() time.Time {
	if m.watchdog <= 0 {
		return time.Time{}
	}
	return m.aliveAt
}

// Tick sends a keep-alive, three times per watchdog interval.
func (m *Manager) Tick(now time.Time) {
	if m.watchdog <= 0 || now.Before(m.aliveAt) {
		return
	}
	m.send("WATCHDOG=1")
	m.aliveAt = now.Add(m.watchdog / 3)
}
