package master

import (
	"os"

	"handoff/internal/sdnotify"
	"handoff/master/contract"
	"handoff/master/fleet"
)

// event is what goroutines post to the loop: one of the types below.
type event interface{ event() }

type (
	// signalled: handoff itself got a signal.
	signalled struct {
		signal os.Signal
		kept   bool // by way of the keeper
	}
	// fromSession: the reader of a worker's session has something for its other half.
	fromSession struct {
		session contract.Session
		what    any
	}
	// notified: a worker has said something on its notify socket.
	notified struct {
		id     fleet.ID
		notice sdnotify.Notice
	}
	// memorySampled: what the workers' process groups have of memory, in bytes.
	memorySampled struct{ resident map[int]int64 }
	// reloadJudged, readyJudged: the answer of who may refuse; nil is a yes.
	reloadJudged struct{ err error }
	readyJudged  struct {
		id  fleet.ID
		err error
	}
	// drainAsked: a worker wants to know whether it is to drain. answer has room for
	// it; delivered is closed when the worker has it.
	drainAsked struct {
		id        fleet.ID
		answer    chan<- bool
		delivered <-chan struct{}
	}
	// died: a worker's process is dead. Its last words are still read.
	died struct{ id fleet.ID }
	// ended: they have been; it is not reaped yet.
	ended struct{ id fleet.ID }
	// keeperDied: the process that everybody knows is gone.
	keeperDied struct{}
	// upgraded: a new binary can take over, or could not; done is closed or told.
	upgraded struct{ err error }
	// upgradeAsked: somebody wants one; to has room for the answer, which comes
	// only if there is none.
	upgradeAsked struct{ to chan<- error }
	// asked: somebody wants something done; f answers, and does not wait for that.
	asked struct{ f func(*Master) }
	// outputLost: what workers write to a place could not be passed on; nil: it is again.
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
func (keeperDied) event()     {}
func (upgraded) event()       {}
func (upgradeAsked) event()   {}
func (asked) event()          {}
func (outputLost) event()     {}
func (socketActivity) event() {}
