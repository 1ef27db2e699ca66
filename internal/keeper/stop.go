package keeper

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
)

// stopping is what was done for a stop that no master heeds.
type stopping int

const (
	asked      stopping = iota
	killed              // the master, which hung; the next one is told
	terminated          // the workers, by SIGTERM
)

// stop does what a stop wants that no master has heeded in its time, a step at each call,
// and tells whether all is done. A master that hangs is killed, so that the next one
// stops in good order. Where that does not either, the workers, which are children of
// this process by now, get SIGTERM, then SIGKILL.
func (k *keeper) stop(now time.Time) (done bool) {
	k.stopAt = now.Add(k.waits.Stop)
	if k.stops == asked && k.master.ready {
		k.say("the master did not stop within %v: killing it; the next one stops the service", k.waits.Stop)
		unix.PidfdSendSignal(k.master.pidfd, unix.SIGKILL, nil, 0)
		k.stopAsked, k.stops = now, killed
		return false
	}
	if k.stops < terminated {
		k.say("cannot start a master to stop the workers: sending them SIGTERM")
		signalChildren(unix.SIGTERM)
		k.stops = terminated
		return false
	}
	k.say("cannot start a master to stop the workers: killing them")
	signalChildren(unix.SIGKILL)
	return true
}

// signalChildren signals every child of this process, and its group.
func signalChildren(s unix.Signal) {
	for _, pid := range linux.Children(os.Getpid()) { // not reaped before it is read here
		if pid > 1 {
			unix.Kill(-pid, s)
			unix.Kill(pid, s)
		}
	}
}
