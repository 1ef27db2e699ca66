// Package contract is the interface between the loop and the contracts. A contract
// defines how workers get their sockets, and how they are told to finish:
//
//	node  the master is the primary of Node's cluster module
//	bind  bind(2) and listen(2) of any program are answered by the master, or, for
//	      activation, nothing is: it has listeners from its start
//
// A contract has a session for each worker, with two halves: Serve reads the worker's
// messages, in a goroutine of its own, and posts them; the loop calls everything else,
// and none of it blocks. A session reaches the loop only through its [Host].
package contract

import (
	"errors"
	"net/netip"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
	"handoff/master/listeners"
)

// Worker is the worker of a session. The loop owns what it points to.
type Worker struct {
	ID      listeners.Worker
	Slot    int
	PID     int
	Gen     int
	Process *linux.Pidfd
	Dir     string // its working directory
	// Post makes the loop call the session's Handle with that value. Any goroutine may
	// call it. The value may be dropped when the loop ends.
	Post func(what any)
	// Store gives the keeper a duplicate of a descriptor of the worker, for the next
	// master. Any goroutine may call it. The names are those of package fdstore.
	Store func(what string, fd int) error
}

// Plan is how workers of a contract are started, and how they end.
type Plan struct {
	// Channel: a worker has the other end of its session's socketpair, as the first
	// descriptor after its listeners.
	Channel bool
	// Filter: its trampoline sends the filter of bind(2) over that.
	Filter bool
	// Env adds to its environment; channel is that descriptor. May be nil.
	Env func(id listeners.Worker, channel int) []string
	// Survives: it keeps running without a master. After keeper and master have died the
	// next start looks for it, and ends the processes that it leaves in its process
	// group.
	Survives bool
}

// Host is the loop, as a session sees it. Only the loop's goroutine calls it.
type Host interface {
	// Listeners is the table from which workers get their sockets.
	Listeners() *listeners.Table
	// Steer applies changes of which workers listen on which addresses.
	Steer()
	// Report takes a fact about a worker.
	Report(id listeners.Worker, f Fact)
	// Complete reports whether every slot is served and no worker is starting; Stopping,
	// whether the service is stopping.
	Complete() bool
	Stopping() bool
	// Grace is how long a connection waits for a worker.
	Grace() time.Duration
	// Holds reports whether a TCP address that a program binds is to be held. Port 0 means
	// those that the kernel chooses.
	Holds(netip.AddrPort) bool
	// Ready reports whether a worker has started: it serves, or has served.
	Ready(id listeners.Worker) bool
}

// Session is the dialogue of a contract with one worker.
//
//	Serve runs in a goroutine of its own, until the worker's messages end
//	Handle takes what Serve has posted; the loop calls it, and the following
//	Drain tells the worker to finish
//	Terminate it did not finish: SIGTERM to the other processes that serve for it
//	Died its process is dead; its last messages are still handled
//	End they have been handled
type Session interface {
	Serve()
	Handle(what any)
	Drain(Drain) error
	Terminate() error
	Died()
	End()
	// Busy reports whether Serve waits for another process than the worker. Any goroutine
	// may call it.
	Busy() bool
	// State and Kept are what the next master needs: facts, and descriptors, which the
	// session still owns.
	State() State
	Kept(each func(what string, fd int))
}

// Fact is something that a contract has learned about a worker: one of the types below.
type Fact interface{ fact() }

