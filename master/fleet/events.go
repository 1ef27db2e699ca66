package fleet

import "time"

// Event is something that has happened: one of the types below.
type Event interface{ event() }

type (
	// Reload asks for a new generation. The first one starts the fleet.
	Reload struct{}
	// Broken says that a generation cannot be started at all: its program is
	// not there, its environment cannot be read.
	Broken struct {
		Gen    Gen
		Reason string
	}
	// SetSlots asks for another number of slots, at least 1. Where the workers of
	// new slots cannot be started, the number goes back: NotScaled.
	SetSlots struct{ N int }
	// Configure changes everything else of the configuration, from now on.
	Configure struct{ Config Config }
	// Freeze has nobody started any more.
	Freeze struct{}
	// Stop asks for the end, with drain unless Now.
	Stop struct{ Now bool }
	// Ready says that a worker can serve. Seems: it looks so, and has not said so.
	Ready struct {
		ID    ID
		Seems bool
	}
	// Restart asks for a new worker in the place of one that serves. Where none
	// can be started, the old one stays: NotRestarted.
	Restart struct{ ID ID }
	// Leave says that a worker wants to be replaced, then drained.
	Leave struct{ ID ID }
	// MarkRecycle says that a worker that serves is to be replaced when its turn comes:
	// one slot at a time, not during a reload.
	MarkRecycle struct {
		ID     ID
		Reason string
	}
	// Unfit says that a worker that starts must not serve.
	Unfit struct {
		ID     ID
		Reason string
	}
	// Steered says that a Steer has been done.
	Steered struct{}
	// SteerFailed says that it has not, and that connections go where they went
	// before. Without a Steer: that they may not all go where they should.
	SteerFailed struct{ Reason string }
	// Quiet says that nothing new can come to a worker any more.
	Quiet struct{ ID ID }
	// Drained says that a draining worker has ended its last connection.
	Drained struct{ ID ID }
	// Ping says that a worker is alive and well.
	Ping struct{ ID ID }
	// Hung says that it is not. Stalled: it accepts nothing, while others do.
	Hung struct {
		ID      ID
		Reason  string
		Stalled bool
	}
	// Extend asks for more time to start or to drain, from now on.
	Extend struct {
		ID ID
		By time.Duration
	}
	// Exited says that a worker is gone, or could not be started.
	Exited struct {
		ID     ID
		Reason string // in words
	}
)

func (Reload) event()      {}
func (Broken) event()      {}
func (SetSlots) event()    {}
func (Configure) event()   {}
func (Freeze) event()      {}
func (Stop) event()        {}
func (Ready) event()       {}
func (Restart) event()     {}
func (Leave) event()       {}
func (MarkRecycle) event() {}
func (Unfit) event()       {}
func (Steered) event()     {}
func (SteerFailed) event() {}
func (Quiet) event()       {}
func (Drained) event()     {}
func (Ping) event()        {}
func (Hung) event()        {}
func (Extend) event()      {}
func (Exited) event()      {}

// Action is something to do: one of the types below.
type Action interface{ action() }

type (
	// Prepare pins what a generation is started from. Answer with Broken if
	// that fails.
	Prepare struct{ Gen Gen }
	// Forget says that a generation will not be started from again.
	Forget struct{ Gen Gen }
	// Spawn starts a worker.
	Spawn struct {
		ID   ID
		Slot int
		Gen  Gen
	}
	// Steer sends new connections to these workers, one a slot, and to no
	// others; answer Steered or SteerFailed, before any other event. It is the last
	// action of a step: nobody is sent away before it is known to be done.
	Steer struct{ IDs []ID }
	// Quiesce waits until nothing new can come to a worker; answer Quiet.
	Quiesce struct{ ID ID }
	// Drain tells a worker to finish and go.
	Drain struct{ ID ID }
	// Signal sends SIGTERM, or SIGKILL to the whole process group.
	Signal struct {
		ID     ID
		Kill   bool
		Reason string
	}
	// Abandon takes a worker's connections away from it, those that it has not
	// accepted: it does not answer any more. It is not to be drained.
	Abandon struct {
		ID      ID
		Reason  string
		Stalled bool // see Hung
	}
	// Renew asks for a Reload: it is time.
	Renew struct{}
	// Recycle reports that a worker's turn to be replaced has come.
	Recycle struct {
		ID     ID
		Reason string
	}
	// Unlisten gives up the addresses: everything stops.
	Unlisten struct{}
	// Live reports that a generation serves every slot.
	Live struct {
		Gen  Gen
		Took time.Duration
	}
	// Failed reports that a generation was given up. Back is the one that
	// serves on, 0 if none.
	Failed struct {
		Gen    Gen
		Reason string
		Back   Gen
	}
	// NotScaled reports that more slots could not be served: there are Back again.
	NotScaled struct {
		Slots  int // that were asked for
		Back   int
		Slot   int // whose worker could not be started
		Gen    Gen
		Reason string
	}
	// NotRestarted reports that no new worker could be started in a slot.
	NotRestarted struct {
		Slot   int
		Gen    Gen
		Reason string
	}
	// Done reports that nobody is left after a Stop, or after the first
	// generation Failed.
	Done struct{ Failed bool }
)

func (Prepare) action()      {}
func (Forget) action()       {}
func (Spawn) action()        {}
func (Steer) action()        {}
func (Quiesce) action()      {}
func (Drain) action()        {}
func (Signal) action()       {}
func (Abandon) action()      {}
func (Renew) action()        {}
func (Recycle) action()      {}
func (Unlisten) action()     {}
func (Live) action()         {}
func (Failed) action()       {}
func (NotScaled) action()    {}
func (NotRestarted) action() {}
func (Done) action()         {}
