package listeners

import (
	"encoding/json"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"handoff/handoff"
)

// Address is what workers listen on.
type Address struct {
	table     *Table
	key       string
	endpoint  Endpoint
	name      string
	kind      kind
	group     *handoff.Group // of the kinds that have a socket for each worker; else nil
	data      json.RawMessage
	leases    []*Lease
	left      []*Lease  // of live workers that have closed their socket: nobody else gets it
	unheld    time.Time // since when it has no lease; zero: it has one
	last      Worker    // that has got a lease; 0: none has, or not known
	shared    bool      // others have had one, or may have
	preopened bool      // given to every worker at its start, and held until the end
	served    bool      // a worker to which connections go accepts, or did
	closed    bool
	waits     time.Time     // since when connections wait, since no worker is to have them; zero: they do not
	waited    time.Duration // the longest time for which they did
}

// Key identifies the address, also for the workers; it is never reused.
func (a *Address) Key() string { return a.key }

// Name is its name for people.
func (a *Address) Name() string { return a.name }

// Endpoint is the endpoint that was requested.
func (a *Address) Endpoint() Endpoint { return a.endpoint }

// Data is the data of the first request for it, the same for all workers.
func (a *Address) Data() json.RawMessage { return a.data }

// LeaseOf returns the lease of a worker, nil if it has none.
func (a *Address) LeaseOf(id Worker) *Lease {
	if i := slices.IndexFunc(a.leases, func(l *Lease) bool { return l.worker == id }); i >= 0 {
		return a.leases[i]
	}
	return nil
}

// Shared reports whether more than one worker has had a lease, or may have.
func (a *Address) Shared() bool { return a.shared }

// Accepts reports whether a worker accepts here.
func (a *Address) Accepts(id Worker) bool {
	l := a.LeaseOf(id)
	return l != nil && l.listening
}

// Steerable reports whether connections can be steered, see [handoff.Group.Steerable].
func (a *Address) Steerable() bool { return a.group != nil && a.group.Steerable() }

func (a *Address) leaseOfSocket(s *handoff.Socket) *Lease {
	if i := slices.IndexFunc(a.leases, func(l *Lease) bool { return l.socket == s }); i >= 0 {
		return a.leases[i]
	}
	return nil
}

// Take gives a worker a lease of the address, or another one if it has one already.
func (a *Address) Take(id Worker, slot int) (*Lease, error) {
	s, fd := a.retake(id, slot)
	if s == nil {
		var err error
		if s, fd, err = a.kind.take(slot); err != nil {
			return nil, err
		}
	}
	return a.lease(id, slot, s, fd), nil
}

func (a *Address) lease(id Worker, slot int, s *handoff.Socket, fd int) *Lease {
	l := &Lease{address: a, worker: id, slot: slot, socket: s, fd: fd}
	a.leases = append(a.leases, l)
	if k, ok := a.kind.(*shared); ok {
		k.unlinked = false
	}
	a.shared = a.shared || a.last != 0 && a.last != id
	a.last = id
	a.unheld = time.Time{}
	if a.group != nil && !a.group.Steerable() && a.group.Balance() != handoff.Shared {
		a.table.note(Unsteerable{a})
	}
	return l
}

// retake returns the socket that a worker has closed before; nil: there is none.
func (a *Address) retake(id Worker, slot int) (*handoff.Socket, int) {
	for i, l := range a.left {
		if l.worker != id {
			continue
		}
		a.left = slices.Delete(a.left, i, i+1)
		if s := l.socket.Retake(slot); s != nil {
			return s, s.FD()
		}
		break
	}
	return nil, -1
}

// Retake gives a worker a lease for another socket that it has created: one that it had
// and has closed (open reports which it has, by inode), else a new one. A second open one
// requires SO_REUSEPORT, as in the kernel: else the error is unix.EADDRINUSE.
func (a *Address) Retake(id Worker, slot int, open func(inode uint64) bool, reusePort bool) (*Lease, error) {
	second := false
	for _, l := range a.leases {
		switch {
		case l.worker != id:
		case l.atStart: // it got the socket, and creates one of its own
			l.atStart, l.listening = false, false
			return l, nil
		case !open(l.Inode()):
			l.listening = false
			return l, nil
		default:
			second = true
		}
	}
	if second && !reusePort {
		return nil, unix.EADDRINUSE
	}
	return a.Take(id, slot)
}

// AtStart reports whether the worker was given a socket at its start, and has bound none.
func (a *Address) AtStart(id Worker) bool {
	return slices.ContainsFunc(a.leases, func(l *Lease) bool { return l.worker == id && l.atStart })
}

// Lease is a worker's right to listen on an address, with a socket for it.
type Lease struct {
	address   *Address
	worker    Worker
	slot      int
	socket    *handoff.Socket // nil if one is shared by all
	fd        int
	unix      uint64 // the inode of a unix socket that a worker has bound; 0: not known, or another
	listening bool   // the worker accepts
	atStart   bool   // given at the start, and not bound by the worker
	alone     bool   // the worker has bound it without SO_REUSEPORT
}

// Address is the address of the lease.
func (l *Lease) Address() *Address { return l.address }

// Worker is the worker that has it.
func (l *Lease) Worker() Worker { return l.worker }

// FD is the listening socket. The table owns it; the worker gets a duplicate.
func (l *Lease) FD() int { return l.fd }

// Type is the type of the socket.
func (l *Lease) Type() Type { return l.address.endpoint.Type }

// Inode identifies the socket; 0 if one is shared by all (but for paths that workers bind).
func (l *Lease) Inode() uint64 {
	if l.socket == nil {
		return l.unix
	}
	return l.socket.Inode()
}

// Listening records that the worker accepts. [Table.Steer] applies it.
func (l *Lease) Listening() { l.listening = true }

// SetAlone records that the worker has bound the socket without SO_REUSEPORT, which it has
// all the same.
func (l *Lease) SetAlone(alone bool) { l.alone = alone }

// Alone reports whether it has.
func (l *Lease) Alone() bool { return l.alone }

// OwnFlags: the socket replaces one that the worker created, which decides about its
// O_NONBLOCK until it is released.
func (l *Lease) OwnFlags() {
	if l.socket != nil {
		l.socket.OwnFlags()
	}
}
