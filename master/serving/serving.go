// Package serving knows on which addresses workers accept: what they have said, and whether
// their processes have the sockets open still.
package serving

import (
	"time"

	"handoff/internal/linux"
	"handoff/master/listeners"
	"handoff/master/readiness"
)

// Loop is what the master's loop knows of workers.
type Loop interface {
	// Processes are those of a worker, as far as they are known; none: it is dead.
	Processes(listeners.Worker) []int
	// Keeper is the pid of the keeper, which has all sockets, too.
	Keeper() int
	// Steer applies that a worker accepts somewhere no longer.
	Steer()
	// MayDrop reports whether an address may end.
	MayDrop(readiness.Address) bool
}

// The loop waits: maxLooks limits how many descriptors and processes of a worker are
// inspected, maxOthers how many of others, some 30 ms.
const (
	maxLooks  = 4096
	maxOthers = 1 << 14
)

// On is what a worker accepts on; checked: by sockets that it has open.
func On(t *listeners.Table, id listeners.Worker, loop Loop, checked bool) (all []readiness.Address) {
	at := t.AcceptsOn(id)
	if checked && len(at) > 0 {
		at = check(t, id, loop, at, time.Now())
	}
	for _, s := range at {
		all = append(all, addressOf(s.Address))
	}
	return all
}

// check takes note of the sockets that a worker has closed.
func check(t *listeners.Table, id listeners.Worker, loop Loop, at []listeners.Accepting, now time.Time) []listeners.Accepting {
	var inodes []uint64
	for _, s := range at {
		inodes = append(inodes, s.Inode)
	}
	open := linux.OpenSockets(loop.Processes(id), inodes, maxLooks)
	for _, s := range at {
		// A process may have left the worker's tree: others are looked at, if it seems to be closed.
		if !open[s.Inode] && s.Inode != 0 && (s.Shared || !linux.OthersHave(s.Inode, loop.Keeper(), maxOthers)) {
			t.NotOpen(id, s.Inode, now)
		}
	}
	left := t.AcceptsOn(id)
	if len(left) < len(at) {
		loop.Steer()
	}
	return left
}

// InService is what the workers accept on to which connections go.
func InService(t *listeners.Table, loop Loop, checked bool) (all []readiness.Service) {
	for slot, id := range t.Targets() {
		if id != 0 && len(loop.Processes(id)) > 0 {
			all = append(all, readiness.Service{Slot: slot, At: On(t, id, loop, checked)})
		}
	}
	return all
}

// Unserved are the names of the addresses that were served, and on which nobody in service
// accepts now, by no name.
func Unserved(t *listeners.Table, loop Loop) (names []string) {
	served, not := t.Served()
	var at []readiness.Address
	for _, a := range served {
		at = append(at, addressOf(a))
	}
	for _, a := range not {
		if r := addressOf(a); !r.In(at) && !loop.MayDrop(r) {
			names = append(names, a.Name())
		}
	}
	return names
}

func addressOf(a *listeners.Address) readiness.Address {
	return readiness.Address{Key: a.Key(), Name: a.Name(), At: a.Local(), UDP: a.Endpoint().Type == listeners.Datagram, Only: a.Endpoint().V6Only}
}
