package handoff

// Event is an event of a socket of a watch: one of the types below.
type Event interface{ event() }

type (
	// Repaired: a holder changed a socket that it shares with its owner, and the change
	// was undone. What describes it.
	Repaired struct {
		Group  *Group
		Socket *Socket
		What   string // "called shutdown(2) on the listening socket"
	}
	// Detached: a socket could not be repaired. It is closed and no longer in the group.
	// A worker that has a duplicate must be replaced.
	Detached struct {
		Group  *Group
		Socket *Socket
		Err    error
	}
	// Renewed: a parked socket that a worker has had was replaced, in its place.
	Renewed struct {
		Group  *Group
		Socket *Socket // which is closed
	}
	// Queued: connections were queued at a parked socket. They wait for the next worker
	// that takes the socket, or for [Socket.Accept]. It is reported once, and again after
	// an Accept or the next [Group.Steer].
	Queued struct {
		Group  *Group
		Socket *Socket
	}
	// Accepted: the connections that [Socket.Accept] has taken out of a queue. The
	// receiver owns the descriptors, which are non-blocking and close-on-exec.
	Accepted struct {
		Group  *Group
		Socket *Socket
		FDs    []int
		Err    error // why Accept ended early
	}
	// Stranger: a socket of a program that is none of the owner's has joined the group, or
	// has left it. No connections are steered to it.
	Stranger struct {
		Group *Group
		Inode uint64
		Left  bool
	}
	// Failed: an operation on a group's sockets failed. It has no consequence besides.
	Failed struct {
		Group *Group
		Err   error
	}
)

func (Repaired) event() {}
func (Detached) event() {}
func (Renewed) event()  {}
func (Queued) event()   {}
func (Accepted) event() {}
func (Stranger) event() {}
func (Failed) event()   {}
