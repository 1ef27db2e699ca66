package keeper

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
)

// stopping is the state of a stop that no master has handled.
type stopping int

const (
	asked      stopping = iota
	killed              // the hanging master was killed; the next one gets the stop
	terminated          // the workers got SIGTERM
)

// stop enforces a stop that no master has handled in time, one step per call, and reports
// whether it is complete. A hanging master is killed, so that the next one stops in good
// order. If that hangs, too, the workers, which are then children of this process, get
// SIGTERM, then SIGKILL.
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