type (
	// Started: the program has booted.
	Started struct{}
	// Listening: it accepts on another address. Own: on a socket that the table does not
	// have, or on one that is not known.
	Listening struct{ Own bool }
	// Ready: it reports that it is ready.
	Ready struct{}
	// Leaving: it asks to be replaced.
	Leaving struct{}
	// Requests: it has served N since its start.
	Requests struct{ N int }
	// Disconnected: it has closed its channel, so it has drained.
	Disconnected struct{}
	// Overflow: it does not read its messages, and must be killed.
	Overflow struct{ Err error }
	// ProtocolError: an invalid message was dropped. Only the first few of a worker are
	// reported.
	ProtocolError struct{ Reason string }
	// Refused: it did not get a socket. Only the first few of a worker are reported.
	Refused struct {
		Endpoint listeners.Endpoint
		Err      error
	}
	// Blind: it has bound, or listens, and its socket could not be looked at
	// (pidfd_getfd): its options are not kept, nor is a port that the kernel chose.
	Blind struct{}
	// Own: it listens with a socket of its own, which is not held, and Why.
	Own struct {
		Addr netip.AddrPort
		Path string // instead
		Why  string
	}
	// Caller: a process that is not the worker's first one has called bind(2) or listen(2),
	// and waits for the answer. Its filter tells that it descends from the worker, which
	// may have ended.
	Caller struct{ PID int }
	// Unfiltered: the kernel refuses to intercept its bind(2).
	Unfiltered struct{ Err error }
	// Unplaced: a held socket could not replace the worker's own, which it keeps.
	Unplaced struct {
		Address *listeners.Address
		Err     error
	}
	// Resumed: a bind(2) that the previous master had not answered is answered.
	Resumed struct{ Address *listeners.Address }
	// Stranded: connections are queued at a socket that no worker accepts from; the
	// next worker of the slot would take it.
	Stranded struct{ Address *listeners.Address }
	// Rescued: N connections were handed to other workers. This and the following facts
	// belong to no worker.
	Rescued struct {
		Address *listeners.Address
		N       int
	}
	// NotRescued: connections could not be handed over.
	NotRescued struct {
		Address *listeners.Address
		Err     error
	}
	// Lost: one of these connections was closed unanswered.
	Lost struct {
		Address *listeners.Address
		Reason  string
	}
)

// Name is the address.
func (f Own) Name() string {
	if f.Path != "" {
		return f.Path
	}
	return f.Addr.String()
}

// Kind is the same for those of each worker.
func (f Own) Kind() string {
	switch f.Why {
	case ChosenPort:
		return f.Why + f.Addr.Addr().String()
	case NamedByPID:
		return f.Why + filepath.Dir(f.Path)
	}
	return f.Why + f.Addr.String()
}

// String says that the address is not held, and what helps.
func (f Own) String() string {
	switch f.Why {
	case NamedByPID:
		return "A worker listens on a path with its pid in the name: it is its own, each worker has another, and it ends with the worker"
	case ChosenPort:
		return "A worker listens on a port that the kernel chose: it is its own, each worker has another, and it ends with the worker. --hold 0 makes one for all, which is held"
	}
	return "A worker listens on a socket that is not held, since " + f.Why + ": each worker has its own, and connections to it are lost in a reload. --listen ADDR passes it one that is held"
}

func (Started) fact()       {}
func (Listening) fact()     {}
func (Ready) fact()         {}
func (Leaving) fact()       {}
func (Requests) fact()      {}
func (Disconnected) fact()  {}
func (Overflow) fact()      {}
func (ProtocolError) fact() {}
func (Refused) fact()       {}
func (Blind) fact()         {}
func (Caller) fact()        {}
func (Unfiltered) fact()    {}
func (Own) fact()           {}
func (Unplaced) fact()      {}
func (Resumed) fact()       {}
func (Stranded) fact()      {}
func (Rescued) fact()       {}
func (NotRescued) fact()    {}
func (Lost) fact()          {}

// Drain is how a worker is told to finish. Each contract uses its own fields.
type Drain struct {
	Signal  unix.Signal
	Message string // for Node programs; "": none
}

// State is what the next master needs of a session, besides descriptors. Each contract
// uses its own fields.
type State struct {
	InFlight bool                // a descriptor is in flight to the worker, not acknowledged
	Bound    int                 // pid of the process that has bound, if it is not the leader
	Several  bool                // more than one process has bound, or the leader
	Ports    int                 // of port 0, chosen so far
	Promises []listeners.Promise // binds whose listen has not come
}

// ChosenPort is the reason of an [Own] whose port the kernel has chosen.
const ChosenPort = "the kernel chose its port"

// NamedByPID is the reason of an [Own] at a path.
const NamedByPID = "its name has the pid of the process"

// MaxLeases is how many addresses one worker may listen on.
const MaxLeases = 256

// MaxReports is how many errors of one kind are reported for one worker.
const MaxReports = 5

// Errno is the errno that a program gets for an error.
func Errno(err error) unix.Errno {
	var e unix.Errno
	if errors.As(err, &e) {
		return e
	}
	return unix.EINVAL
}
