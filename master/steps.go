package master

// steps does one thing after the other: what an action leads to is queued, and done when
// the action's own step is over, so that no step begins in the middle of another. It
// belongs to the loop.
type steps struct {
	queue   []func()
	running bool
	atRest  func() // is called once, when nothing is queued any more; nil: nothing is
}

// do does a step and all that it leads to; within a step it only queues.
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

// pause has steps only queued, until resume.
func (s *steps) pause() { s.running = true }

// resume does first, then what was queued since pause.
func (s *steps) resume(first func()) {
	s.queue = append([]func(){first}, s.queue...)
	s.running = false
	s.do(func() {})
}

// mailbox is how goroutines reach the loop.
type mailbox struct {
	events chan event    // never closed; posting ends with quit
	quit   chan struct{} // closed by Run when it returns
}

func newMailbox() mailbox { return mailbox{make(chan event, 64), make(chan struct{})} }

// post takes an event to the loop. After its end the event is dropped.
func (m mailbox) post(e event) {
	select {
	case m.events <- e:
	case <-m.quit:
	}
}

// offer is post for who must not wait; it tells whether there was room.
func (m mailbox) offer(e event) bool {
	select {
	case m.events <- e:
		return true
	default:
		return false
	}
}
