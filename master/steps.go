package master

// steps runs steps one after the other: the consequences of an action are queued, and run
// when the action's own step is complete, so that no step begins inside another. It
// belongs to the loop.
type steps struct {
	queue   []func()
	running bool
	atRest  func() // called once, when the queue is empty; may be nil
}

// do runs a step and its consequences; inside a step it only queues.
func (s *steps) do(step func()) {
	s.queue = append(s.queue, step)
	if s.running {
		return
	}
	s.running = true
	for len(s.queue) > 0 {
		next := s.queue[0]
		s.queue = s.queue[1:]
		next()
	}
	s.running = false
	if rest := s.atRest; rest != nil {
		s.atRest = nil
		rest()
	}
}

// pause queues all steps until resume.
func (s *steps) pause() { s.running = true }

// resume runs first, then the steps that were queued since pause.
func (s *steps) resume(first func()) {
	s.queue = append([]func(){first}, s.queue...)
	s.running = false
	s.do(func() {})
}

// inbox holds what the loop has still to do.
type inbox struct {
	steps steps
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
