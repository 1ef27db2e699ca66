// Package node is the contract of Node programs: the master is the primary of Node's
// cluster module. internal/nodeipc implements the messages.
package node

import (
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/cmsg"
	"handoff/internal/keeper/fdstore"
	"handoff/internal/nodeipc"
	"handoff/master/contract"
	"handoff/master/listeners"
)

// Primary is the contract of all workers of a master, and owns the connections that are
// passed from one worker to another.
//
// A connection that is queued at a parked socket, because its worker died or its
// handshake was slow, is accepted here and handed to a live worker. The master keeps a
// duplicate until the worker acknowledges the connection: a descriptor in flight to a
// process that dies is lost.
//
//	Queued ──accept──► pass ──► handed to a worker ──accepted──► closed here
//	                    ▲ │            │
//	                    │ └─► waiting  │ refused, or the worker is gone
//	                    └──────────────┘
type Primary struct {
	host     contract.Host
	record   func(line []byte, wait bool)
	sessions map[listeners.Worker]*Session
	seq      int // of the messages to workers
	waiting  []pending
}

// pending is a connection that is being handed to a worker.
type pending struct {
	address *listeners.Address
	fd      int // owned here
	tries   int // workers that refused it
	until   time.Time
}

const (
	maxHanded   = 32 // connections handed to one worker and not answered; the others wait in the kernel's queue
	maxRefusals = 4
)

// New returns the contract. seq is the number of the last message that the previous
// master has sent. record records a worker event, a line of JSON, from any goroutine.
// With wait it may block, and then the worker waits; nil: events are not recorded.
func New(h contract.Host, seq int, record func(line []byte, wait bool)) *Primary {
	return &Primary{host: h, record: record, sessions: map[listeners.Worker]*Session{}, seq: seq}
}

// Plan has a channel, which Node finds in its environment. A Node program exits when the
// channel closes.
func (p *Primary) Plan() contract.Plan {
	return contract.Plan{Channel: true, Env: func(id listeners.Worker, channel int) []string {
		return []string{nodeipc.EnvChannel + "=" + strconv.Itoa(channel), nodeipc.EnvSerialization + "=json", nodeipc.EnvUniqueID + "=" + strconv.Itoa(int(id))}
	}}
}

// Start starts a session with a worker at the other end of conn, which the session owns.
func (p *Primary) Start(w contract.Worker, conn *cmsg.Conn) contract.Session {
	return p.start(w, conn)
}

func (p *Primary) start(w contract.Worker, conn *cmsg.Conn) *Session {
	s := &Session{Worker: w, primary: p, conn: conn, handed: map[int]pending{}}
	if conn != nil {
		s.queue = newQueue(conn)
	}
	p.sessions[w.ID] = s
	return s
}

// Restore continues a session of the previous master, with the descriptors that it
// stored; take returns -1 for a missing one.
func (p *Primary) Restore(w contract.Worker, state contract.State, take func(what string) int) (contract.Session, error) {
	var conn *cmsg.Conn
	if fd := take(fdstore.Pair); fd >= 0 {
		var err error
		if conn, err = cmsg.Open(fd); err != nil {
			return nil, err
		}
	}
	s := p.start(w, conn)
	if conn != nil && state.InFlight {
		s.queue.restore()
	}
	return s, nil
}

// Seq is the number of the last message.
func (p *Primary) Seq() int { return p.seq }

func (p *Primary) next() int {
	p.seq++
	return p.seq
}

// Queued takes as many connections from the queue of a parked socket as live workers have
// room for: they arrive as a [listeners.Accepted]. The others stay in the queue, until
// workers have answered, or for the worker that takes the socket.
func (p *Primary) Queued(q listeners.Queue) { q.Accept(p.room(q.Address())) }

