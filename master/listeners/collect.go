package listeners

import (
	"slices"

	"golang.org/x/sys/unix"

	"handoff/handoff"
	"handoff/internal/linux"
)

// handle turns events of the sockets into notices.
func (t *Table) handle(events []handoff.Event) {
	for _, e := range events {
		switch e := e.(type) {
		case handoff.Repaired:
			if a := t.ofGroup(e.Group); a != nil {
				id := Worker(0)
				if l := a.leaseOfSocket(e.Socket); l != nil {
					id = l.worker
				}
				t.note(Violation{a, id, e.What})
			}
		case handoff.Detached:
			t.detached(e)
		case handoff.Renewed:
			if a := t.ofGroup(e.Group); a != nil {
				t.storeNew(a)
			}
		case handoff.Queued:
			if a := t.ofGroup(e.Group); a != nil {
				t.note(Queued{Queue{a, e.Socket}})
			}
		case handoff.Accepted:
			t.accepted(e)
		case handoff.Stranger:
			if a := t.ofGroup(e.Group); a != nil {
				t.note(Stranger{a, linux.SocketHolders(e.Inode), e.Left})
			}
		case handoff.Failed:
			t.trouble(e.Err)
		}
	}
}

func (t *Table) ofGroup(g *handoff.Group) *Address {
	return t.where(func(a *Address) bool { return a.group == g })
}

func (t *Table) detached(e handoff.Detached) {
	t.cfg.Store.Remove(SocketName(e.Socket.Inode()))
	t.trouble(e.Err)
	a := t.ofGroup(e.Group)
	if a == nil {
		return
	}
	t.storeNew(a) // what is in its place
	if a.leaseOfSocket(e.Socket) == nil {
		t.note(Violation{a, 0, "left a socket option that cannot be reset; its socket is replaced"})
	}
	for _, l := range a.leases { // several, if they share it
		if l.socket == e.Socket {
			t.note(Detached{a, l.worker})
		}
	}
	a.leases = slices.DeleteFunc(a.leases, func(l *Lease) bool { return l.socket == e.Socket })
}

func (t *Table) accepted(e handoff.Accepted) {
	a := t.ofGroup(e.Group)
	if a == nil { // closed in the meantime, with its queue
		for _, fd := range e.FDs { // a worker may have set SO_LINGER: close(2) must not block
			unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{})
			unix.Close(fd)
		}
		return
	}
	t.note(Accepted{Queue{a, e.Socket}, e.FDs, e.Err})
}

// Queue is the accept queue of a parked socket: its worker has exited, or has closed it,
// while connections were in flight to it.
type Queue struct {
	address *Address
	socket  *handoff.Socket
}

// Address is the address of the connections.
func (q Queue) Address() *Address { return q.address }

// Slot is the slot of the worker that had the socket last.
func (q Queue) Slot() int { return q.socket.Slot() }

// Waits reports whether connections are in a queue that nobody accepts from, while a worker
// in service accepts others of the address.
func (t *Table) Waits(q Queue) bool {
	return !q.socket.Closed() && q.address.Steerable() && q.address.accepted(t.targets) && !q.socket.Target() && q.Len() > 0
}

// Duplicate returns a duplicate of the socket, which the caller owns.
func (q Queue) Duplicate() (int, error) {
	return unix.FcntlInt(uintptr(q.socket.FD()), unix.F_DUPFD_CLOEXEC, 3)
}

// Len is the number of queued connections.
func (q Queue) Len() int { return q.socket.Pending() }

// Accept starts to take up to most connections out: they arrive as an [Accepted]. While
// another is running, or a worker has the socket again, it does nothing.
func (q Queue) Accept(most int) { q.socket.Accept(most) }

// Accepting reports whether a [Queue.Accept] is running.
func (t *Table) Accepting() bool { return t.watch.Accepting() }

// QueuesOf returns the accept queues of a worker, by its sockets that it shares with no other
// worker. They are what waits once it has died.
func (t *Table) QueuesOf(id Worker) (queues []Queue) {
	for _, a := range t.list {
		for _, l := range a.leases {
			if l.worker == id && l.socket != nil && l.socket.Holders() == 1 && !a.group.Datagram() {
				queues = append(queues, Queue{a, l.socket})
			}
		}
	}
	return queues
}

// Queues returns the accept queues of parked sockets of the address that are not empty.
func (a *Address) Queues() (queues []Queue) {
	if a.group == nil || a.closed || a.group.Datagram() {
		return nil
	}
	for _, s := range a.group.Sockets() {
		if !s.Held() && s.Pending() > 0 {
			queues = append(queues, Queue{a, s})
		}
	}
	return queues
}
