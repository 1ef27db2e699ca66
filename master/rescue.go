package master

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/events"
	"handoff/internal/nodeipc"
	"handoff/master/fleet"
	"handoff/master/listeners"
)

// A connection that is queued at a socket nobody accepts from, because its
// worker died or a handshake took its time, is accepted here and handed to a
// live worker. The master keeps a duplicate until the worker says that it has
// the connection: a descriptor under way to a process that dies is lost.

// passed is a connection on its way to a worker.
type passed struct {
	address *listeners.Address
	fd      int // ours to close
	tries   int // workers that refused it
	until   time.Time
}

const (
	passedMost  = 32 // connections under way to one worker; the others wait in the kernel's queue
	refusalMost = 4
)

// rescue takes from the queue of a parked socket what live workers have room
// for. The rest waits there: for their answers, or for the worker that takes
// the socket.
func (m *Master) rescue(q listeners.Queue) {
	if m.cfg.Contract != NodeContract {
		m.relieve(q)
		return
	}
	q.Accept(m.room(q.Address())) // they come as listeners.Accepted
}

// accepted hands what was taken out of a queue to live workers.
func (m *Master) accepted(n listeners.Accepted) {
	a := n.Queue.Address()
	if n.Err != nil {
		m.log.Error("Cannot take a stranded connection: "+n.Err.Error(), "event", events.AddressRescued, "address", a.Name())
	}
	for _, fd := range n.FDs {
		m.pass(passed{address: a, fd: fd, until: time.Now().Add(m.grace())}, 0)
	}
	m.history.counters.Rescued += len(n.FDs)
	if len(n.FDs) > 0 {
		m.log.Info("Connections at a parked socket handed to live workers", "event", events.AddressRescued, "address", a.Name(), "connections", len(n.FDs))
	}
}

// room is how many connections the workers in service on an address have room for.
func (m *Master) room(a *listeners.Address) int {
	n := 0
	for _, id := range m.listeners.Targets() {
		if w := m.workers[fleet.ID(id)]; w != nil && m.rescues(w, a) {
			n += passedMost - len(w.passed)
		}
	}
	return n
}

// rescues tells whether a worker takes another connection of an address.
func (m *Master) rescues(w *worker, a *listeners.Address) bool {
	return !w.dead && w.channel != nil && a.Accepts(listeners.Worker(w.id)) && !w.channel.closed && len(w.passed) < passedMost
}

// relieve has a worker replaced, so that the next one takes a parked socket with
// connections in its queue: nobody but who holds the socket can accept them. It
// happens where a program has closed its listener of its own accord, and was
// replaced, while connections still came to it.
func (m *Master) relieve(q listeners.Queue) {
	if q.Len() == 0 {
		m.resteer() // which has the next one reported
		return
	}
	if !m.complete() || m.fleet.Stopping() || !q.Address().Steerable() {
		return // who starts next takes it
	}
	for _, id := range m.listeners.Targets() {
		if w := m.workers[fleet.ID(id)]; w != nil && w.slot == q.Slot() && !w.dead {
			m.log.Warn("Connections queued on a socket without a worker: the worker of the slot is replaced, the next one takes them",
				w.attrs(events.AddressStranded, "address", q.Address().Name())...)
			m.step(fleet.Leave{ID: w.id})
			return
		}
	}
}

// rescuer returns a worker in service on the address that has room, another one
// each time.
func (m *Master) rescuer(a *listeners.Address, but fleet.ID) *worker {
	targets := m.listeners.Targets()
	n := len(targets)
	for i := range n {
		id := targets[(m.seq+i)%n]
		w := m.workers[fleet.ID(id)]
		if w != nil && w.id != but && m.rescues(w, a) {
			return w
		}
	}
	return nil
}

// pass hands a connection to a worker, rather not to but. Where there is none,
// it waits for one.
func (m *Master) pass(p passed, but fleet.ID) {
	w := m.rescuer(p.address, but)
	if w == nil && but != 0 {
		w = m.rescuer(p.address, 0)
	}
	if p.tries > refusalMost {
		m.lose(p, "no worker takes it")
		return
	}
	if w == nil {
		m.waiting = append(m.waiting, p)
		return
	}
	theirs, err := unix.FcntlInt(uintptr(p.fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		m.lose(p, err.Error())
		return
	}
	m.seq++
	w.passed[m.seq] = p
	m.send(w, nodeipc.NewConn(p.address.Key(), m.seq), theirs)
}

func (m *Master) lose(p passed, why string) {
	m.history.counters.Stranded++
	unix.Close(p.fd)
	m.log.Error("A stranded connection is lost: "+why, "event", events.AddressStranded, "address", p.address.Name())
}

// answered: a worker says whether it has taken a connection.
func (m *Master) answered(w *worker, a nodeipc.Answered) {
	p, ok := w.passed[a.Ack]
	if !ok {
		return
	}
	delete(w.passed, a.Ack)
	if a.Accepted {
		unix.Close(p.fd)
	} else {
		p.tries++
		m.pass(p, w.id)
	}
	if len(w.passed) == passedMost/2 || len(w.passed) == 0 {
		m.passStranded()
		m.rescueAll(p.address)
	}
}

// rescueAll goes on with the parked sockets of an address.
func (m *Master) rescueAll(a *listeners.Address) {
	for _, q := range a.Queues() {
		m.rescue(q)
	}
}

// passAgain hands on what a dead worker had not answered for.
func (m *Master) passAgain(w *worker) {
	for seq, p := range w.passed {
		delete(w.passed, seq)
		m.pass(p, w.id)
	}
}

// passStranded tries again for those that wait.
func (m *Master) passStranded() {
	waiting := m.waiting
	m.waiting = nil
	for _, p := range waiting {
		m.pass(p, 0)
	}
}

// dropOverdue ends the wait of connections for which nobody has come.
func (m *Master) dropOverdue(now time.Time) {
	m.waiting = slices.DeleteFunc(m.waiting, func(p passed) bool {
		if now.Before(p.until) {
			return false
		}
		m.lose(p, "no worker came for it")
		return true
	})
}

// giveUpStranded: everything stops.
func (m *Master) giveUpStranded() {
	for _, p := range m.waiting {
		m.lose(p, "handoff stops")
	}
	m.waiting = nil
}
