// Package bind is the contract of programs that know nothing of handoff: the kernel
// intercepts their bind(2) and listen(2) (internal/bindintercept), which are answered
// here, with sockets of master/listeners, and a signal tells them to finish. Under
// activation they have their sockets from the start, and nothing is intercepted.
package bind

import (
	"errors"
	"maps"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/bindintercept"
	"handoff/internal/cmsg"
	"handoff/internal/keeper/fdstore"
	"handoff/internal/linux"
	"handoff/master/contract"
	"handoff/master/listeners"
)

// Contract is the contract of all workers of a master.
type Contract struct {
	host      contract.Host
	intercept bool
	keeper    int // pid
	sessions  map[listeners.Worker]*Session
	paths     paths
	aside     func(func()) // runs what may block, not in the loop
	waiting   []waiting    // calls that wait for another worker's promise, in order
	look      time.Time    // when they are looked at again
	later     []later      // UDP sockets that workers have bound while they served
}

// New returns the contract. intercept is false under activation.
func New(h contract.Host, intercept bool) *Contract {
	return &Contract{host: h, intercept: intercept, keeper: os.Getppid(), sessions: map[listeners.Worker]*Session{}, aside: func(f func()) { go f() }} // ends with the call
}

// Accepted and Retry are for connections that a contract has taken out of a queue. This
// contract cannot hand them to a worker, so it takes none. Seq numbers messages; it has none.
func (c *Contract) Accepted(listeners.Accepted) {}
func (c *Contract) Retry()                      {}
func (c *Contract) Seq() int                    { return 0 }

// Plan is a trampoline that sends its filter, if calls are intercepted.
func (c *Contract) Plan() contract.Plan {
	return contract.Plan{Channel: c.intercept, Filter: c.intercept, Survives: true}
}

// Start starts a session with a worker, whose trampoline sends its filter over pair. The
// session owns pair.
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

