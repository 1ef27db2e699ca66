package listeners

import (
	"time"
)

// Notice is something that the table has found out: one of the types below.
type Notice interface{ notice() }

type (
	// Violation: a worker, 0 if it is not known which, has done something to its
	// socket that the master does not want done. It is undone.
	Violation struct {
		Address *Address
		Worker  Worker
		What    string // "shutdown(2) on the listening socket"
	}
	// Detached: the socket of a worker could not be repaired, and is closed. The
	// worker has it no more, and has to be replaced.
	Detached struct {
		Address *Address
		Worker  Worker
	}
	// Queued: a connection has come to a socket that no worker accepts from.
	Queued struct{ Queue Queue }
	// Accepted: what [Queue.Accept] has taken out of a queue. The descriptors are the
	// receiver's.
	Accepted struct {
		Queue Queue
		FDs   []int
		Err   error // why it has ended early
	}
	// Unused: nobody has had an address for a while. [Table.CloseUnused] gives it up;
	// else it is reported again after another while.
	Unused struct{ Address *Address }
	// Quiet: nothing can come any more to a worker that is steered away.
	Quiet struct{ Worker Worker }
	// Stalled: a worker to which connections go accepts none of them, while others
	// do. They go to those now.
	Stalled struct{ Worker Worker }
	// Recovered: it does again.
	Recovered struct {
		Worker Worker
		After  time.Duration
	}
	// StallTimeout: it has not for a multiple of the time that was configured.
	StallTimeout struct {
		Worker Worker
		After  time.Duration // what was configured
	}
	// Unsteerable: the kernel refuses the steering program for an address, of which a
	// worker was given a share.
	Unsteerable struct{ Address *Address }
	// OneSocket: a service manager's socket cannot be joined by others, and is shared
	// by all workers.
	OneSocket struct{ Why error }
	// Failed is an error that can only be reported.
	Failed struct{ Err error }
)

func (Violation) notice()    {}
func (Detached) notice()     {}
func (Queued) notice()       {}
func (Accepted) notice()     {}
func (Unused) notice()       {}
func (Quiet) notice()        {}
func (Stalled) notice()      {}
func (Recovered) notice()    {}
func (StallTimeout) notice() {}
func (Unsteerable) notice()  {}
func (OneSocket) notice()    {}
func (Failed) notice()       {}

// Notices returns what was found out since the last call, in its order.
func (t *Table) Notices() []Notice {
	found := t.notices
	t.notices = nil
	return found
}

func (t *Table) note(n Notice) { t.notices = append(t.notices, n) }

func (t *Table) trouble(err error) {
	if err != nil {
		t.note(Failed{err})
	}
}
