package master

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// What a service manager above is told, by way of the keeper, which is the
// process that it knows (sd_notify(3)): Type=notify, and notify-reload, which wants
// RELOADING=1 with the monotonic time, then READY=1.

// up tells the service manager above, if there is one.
func (m *Master) up(text string) { m.keep.TellManager(text) }

func (m *Master) upReloading(generation int) {
	var now unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	m.up(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d\nSTATUS=Reloads: generation %d starts%s", now.Nano()/1000, generation, m.extend(m.cfg.Fleet.ReadyTimeout)))
}

func (m *Master) upServes() {
	m.up(fmt.Sprintf("READY=1\nSTATUS=Generation %d serves on %s, %d workers", m.fleet.Live(), m.names(), m.fleet.Slots()))
}

func (m *Master) upStopping() {
	m.up("STOPPING=1\nSTATUS=Stops: workers drain" + m.extend(m.cfg.Fleet.DrainTimeout+m.cfg.Fleet.KillGrace))
}

// extend asks for the time that a step may take, and some.
func (m *Master) extend(by time.Duration) string {
	return fmt.Sprintf("\nEXTEND_TIMEOUT_USEC=%d", (by + upMargin).Microseconds())
}

const upMargin = 10 * time.Second

// upAlive says that the loop turns, as often as the service manager wants it, and
// returns when to say it again.
func (m *Master) upAlive(now time.Time) {
	if m.cfg.UpWatchdog <= 0 || now.Before(m.aliveAt) {
		return
	}
	m.up("WATCHDOG=1")
	m.aliveAt = now.Add(m.cfg.UpWatchdog / 3)
}

// watchKeeper waits for the end of the keeper, and posts it.
func watchKeeper(pid int, post func(event)) {
	if pid <= 0 {
		return
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		post(keeperDied{})
		return
	}
	unix.SetNonblock(fd, true)
	p := process{pid: pid, pidfd: newPidfd(fd)}
	defer p.pidfd.Close()
	if p.awaitEnd() == nil {
		post(keeperDied{})
	}
}
