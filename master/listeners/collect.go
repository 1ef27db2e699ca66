package listeners

import (
	"errors"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"handoff/handoff"
)

// repairEvery is how often, at most, and only while connections come, the sockets
// are looked at for what no event tells.
const repairEvery = time.Second

// Collect takes in what has happened to the sockets, when [Table.Wait] has returned.
func (t *Table) Collect(now time.Time) {
	signals := t.watch.Collect()
	of := make([]*Address, len(signals)) // found before they leave their groups
	for i, s := range signals {
		of[i] = t.where(func(a *Address) bool { return a.group != nil && a.group.Has(s.Socket) })
	}
	for i, s := range signals {
		if s.Hup && of[i] != nil {
			of[i].group.Fallen(s.Socket)
		}
	}
	for i, s := range signals {
		a := of[i]
		switch {
		case a == nil:
		case s.Hup:
			t.repair(a, s.Socket)
		case s.Socket.Held():
			a.group.Arrived(now)
			if now.Sub(a.repaired) > repairEvery {
				a.repaired = now
				for _, l := range slices.Clone(a.leases) {
					t.repair(a, l.socket)
				}
			}
		default:
			t.note(Queued{Queue{a, s.Socket}})
		}
	}
}

// repair undoes what a worker may have done to a socket of a group.
func (t *Table) repair(a *Address, s *handoff.Socket) {
	violations, err := a.group.Mend(s)
	t.trouble(err)
	l := a.leaseOfSocket(s)
	id := Worker(0)
	if l != nil {
		id = l.worker
	}
	for _, v := range violations {
		t.note(Violation{a, id, v})
	}
	if l != nil && errors.Is(err, handoff.ErrLost) {
		a.leases = slices.DeleteFunc(a.leases, func(o *Lease) bool { return o == l })
		t.note(Detached{a, id})
	}
}

// Queue is the accept queue of a socket from which no worker accepts: its worker is
// gone, or has closed it, while connections were under way to it.
type Queue struct {
	address *Address
	socket  *handoff.Socket
}

// Address is what was connected to.
func (q Queue) Address() *Address { return q.address }

// Slot is the slot of the worker that had the socket last.
func (q Queue) Slot() int { return q.socket.Slot() }

// Len is how many connections wait.
func (q Queue) Len() int {
	if q.closed() {
		return 0
	}
	return q.address.group.Pending(q.socket)
}

func (q Queue) closed() bool { return q.address.closed || !q.address.group.Has(q.socket) }

// Accept takes one connection out, which the caller owns; unix.EAGAIN: there is none,
// and the next one that comes is a [Queued] again.
func (q Queue) Accept() (fd int, err error) {
	if q.closed() {
		return -1, unix.EBADF
	}
	fd, err = q.socket.Accept()
	if err == unix.EAGAIN {
		q.Watch()
	}
	return fd, err
}

// Watch has the next connection that comes reported as [Queued].
func (q Queue) Watch() {
	if !q.closed() {
		q.address.group.Rearm(q.socket)
	}
}

// Queues are the accept queues of the address that no worker accepts from and that
// are not empty.
func (a *Address) Queues() (queues []Queue) {
	if a.group == nil || a.closed {
		return nil
	}
	for _, s := range a.group.Sockets() {
		if !s.Held() && a.group.Pending(s) > 0 {
			queues = append(queues, Queue{a, s})
		}
	}
	return queues
}
