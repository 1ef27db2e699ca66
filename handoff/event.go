package handoff

// Event is something that has happened to a socket of a watch: one of the types below.
type Event interface{ event() }

type (
	// Repaired: a holder has done something to a socket that it shares with its owner,
	// as What says. It is undone.
	Repaired struct {
		Group  *Group
		Socket *Socket
		What   string // "shutdown(2) on the listening socket"
	}
	// Detached: a socket could not be repaired. It is closed, and no longer of the
	// group; whoever holds a duplicate has to be replaced.
	Detached struct {
		Group  *Group
		Socket *Socket
		Err    error
	}
	// Queued: connections have come to a parked socket, from which nobody accepts.
	// They wait for who takes it next, or for [Socket.Accept]. It is reported once,
	// and again when some of that has happened, or after the next [Group.Steer].
	Queued struct {
		Group  *Group
		Socket *Socket
	}
	// Accepted: what [Socket.Accept] has taken out of a queue. The descriptors are the
	// receiver's, non-blocking and close-on-exec.
	Accepted struct {
		Group  *Group
		Socket *Socket
		FDs    []int
		Err    error // why it has ended early
	}
	// Failed: an error of which nothing follows but that things may not be as they
	// should.
	Failed struct {
		Group *Group
		Err   error
	}
)

func (Repaired) event() {}
func (Detached) event() {}
func (Queued) event()   {}
func (Accepted) event() {}
func (Failed) event()   {}
