package master

import "handoff/master/sequence"

// inbox holds what the loop has still to do.
type inbox struct {
	steps sequence.Steps
	mail  mailbox
}

// mailbox delivers events of goroutines to the loop.
type mailbox struct {
	events chan event    // never closed; posting ends with quit
	quit   chan struct{} // closed by Run when it returns
}

func newMailbox() mailbox { return mailbox{make(chan event, 64), make(chan struct{})} }

// post sends an event to the loop. After the loop's end it is dropped.
func (m mailbox) post(e event) {
	select {
	case m.events <- e:
	case <-m.quit:
	}
}

// offer is post without blocking; it reports whether there was room.
func (m mailbox) offer(e event) bool {
	select {
	case m.events <- e:
		return true
	default:
		return false
	}
}
