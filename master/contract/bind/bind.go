// Package bind is the contract of programs that know nothing of handoff: their
// bind(2) and listen(2) are stopped by the kernel (internal/bindintercept) and
// answered here, with sockets of master/listeners, and a signal tells them to finish.
// Under activation they have their sockets from the start, and nothing is stopped.
package bind

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/bindintercept"
	"handoff/internal/cmsg"
	"handoff/internal/keeper/fdstore"
	"handoff/internal/linux"
	"handoff/master/contract"
	"handoff/master/listeners"
)

// Contract is that of all workers of a master.
type Contract struct {
	host      contract.Host
	intercept bool
	sessions  map[listeners.Worker]*Session
}

// New returns the contract. intercept is false under activation: no call is stopped.
func New(h contract.Host, intercept bool) *Contract {
	return &Contract{host: h, intercept: intercept, sessions: map[listeners.Worker]*Session{}}
}

// Accepted, Retry, Deadline, Tick and GiveUp are for connections that a contract has
// taken out of a queue: this one cannot hand them to a worker, and so takes none. Seq
// numbers messages, of which it has none.
func (c *Contract) Accepted(listeners.Accepted) {}
func (c *Contract) Retry()                      {}
func (c *Contract) Deadline() time.Time         { return time.Time{} }
func (c *Contract) Tick(time.Time)              {}
func (c *Contract) GiveUp()                     {}
func (c *Contract) Seq() int                    { return 0 }

// Plan is a trampoline that sends its filter, if calls are intercepted.
func (c *Contract) Plan() contract.Plan {
	return contract.Plan{Channel: c.intercept, Filter: c.intercept, Survives: true}
}

// Start begins a session with a worker, whose trampoline sends its filter over pair.
// The session owns pair.
func (c *Contract) Start(w contract.Worker, pair *cmsg.Conn) contract.Session {
	s := c.add(w)
	switch {
	case pair == nil:
	case c.intercept:
		s.pair, s.open = pair, true
	default:
		pair.Close()
	}
	return s
}

// Restore goes on with the session of a master before, with what that has had kept;
// take returns -1 for what it has not.
func (c *Contract) Restore(w contract.Worker, state contract.State, take func(what string) int) (contract.Session, error) {
	s := c.add(w)
	s.several, s.ports, s.restored = state.Several, state.Ports, true
	if fd := take(fdstore.Bound); fd >= 0 {
		s.bound, _ = linux.NewPidfd(state.Bound, fd)
	}
	if fd := take(fdstore.Pair); fd >= 0 {
		unix.Close(fd) // the filter has come, or the worker is started again
	}
	filter, pending := take(fdstore.Filter), take(fdstore.Calls)
	if filter >= 0 && pending >= 0 {
		if s.listener, s.unusable = bindintercept.NewListener(filter, pending); s.unusable != nil {
			s.listener = nil
		}
		return s, nil
	}
	for _, fd := range []int{filter, pending} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	return s, nil
}

func (c *Contract) add(w contract.Worker) *Session {
	s := &Session{Worker: w, contract: c}
	c.sessions[w.ID] = s
	return s
}

// Queued has a worker replaced, so that the next one takes a socket that no worker
// accepts from, with the connections in its queue: nobody but who holds it can accept
// them. It happens where a program has closed its listener of its own accord, and was
// replaced, while connections still came to it.
func (c *Contract) Queued(q listeners.Queue) {
	if q.Len() == 0 {
		c.host.Steer() // which has the next one reported
		return
	}
	if !c.host.Complete() || c.host.Stopping() || !q.Address().Steerable() {
		return // who starts next takes it
	}
	for _, id := range c.host.Listeners().Targets() {
		if s := c.sessions[id]; s != nil && s.Slot == q.Slot() && !s.dead {
			c.host.Report(id, contract.Stranded{Address: q.Address()})
			return
		}
	}
}

// Session is with one worker. See package contract for who may call what.
type Session struct {
	contract.Worker
	contract *Contract
	pair     *cmsg.Conn // over which its filter comes; Serve reads it
	open     bool       // the pair is
	listener *bindintercept.Listener
	restored bool
	unusable error // why there is no listener, of a session that was restored
	dead     bool
	ended    bool

	bound   *linux.Pidfd // has bound an address, where that is not the leader
	several bool         // more than one process has, or the leader
	ports   int          // of its own choice that it has got: the next one is the next index
	refused int
}

// What Serve posts.
type (
	// filtered: the trampoline has installed the filter.
	filtered struct {
		listener *bindintercept.Listener
		stored   bool // the keeper has its descriptors
	}
	// unfiltered: it could not.
	unfiltered struct{ err error }
	// begun: nothing is stopped, and the worker runs.
	begun struct{}
	// called: a call is stopped.
	called struct{ call call }
	// hidden: one of a process that may not be inspected.
	hidden struct{ err error }
)