// Restore continues a session of the previous master, with the descriptors that it
// stored; take returns -1 for a missing one.
func (c *Contract) Restore(w contract.Worker, state contract.State, take func(what string) int) (contract.Session, error) {
	s := c.add(w)
	s.several, s.ports, s.restored = state.Several, state.Ports, true
	for _, p := range state.Promises {
		s.promises = append(s.promises, tcpPromise{p.Addr, p.V6Only, p.Inode, p.PID, p.FD, p.Alone, false})
	}
	if fd := take(fdstore.Bound); fd >= 0 {
		s.bound, _ = linux.NewPidfd(state.Bound, fd)
	}
	if fd := take(fdstore.Pair); fd >= 0 {
		unix.Close(fd) // the filter has arrived, or the worker is started again
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

// ids are the workers that have a session.
func (c *Contract) ids() []listeners.Worker { return slices.Sorted(maps.Keys(c.sessions)) }

func (c *Contract) add(w contract.Worker) *Session {
	s := &Session{Worker: w, contract: c}
	c.sessions[w.ID] = s
	if len(c.sessions) > 1 {
		c.paths.names.Several(time.Now().Add(startTogether))
	}
	return s
}

// Queued replaces a worker, so that the next one takes a socket that no worker accepts
// from, with the connections in its queue: only a process that has the socket can accept
// them. It happens if a program has closed its listener by itself, and was replaced,
// while connections still came to it.
func (c *Contract) Queued(q listeners.Queue) {
	if q.Len() == 0 {
		c.host.Steer() // so that the next one is reported
		return
	}
	if !c.host.Complete() || c.host.Stopping() || !q.Address().Steerable() {
		return // the next worker takes it
	}
	for _, id := range c.host.Listeners().Targets() {
		if s := c.sessions[id]; s != nil && s.Slot == q.Slot() && !s.dead {
			c.host.Report(id, contract.Stranded{Address: q.Address()})
			return
		}
	}
}

// Session is the session with one worker. Package contract says which goroutine calls
// what.
type Session struct {
	contract.Worker
	contract *Contract
	pair     *cmsg.Conn // its filter arrives here; Serve reads it
	open     bool       // the pair is closed
	listener *bindintercept.Listener
	restored bool
	unusable error // why a restored session has no listener
	dead     bool
	ended    bool

	bound   *linux.Pidfd // has bound an address, and is not the leader
	several bool         // more than one process has bound, or the leader
	ports   int          // of port 0, chosen so far: the index of the next one
	refused int

	listened bool                          // it is a server by now
	seats    map[uint64]*listeners.Address // by inode, of unix sockets that are bound as far as the program knows
	beside   map[uint64]madeBeside         // by inode, of those whose file is not at the path that they are bound to
	unlinked []*listeners.Address          // whose files it has removed as far as it knows
	places   []listeners.Place             // where it has listened

	promises []tcpPromise // in the order of their binds
}

// Values that Serve posts.
type (
	// filtered: the trampoline has installed the filter.
	filtered struct {
		listener *bindintercept.Listener
		stored   bool // the keeper has its descriptors
	}
	// unfiltered: it could not install it.
	unfiltered struct{ err error }
	// begun: nothing is intercepted, and the worker runs.
	begun struct{}
	// called: a call was intercepted.
	called struct {
		call    call
		at      time.Time // when it was received
		expired bool      // it has waited for as long as a call may
		waited  bool      // what was read of it is of before
		looks   int       // see closingLooks
	}
	// hidden: a call of a process that may not be inspected.
	hidden struct {
		err    error
		listen bool
	}
)

// call is an intercepted call: a [bindintercept.Call].
type call interface {
	About() bindintercept.Request
	Continue()
	Answer(unix.Errno)
	Give(held int) error
	Beside()
	Bind() unix.Errno
	BindAlone() unix.Errno
	Socket() (fd int, err error)
	Caller() (*linux.Pidfd, error)
	RemoveSource()
	Remove(then func())
	LinkInstead()
	BindBeside(name string, then func(bindintercept.Beside))
	MoveBeside(name string, then func(bindintercept.Beside))
	Folder() int
}

// Serve receives the filter from a worker's trampoline, and posts the intercepted calls
// until no process of the worker is left.
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
	l.Concern(&s.contract.paths.names)
	n := 0
	for {
		c, err := l.Receive(func(r bindintercept.Request, err error) {
			if n++; n <= contract.MaxReports {
				s.Post(hidden{err, r.Listen})
			}
		})
		if err != nil {
			return
		}
		s.Post(called{call: c, at: time.Now()})
	}
}

// receive reads the trampoline's message. It returns nil if there is no filter.
func (s *Session) receive() (l *bindintercept.Listener, stored bool) {
	filter, refused, err := bindintercept.ReadFilter(s.pair)
	if err != nil {
		return nil, false // the worker died before
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
	// Before anything is answered: a call would hang if no master knew of it.
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
		s.called(e)
		s.contract.review(e.at)
	case madeBeside:
		s.besides(e)
		s.contract.review(time.Now())
	case removed:
		s.contract.endRemoval(s, e.place)
		s.contract.review(time.Now())
	case hidden:
		s.report(contract.ProtocolError{Reason: "bind or listen by a process that handoff may not inspect: " + e.err.Error() + ". Its socket is not held: run handoff as root (CAP_SYS_PTRACE), or give the socket with --listen"})
		if e.listen { // on which socket, nobody can say: else it would never be ready
			s.report(contract.Listening{Own: true})
		}
	case filtered:
		s.closePair()
		if s.listener = e.listener; !e.stored {
			e.listener.Descriptors(func(filter, pending int) {
				s.Store(fdstore.Filter, filter)
				s.Store(fdstore.Calls, pending)
			})
		}
		s.pair.Close() // its only message has arrived
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
		return s.bound.TrySignal(d.Signal)
	}
	return s.Process.TrySignal(d.Signal)
}

// Terminate sends SIGTERM to the process that serves for the worker, if it is not the
// leader. The loop signals the leader.
func (s *Session) Terminate() error {
	if s.bound == nil {
		return nil
	}
	return s.bound.TrySignal(unix.SIGTERM)
}

// Died: the worker's process has died.
func (s *Session) Died() { s.dead = true }

// End ends the session: the worker has exited. Processes that it leaves behind bind
// sockets of their own, and are reported.
func (s *Session) End() {
	s.dead, s.ended = true, true
	s.contract.forget(s)
	s.contract.forgetLater(s)
	delete(s.contract.sessions, s.ID)
	s.endPaths()
	s.dropBound()
	s.closePair()
}

// closePair closes the socketpair: no more messages follow.
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

// Busy reports whether Serve waits for another process than the worker.
func (s *Session) Busy() bool { return false }

// State returns what the next master must know.
func (s *Session) State() contract.State {
	state := contract.State{Several: s.several, Ports: s.ports}
	for _, p := range s.promises {
		state.Promises = append(state.Promises, listeners.Promise{Addr: p.at, V6Only: p.v6only, Inode: p.inode, PID: p.pid, FD: p.fd, Alone: p.alone})
	}
	if s.bound != nil {
		state.Bound = s.bound.PID()
	}
	return state
}

// Kept calls each for each descriptor that the next master needs.
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
