package master

import (
	"os"

	"handoff/internal/sdnotify"
	"handoff/master/contract"
	"handoff/master/descendants"
	"handoff/master/fleet"
)

// event is posted to the loop by goroutines: one of the types below.
type event interface{ event() }

type (
	// signalled: handoff itself got a signal.
	signalled struct {
		signal os.Signal
		kept   bool // forwarded by the keeper
	}
	// fromSession: a value from Serve of a worker's session, for its Handle.
	fromSession struct {
		session contract.Session
		what    any
	}
	// notified: a worker has sent a notice to its notify socket.
	notified struct {
		id     fleet.ID
		notice sdnotify.Notice
	}
	// memorySampled: the memory of the workers' process groups, in bytes.
	memorySampled struct{ resident map[int]int64 }
	// reloadJudged, readyJudged: the answer of a hook; nil: yes.
	reloadJudged struct{ err error }
	readyJudged  struct {
		id  fleet.ID
		err error
	}
	// drainAsked: a worker asks whether it must drain. answer has room for it; delivered
	// is closed when the worker has it.
	drainAsked struct {
		id        fleet.ID
		answer    chan<- bool
		delivered <-chan struct{}
	}
	// died: a worker's process is dead. Its last messages are still read.
	died struct{ id fleet.ID }
	// ended: they have been read; it is not reaped yet. orphans may be its descendants, and
	// holdings are what these have of sockets; hidden tells that a process may still have its seccomp filter.
	ended struct {
		id       fleet.ID
		orphans  []descendants.Orphan
		holdings []descendants.Holding
		hidden   bool
	}
	// descendantDied: a process that an ended worker has left is dead.
	descendantDied struct{}
	// keeperDied: the keeper has died.
	keeperDied struct{}
	// upgraded: a new binary can take over, or cannot; done is closed, or receives the
	// error.
	upgraded struct{ err error }
	// upgradeAsked: a call for an upgrade; to has room for the answer, which is sent only
	// if it fails.
	upgradeAsked struct{ to chan<- error }
	// asked: a call of [Control]; f answers without blocking.
	asked struct{ f func(*Master) }
	// fromTakeover: a value for the room of kept connections.
	fromTakeover struct{ what any }
	// outputLost: output of workers could not be written; nil: it is written again.
	outputLost struct {
		to    string
		err   error
		lines int // lost since the last time
	}
	// socketActivity: the watch has something to collect.
	socketActivity struct{}
)

func (signalled) event()      {}
func (fromSession) event()    {}
func (notified) event()       {}
func (drainAsked) event()     {}
func (memorySampled) event()  {}
func (reloadJudged) event()   {}
func (readyJudged) event()    {}
func (died) event()           {}
func (ended) event()          {}
func (descendantDied) event() {}
func (keeperDied) event()     {}
func (upgraded) event()       {}
func (upgradeAsked) event()   {}
func (asked) event()          {}
func (fromTakeover) event()   {}
func (outputLost) event()     {}
func (socketActivity) event() {}
