package master

import (
	"golang.org/x/sys/unix"

	"handoff/handoff"
	"handoff/internal/nodeipc"
	"handoff/master/fleet"
)

// A connection that is queued at a socket nobody accepts from, because its
// worker died or a handshake took its time, is accepted here and handed to a
// live worker. The master keeps a duplicate until the worker says that it has
// the connection: a descriptor under way to a process that dies is lost.

// passed is a connection on its way to a worker.
type passed struct {
	address *address
	fd      int // ours to close
	tries   int
}

const (
	rescueTries = 4
	rescueMost  = 256 // connections in one turn of the loop
)

// rescue empties the queue of a parked socket, if there is somebody to serve
// it; else it waits for the worker that takes the socket.
func (m *Master) rescue(a *address, s *handoff.Socket) {
	n := 0
	for ; n < rescueMost && m.rescuer(a, 0) != nil; n++ {
		fd, err := s.Accept()
		if err == unix.EAGAIN {
			break
		}
		if err != nil {
			m.log.Error("Cannot take a stranded connection: "+err.Error(), "event", "address.rescued", "address", a.name)
			break
		}
		m.pass(passed{address: a, fd: fd}, 0)
	}
	if n > 0 {
		m.log.Info("Connections at a parked socket handed to live workers", "event", "address.rescued", "address", a.name, "connections", n)
	}
	if m.rescuer(a, 0) != nil {
		a.group.Rearm(s)
	}
}

// rescuer returns a worker in service on the address, another one each time.
func (m *Master) rescuer(a *address, but fleet.ID) *worker {
	n := len(m.addrs.seats)
	for i := range n {
		id := m.addrs.seats[(m.seq+i)%n]
		w, h := m.workers[id], a.holdOf(id)
		if id != but && w != nil && h != nil && h.listening && !w.channel.closed {
			return w
		}
	}
	return nil
}

// pass hands a connection to a worker other than but.
func (m *Master) pass(p passed, but fleet.ID) {
	w := m.rescuer(p.address, but)
	if w == nil && but != 0 {
		w = m.rescuer(p.address, 0)
	}
	p.tries++
	if w == nil || p.tries > rescueTries {
		unix.Close(p.fd)
		m.log.Error("A stranded connection is lost: no worker takes it", "event", "address.stranded", "address", p.address.name)
		return
	}
	theirs, err := unix.FcntlInt(uintptr(p.fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		unix.Close(p.fd)
		m.log.Error("A stranded connection is lost: "+err.Error(), "event", "address.stranded", "address", p.address.name)
		return
	}
	m.seq++
	w.passed[m.seq] = p
	m.send(w, nodeipc.NewConn(p.address.key, m.seq), theirs)
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
		return
	}
	m.pass(p, w.id)
}

// passAgain hands on what a dead worker had not answered for.
func (m *Master) passAgain(w *worker) {
	for seq, p := range w.passed {
		delete(w.passed, seq)
		m.pass(p, w.id)
	}
}
