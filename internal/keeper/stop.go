package keeper

import (
	"os"
	"slices"
	"strconv"
	"strings"
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
	if k.stops == asked && k.master.pid == 0 && len(k.candidates) > 0 {
		k.say("the new master was not ready within %v: killing it; the previous binary's master stops the service", k.waits.Stop)
		for _, c := range k.candidates {
			k.killCandidate(c, "the service was stopped before it was ready")
		}
		k.stopAsked, k.stops = now, killed
		return false
	}
	if k.stops < terminated {
		k.say("cannot start a master to stop the workers: sending them SIGTERM")
		for _, p := range k.descendants() {
			p.Signal(unix.SIGTERM)
			p.Close()
		}
		k.stops = terminated
		return false
	}
	k.say("cannot start a master to stop the workers: killing them")
	k.killAll(now.Add(k.waits.Kill))
	return true
}

// descendants are the processes that descend from this one, opened: the workers, and what
// has fallen to this process as the subreaper. Those are left out that were its children
// before it became a keeper: a script may have started them, and then become handoff.
func (k *keeper) descendants() []*linux.Pidfd {
	return linux.Descendants(os.Getpid(), func(s linux.Stat) bool { return slices.Contains(k.before, identity{s.PID, s.Start}) })
}

// identity is a process: a pid may be used again, but not with the same start.
type identity struct {
	pid   int
	start uint64
}

// children are those that this process has now.
func children() (all []identity) {
	for _, pid := range linux.Children(os.Getpid()) {
		if s, err := linux.ReadStat(pid); err == nil {
			all = append(all, identity{pid, s.Start})
		}
	}
	return all
}

// killAll kills what descends from this process, and what that forks meanwhile, until
// nothing is left, or it is late: it says then what there is.
func (k *keeper) killAll(until time.Time) {
	for {
		all := k.descendants()
		for _, p := range all {
			p.Signal(unix.SIGKILL)
		}
		var left []string
		for _, p := range all {
			if p.AwaitDeath(until) != nil {
				left = append(left, strconv.Itoa(p.PID()))
			}
			p.Close()
		}
		k.reap()
		if len(left) > 0 {
			k.say("cannot end the processes %s: they are another user's, or wait inside the kernel", strings.Join(left, ", "))
			return
		}
		if len(all) == 0 {
			return
		}
	}
}
