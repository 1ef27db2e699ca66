package sequence

// Steps runs steps one after the other: the consequences of an action are queued, and run
// when the action's own step is complete, so that no step begins inside another. It
// belongs to the loop.
type Steps struct {
	// AtRest is called once, when the queue is empty; nil: nothing is.
	AtRest func()

	queue   []func()
	running bool
}

// Do runs a step and its consequences; inside a step it only queues.
func (s *Steps) Do(step func()) {
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
	if rest := s.AtRest; rest != nil {
		s.AtRest = nil
		rest()
	}
}

// Pause queues all steps until Resume.
func (s *Steps) Pause() { s.running = true }

// Resume runs first, then the steps that were queued since Pause.
func (s *Steps) Resume(first func()) {
	s.queue = append([]func(){first}, s.queue...)
	s.running = false
	s.Do(func() {})
}