// call is a stopped bind or listen: what [bindintercept.Call] is.
type call interface {
	About() bindintercept.Request
	Continue()
	Answer(unix.Errno)
	Give(held int) error
	Socket() (fd int, err error)
	Caller() (*linux.Pidfd, error)
}

// Serve takes the filter from a worker's trampoline, and posts the calls that stop at
// it, until no process of the worker is left.
func (s *Session) Serve() {
	if s.unusable != nil {
		s.Post(unfiltered{s.unusable})
	}
	l := s.listener
	if l == nil {
		switch {
		case s.restored:
			return
		case s.pair == nil:
			s.Post(begun{})
			return
		}
		var stored bool
		if l, stored = s.receive(); l == nil {
			return
		}
		s.Post(filtered{l, stored})
	}
	defer l.Close()
	n := 0
	for {
		c, err := l.Receive(func(pid int, err error) {
			if n++; n <= contract.MaxReports {
				s.Post(hidden{err})
			}
		})
		if err != nil {
			return
		}
		s.Post(called{c})
	}
}

// receive reads what the trampoline sends. It returns nil where there is no filter.
func (s *Session) receive() (l *bindintercept.Listener, stored bool) {
	filter, refused, err := bindintercept.ReadFilter(s.pair)
	if err != nil {
		return nil, false // it died before
	}
	if refused != 0 {
		s.Post(unfiltered{refused})
		return nil, false
	}
	pending, err := bindintercept.NewPendingCalls()
	if err != nil {
		unix.Close(filter)
		s.Post(unfiltered{err})
		return nil, false
	}
	// Before anything is answered: a call that no master knows of hangs for ever.
	stored = errors.Join(s.Store(fdstore.Filter, filter), s.Store(fdstore.Calls, pending)) == nil
	if l, err = bindintercept.NewListener(filter, pending); err != nil {
		s.Post(unfiltered{err})
	}
	return l, stored
}

// Handle takes what Serve has posted.
func (s *Session) Handle(what any) {
	switch e := what.(type) {
	case called:
		s.called(e.call)
	case hidden:
		s.report(contract.ProtocolError{Reason: "bind or listen by a process that handoff may not inspect (its socket is not held): " + e.err.Error()})
	case filtered:
		s.closePair()
		if s.listener = e.listener; !e.stored {
			e.listener.Descriptors(func(filter, pending int) {
				s.Store(fdstore.Filter, filter)
				s.Store(fdstore.Calls, pending)
			})
		}
		s.pair.Close() // its one message has come
		s.pair = nil
		s.report(contract.Started{})
	case begun:
		s.report(contract.Started{})
	case unfiltered:
		s.closePair()
		s.report(contract.Unfiltered{Err: e.err})
		s.report(contract.Started{})
	}
}

func (s *Session) report(f contract.Fact) {
	if !s.ended {
		s.contract.host.Report(s.ID, f)
	}
}

// Drain sends a signal to the worker, or to the process that serves for it.
func (s *Session) Drain(d contract.Drain) error {
	if s.bound != nil {
		return contract.Signal(s.bound, d.Signal)
	}
	return contract.Signal(s.Process, d.Signal)
}

// Terminate sends SIGTERM to the process that serves for the worker, if it is another
// than the leader, which the loop signals.
func (s *Session) Terminate() error {
	if s.bound == nil {
		return nil
	}
	return contract.Signal(s.bound, unix.SIGTERM)
}

// Died says that the worker's process has.
func (s *Session) Died() { s.dead = true }

// End ends the session: the worker is gone. What it has left behind binds for itself.
func (s *Session) End() {
	s.dead, s.ended = true, true
	delete(s.contract.sessions, s.ID)
	s.dropBound()
	s.closePair()
}

// closePair closes the socketpair, over which nothing more comes.
func (s *Session) closePair() {
	if s.open {
		s.open = false
		s.pair.Close()
	}
}

func (s *Session) dropBound() {
	if s.bound != nil {
		s.bound.Close()
		s.bound = nil
	}
}

// Busy tells whether Serve waits for somebody else than the worker.
func (s *Session) Busy() bool { return false }

// State returns what the next master must know.
func (s *Session) State() contract.State {
	state := contract.State{Several: s.several, Ports: s.ports}
	if s.bound != nil {
		state.Bound = s.bound.PID()
	}
	return state
}

// Kept passes on each descriptor that the next master needs.
func (s *Session) Kept(each func(what string, fd int)) {
	if s.open {
		each(fdstore.Pair, s.pair.FD())
	}
	if s.listener != nil {
		s.listener.Descriptors(func(filter, pending int) {
			each(fdstore.Filter, filter)
			each(fdstore.Calls, pending)
		})
	}
	if s.bound != nil {
		each(fdstore.Bound, s.bound.FD())
	}
}
