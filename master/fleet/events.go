package fleet

import "time"

// Event is an input of Step: one of the types below.
type Event interface{ event() }

type (
	// Reload requests a new generation. The first one starts the fleet.
	Reload struct{}
	// Broken: a generation cannot be started at all: its program does not exist, or its
	// environment cannot be read.
	Broken struct {
		Gen    Gen
		Reason string
	}
	// SetSlots requests another number of slots, at least 1. If the workers of new slots
	// cannot be started, the previous number is restored: NotScaled.
	SetSlots struct{ N int }
	// Configure changes the rest of the configuration.
	Configure struct{ Config Config }
	// Freeze: no worker is started any more.
	Freeze struct{}
	// Stop stops the fleet, with a drain unless Now.
	Stop struct{ Now bool }
	// Ready: a worker can serve. Seems: it appears to, but has not reported it.
	Ready struct {
		ID    ID
		Seems bool
	}
	// Lacks: a worker that starts claims to be ready, or has seemed to be, and is not: What
	// it still lacks, in words, for the report of its ready timeout.
	Lacks struct {
		ID   ID
		What string
	}
	// Restart requests a replacement for a worker that serves. If none can be started,
	// the old one stays: NotRestarted.
	Restart struct{ ID ID }
	// Leave: a worker asks to be replaced, then drained.
	Leave struct{ ID ID }
	// MarkRecycle marks a worker for replacement: one slot at a time, not during a
	// reload.
	MarkRecycle struct {
		ID     ID
		Reason string
	}
	// Unfit: a starting worker must not serve.
	Unfit struct {
		ID     ID
		Reason string
	}
	// Steered: a Steer succeeded.
	Steered struct{}
	// SteerFailed: a Steer failed, and the previous steering is in effect. Without a
	// Steer: some connections may go to wrong workers.
	SteerFailed struct{ Reason string }
	// Quiet: no connection can reach a worker any more.
	Quiet struct{ ID ID }
	// Drained: a draining worker has closed its last connection.
	Drained struct{ ID ID }
	// Ping: a worker is alive.
	Ping struct{ ID ID }
	// Hung: a worker does not respond. Stalled: it accepts nothing, while others do.
	Hung struct {
		ID      ID
		Reason  string
		Stalled bool
	}
	// Extend requests more time to start or to drain, from now.
	Extend struct {
		ID ID
		By time.Duration
	}
	// Died: a worker's process is dead, and no connection is accepted by it any more.
	// Exited follows, when its last messages have been read.
	Died struct{ ID ID }
	// Exited: a worker has exited, or could not be started. Final: another start would
	// end in the same way.
	Exited struct {
		ID     ID
		Reason string // in words
		Final  bool
	}
)

func (Reload) event()      {}
func (Broken) event()      {}
func (SetSlots) event()    {}
func (Configure) event()   {}
func (Freeze) event()      {}
func (Stop) event()        {}
func (Ready) event()       {}
func (Lacks) event()       {}
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
func (Died) event()        {}
func (Exited) event()      {}

// Action is an output of Step: one of the types below.
type Action interface{ action() }

type (
	// Prepare pins the program and environment of a generation. Answer with Broken if
	// that fails.
	Prepare struct{ Gen Gen }
	// Forget: no worker of a generation will be started again.
	Forget struct{ Gen Gen }
	// Spawn starts a worker.
	Spawn struct {
		ID   ID
		Slot int
		Gen  Gen
	}
	// Steer sends new connections to these workers, one per slot, and to no others; with
	// none, which NoOverlap alone orders, they wait in the held sockets. Answer Steered or SteerFailed, before any other event. It is the last action of a
	// step: no worker is drained before it has succeeded.
	Steer struct{ IDs []ID }
	// Quiesce waits until no connection can reach a worker; answer Quiet.
	Quiesce struct{ ID ID }
	// Drain tells a worker to finish and exit. AtOnce: it serves, and was not quiesced
	// before, so that a record may still say that it stays.
	Drain struct {
		ID     ID
		AtOnce bool
	}
	// Signal sends SIGTERM, or SIGKILL to the whole process group.
	Signal struct {
		ID     ID
		Kill   bool
		Reason string
	}
	// Abandon takes away the connections that a worker has not accepted, since it does
	// not respond. It is not drained.
	Abandon struct {
		ID      ID
		Reason  string
		Stalled bool // see Hung
	}
	// Renew requests a Reload, because --reload-every is due.
	Renew struct{}
	// Recycle reports that a marked worker is now replaced.
	Recycle struct {
		ID     ID
		Reason string
	}
	// Unlisten closes the addresses: the service stops.
	Unlisten struct{}
	// Live reports that a generation serves every slot.
	Live struct {
		Gen  Gen
		Took time.Duration
	}
	// Failed reports that a generation failed. Back is the one that keeps serving, 0 if
	// none.
	Failed struct {
		Gen    Gen
		Reason string
		Back   Gen
	}
	// NotScaled reports that more slots could not be served: the number is Back again.
	NotScaled struct {
		Slots  int // requested
		Back   int
		Slot   int // the slot whose worker could not be started
		Gen    Gen
		Reason string
	}
	// NotRestarted reports that no new worker could be started in a slot.
	NotRestarted struct {
		Slot   int
		Gen    Gen
		Reason string
	}
	// Done reports that no worker is left after a Stop, or after the first generation
	// Failed.
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
