package listeners

import (
	"fmt"
	"strings"
	"time"
)

// Notice is an event of the table: one of the types below.
type Notice interface{ notice() }

type (
	// Violation: a worker, 0 if unknown, has changed its socket in a way that is not
	// allowed. The change was undone.
	Violation struct {
		Address *Address
		Worker  Worker
		What    string // "called shutdown(2) on the listening socket"
	}
	// Detached: the socket of a worker could not be repaired, and is closed. The worker
	// must be replaced.
	Detached struct {
		Address *Address
		Worker  Worker
	}
	// Stranger: another program has joined the address with SO_REUSEPORT, or has left it.
	// It gets no connections.
	Stranger struct {
		Address *Address
		Who     []string // "nginx (pid 12)"; none where it cannot be seen
		Left    bool
	}
	// Queued: a connection was queued at a parked socket.
	Queued struct{ Queue Queue }
	// Accepted: the connections that [Queue.Accept] has taken out of a queue. The
	// receiver owns the descriptors.
	Accepted struct {
		Queue Queue
		FDs   []int
		Err   error // why Accept ended early
	}
	// Unused: an address has had no lease for a while. [Table.CloseUnused] closes it;
	// else it is reported again later.
	Unused struct{ Address *Address }
	// Quiet: no connection can reach a retiring worker any more.
	Quiet struct{ Worker Worker }
	// Stalled: a worker in service accepts nothing, while others do. New connections go
	// to those now.
	Stalled struct{ Worker Worker }
	// Recovered: a stalled worker accepts again.
	Recovered struct {
		Worker Worker
		After  time.Duration
	}
	// StallTimeout: a worker has been stalled for a multiple of the configured time.
	StallTimeout struct {
		Worker Worker
		After  time.Duration // the configured time
	}
	// Waited: connections of an address had to wait for the next worker, N of them at least;
	// 0: perhaps none did, or they are not counted.
	Waited struct {
		Address *Address
		For     time.Duration
		N       int
	}
	// Unsteerable: the kernel does not support the steering program for an address, of
	// which a worker has a lease.
	Unsteerable struct{ Address *Address }
	// OneSocket: no other socket can join a service manager's, so all workers share it.
	OneSocket struct{ Why error }
	// Failed is an error that can only be reported.
	Failed struct{ Err error }
)

func (Stranger) notice()     {}
func (Violation) notice()    {}
func (Detached) notice()     {}
func (Queued) notice()       {}
func (Accepted) notice()     {}
func (Unused) notice()       {}
func (Quiet) notice()        {}
func (Stalled) notice()      {}
func (Recovered) notice()    {}
func (StallTimeout) notice() {}
func (Waited) notice()       {}
func (Unsteerable) notice()  {}
func (OneSocket) notice()    {}
func (Failed) notice()       {}

// Notices returns the notices since the last call, in order.
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

func (n Waited) String() string {
	if n.Address != nil && n.Address.group == nil { // how many, only the kernel knows
		return fmt.Sprintf("No worker accepted for %v; connections waited", n.For.Round(time.Millisecond))
	}
	if n.N == 0 {
		return fmt.Sprintf("No worker accepted for %v; no connection was found waiting", n.For.Round(time.Millisecond))
	}
	return fmt.Sprintf("%d connections waited for the next worker, up to %v", n.N, n.For.Round(time.Millisecond))
}

func (n Stranger) String() string {
	if n.Left {
		return "The other program no longer listens"
	}
	who := "a process that handoff may not inspect"
	if len(n.Who) > 0 {
		who = strings.Join(n.Who, ", ")
	}
	return "Another program has joined the address with SO_REUSEPORT: " + who + ". It gets no connections; if it is a second copy that was started by hand, stop it"
}