// Accepted hands connections from a queue to live workers.
func (p *Primary) Accepted(n listeners.Accepted) {
	a := n.Queue.Address()
	if n.Err != nil {
		p.host.Report(0, contract.NotRescued{Address: a, Err: n.Err})
	}
	for _, fd := range n.FDs {
		p.pass(pending{address: a, fd: fd, until: time.Now().Add(p.host.Grace())}, 0)
	}
	if len(n.FDs) > 0 {
		p.host.Report(0, contract.Rescued{Address: a, N: len(n.FDs)})
	}
}

// room is how many connections the workers in service on an address have room for.
func (p *Primary) room(a *listeners.Address) int {
	n := 0
	for _, id := range p.host.Listeners().Targets() {
		if s := p.sessions[id]; s != nil && s.takes(a) {
			n += maxHanded - len(s.handed)
		}
	}
	return n
}

// takes reports whether a worker can take another connection of an address.
func (s *Session) takes(a *listeners.Address) bool {
	return !s.dead && s.queue != nil && !s.queue.closed && a.Accepts(s.ID) && len(s.handed) < maxHanded
}

// taker returns the session of a worker that is in service on the address and has room, a
// different one each time.
func (p *Primary) taker(a *listeners.Address, except listeners.Worker) *Session {
	targets := p.host.Listeners().Targets()
	n := len(targets)
	for i := range n {
		id := targets[(p.seq+i)%n]
		if s := p.sessions[id]; s != nil && id != except && s.takes(a) {
			return s
		}
	}
	return nil
}

// pass hands a connection to a worker, preferably not to except. If there is none, the
// connection waits for one.
func (p *Primary) pass(c pending, except listeners.Worker) {
	if c.tries > maxRefusals {
		p.lose(c, "no worker accepted it")
		return
	}
	s := p.taker(c.address, except)
	if s == nil && except != 0 {
		s = p.taker(c.address, 0)
	}
	if s == nil {
		p.waiting = append(p.waiting, c)
		return
	}
	theirs, err := unix.FcntlInt(uintptr(c.fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		p.lose(c, err.Error())
		return
	}
	seq := p.next()
	s.handed[seq] = c
	s.send(nodeipc.NewConn(c.address.Key(), seq), theirs)
}

// lose closes a connection. No other process has it, but its SO_LINGER is what a worker
// has set on the listening socket.
func (p *Primary) lose(c pending, why string) {
	unix.SetsockoptLinger(c.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{})
	go unix.Close(c.fd) // closes immediately, unless a worker has refused and kept it
	p.host.Report(0, contract.Lost{Address: c.address, Reason: why})
}

// answered: the worker has accepted or refused a connection.
func (s *Session) answered(a nodeipc.Answered) {
	c, ok := s.handed[a.Ack]
	if !ok {
		return
	}
	delete(s.handed, a.Ack)
	if a.Accepted {
		s.overflow(s.queue.discardLater(c.fd))
	} else {
		c.tries++
		s.primary.pass(c, s.ID)
	}
	if len(s.handed) == maxHanded/2 || len(s.handed) == 0 {
		s.primary.Retry()
		for _, q := range c.address.Queues() {
			s.primary.Queued(q)
		}
	}
}

// Retry finds workers for waiting connections. It is called when a worker listens, or the
// steering changes.
func (p *Primary) Retry() {
	waiting := p.waiting
	p.waiting = nil
	for _, c := range waiting {
		p.pass(c, 0)
	}
}

// Deadline is when Tick must be called; zero: not by time.
func (p *Primary) Deadline() (next time.Time) {
	for _, c := range p.waiting {
		if next.IsZero() || c.until.Before(next) {
			next = c.until
		}
	}
	return next
}

// Tick closes the connections that have waited too long.
func (p *Primary) Tick(now time.Time) {
	p.waiting = slices.DeleteFunc(p.waiting, func(c pending) bool {
		if now.Before(c.until) {
			return false
		}
		p.lose(c, "no worker asked for it in time")
		return true
	})
}

// GiveUp closes the waiting connections: the service stops.
func (p *Primary) GiveUp() {
	for _, c := range p.waiting {
		p.lose(c, "the service is stopping")
	}
	p.waiting = nil
}
