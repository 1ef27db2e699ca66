package master

import (
	"os"

	"handoff/internal/nodeipc"
	"handoff/master/fleet"
)

// event is what goroutines post to the loop: one of the types below.
type event interface{ event() }

type (
	// signalled: handoff itself got a signal.
	signalled struct{ signal os.Signal }
	// said: a worker sent a message. The descriptors that came with it are
	// the loop's to close.
	said struct {
		id      fleet.ID
		message nodeipc.Message
		fds     []int
	}
	// garbled: a worker sent lines that were dropped.
	garbled struct {
		id     fleet.ID
		reason string
	}
	// hungUp: a worker closed its channel.
	hungUp struct{ id fleet.ID }
	// died: a worker's process is dead. Its last words are still read.
	died struct{ id fleet.ID }
	// ended: they have been; it is not reaped yet.
	ended struct{ id fleet.ID }
	// stirred: the watch has something to collect.
	stirred struct{}
)

func (signalled) event() {}
func (said) event()      {}
func (garbled) event()   {}
func (hungUp) event()    {}
func (died) event()      {}
func (ended) event()     {}
func (stirred) event()   {}
