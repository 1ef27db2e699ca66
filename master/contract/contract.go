// Package contract is what the loop and the contracts say to each other. A contract is
// how workers get their sockets, and how they are told to finish:
//
//	node  the master is the primary of Node's cluster module
//	bind  bind(2) and listen(2) of any program are answered by the master, or, for
//	      activation, nothing is: it has listeners from its start
//
// A contract has a session for each worker, with two halves: Serve reads what the
// worker says, in a goroutine of its own, and posts it; everything else is called by
// the loop, and nothing of it blocks. A session reaches the loop through its [Host]
// alone.
package contract

import (
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
	"handoff/master/listeners"
)

// Worker is who a session speaks with. What it points to stays the loop's.
type Worker struct {
	ID      listeners.Worker
	Slot    int
	PID     int
	Gen     int
	Process *linux.Pidfd
	Dir     string // its working directory
	// Post has the loop call the session's Handle with that; from any goroutine. It
	// may be dropped when the loop ends.
	Post func(what any)
	// Store has the keeper hold a duplicate of a descriptor of the worker's, for the
	// next master; from any goroutine. Its names are those of package fdstore.
	Store func(what string, fd int) error
}

// Plan is what workers of a contract are started with, and how their end is seen.
type Plan struct {
	// Channel: a worker has the other end of its session's socketpair, as its first
	// descriptor behind the listeners that it is given.
	Channel bool
	// Filter: its trampoline sends the filter of bind(2) over that.
	Filter bool
	// Env adds to its environment; channel is that descriptor. May be nil.
	Env func(id listeners.Worker, channel int) []string
	// Survives: it goes on without a master. Where keeper and master have died it is
	// looked for, and what it leaves behind in its process group is ended with it.
	Survives bool
}

// Host is the loop, as a session sees it. It is called by the loop's goroutine alone.
type Host interface {
	// Listeners is the table from which workers get their sockets.
	Listeners() *listeners.Table
	// Steer puts into effect what has changed of who listens on what.
	Steer()
	// Tell takes a fact about a worker.
	Report(id listeners.Worker, f Fact)
	// Complete tells whether every slot is served and nobody starts; Stopping, whether
	// everything ends.
	Complete() bool
	Stopping() bool
	// Grace is how long a connection waits for a worker.
	Grace() time.Duration
	// Hold tells whether a TCP address that a program binds is to be held.
	Hold(netip.AddrPort) bool
}

// Session is what a contract says to one worker.
//
//	Serve      runs in a goroutine of its own, to the end of what the worker says
//	Handle     what Serve has posted; so, like all that follow, by the loop
//	Drain      the worker is to finish
//	Terminate  it has not, and its leader gets SIGTERM: so do others that serve for it
//	Died       its process is dead; its last words are still handled
//	End        they have been
type Session interface {
	Serve()
	Handle(what any)
	Drain(Drain) error
	Terminate() error
	Died()
	End()
	// Busy tells whether Serve waits for somebody else than the worker; from any
	// goroutine.
	Busy() bool
	// State and Kept are what the next master needs: facts, and descriptors, which
	// stay the session's.
	State() State
	Kept(each func(what string, fd int))
}

// Fact is something that a contract has found out: one of the types below.
type Fact interface{ fact() }

type (
	// Started: the program has booted.
	Started struct{}
	// Listening: it accepts on one address more.
	Listening struct{}
	// Ready: it says that it is.
	Ready struct{}
	// Leaving: it wants to be replaced.
	Leaving struct{}
	// Requests: it has served N since its start.
	Requests struct{ N int }
	// Disconnected: it has closed its channel, and so has drained.
	Disconnected struct{}
	// Overflow: it does not read its messages, and is to be killed.
	Overflow struct{ Err error }
	// ProtocolError: something that it said was dropped. A few are told for each worker.
	ProtocolError struct{ Reason string }
	// Refused: it was not given a socket. A few are told for each worker.
	Refused struct {
		Endpoint listeners.Endpoint
		Err      error
	}
	// Unfiltered: the kernel refuses to intercept its bind(2).
	Unfiltered struct{ Err error }
	// Unplaced: a socket could not be put in the place of the worker's own, which it
	// keeps.
	Unplaced struct {
		Address *listeners.Address
		Err     error
	}
	// Resumed: a bind(2) that the master before had not answered is answered.
	Resumed struct{ Address *listeners.Address }
	// Stranded: connections are queued at a socket that no worker accepts from; the
	// next worker of the slot would take it.
	Stranded struct{ Address *listeners.Address }
	// Rescued: so many were handed to other workers; of no worker in particular, like
	// those that follow.
	Rescued struct {
		Address *listeners.Address
		N       int
	}
	// NotRescued: they could not be.
	NotRescued struct {
		Address *listeners.Address
		Err     error
	}
	// Lost: one connection of them is closed unanswered.
	Lost struct {
		Address *listeners.Address
		Reason  string
	}
)

func (Started) fact()       {}
func (Listening) fact()     {}
func (Ready) fact()         {}
func (Leaving) fact()       {}
func (Requests) fact()      {}
func (Disconnected) fact()  {}
func (Overflow) fact()      {}
func (ProtocolError) fact() {}
func (Refused) fact()       {}
func (Unfiltered) fact()    {}
func (Unplaced) fact()      {}
func (Resumed) fact()       {}
func (Stranded) fact()      {}
func (Rescued) fact()       {}
func (NotRescued) fact()    {}
func (Lost) fact()          {}

// Drain is how a worker is told to finish: each contract takes its own of it.
type Drain struct {
	Signal  unix.Signal
	Message string // for Node programs; "": none
}

// State is what the next master must know of a session, besides descriptors. Each
// contract uses its own of it.
type State struct {
	InFlight bool // a descriptor is under way to the worker, not acknowledged
	Bound    int  // pid of the process that has bound, if that is not the leader
	Several  bool // more than one process has bound, or the leader
	Ports    int  // of the worker's own choice that it has got
}

// MaxLeases is how many addresses one worker may listen on.
const MaxLeases = 256

// MaxReports is how many errors of one kind are told of one worker.
const MaxReports = 5

// Errno is what a program is told of an error.
func Errno(err error) unix.Errno {
	var e unix.Errno
	if errors.As(err, &e) {
		return e
	}
	return unix.EINVAL
}

// Signal sends a signal to a process; one that is dead is no error.
func Signal(p *linux.Pidfd, s unix.Signal) error {
	if err := p.Signal(s); err != unix.ESRCH {
		return err
	}
	return nil
}
