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
	unheld    time.Time // since when nobody has it; zero: somebody does
	preopened bool      // given to every worker at its start: held to the end
	closed    bool
}

// Key names the address, also to the workers; another one never has it.
func (a *Address) Key() string { return a.key }

// Name is for people.
func (a *Address) Name() string { return a.name }

// Endpoint is what was asked for.
func (a *Address) Endpoint() Endpoint { return a.endpoint }

// Data is what the first worker that asked for it has said with that: the same for
// all.
func (a *Address) Data() json.RawMessage { return a.data }

// LeaseOf returns the share of a worker, nil if it has none.
func (a *Address) LeaseOf(id Worker) *Lease {
	if i := slices.IndexFunc(a.leases, func(l *Lease) bool { return l.worker == id }); i >= 0 {
		return a.leases[i]
	}
	return nil
}

// Accepts tells whether a worker has said that it accepts here.
func (a *Address) Accepts(id Worker) bool {
	l := a.LeaseOf(id)
	return l != nil && l.listening
}

// Steerable tells whether the workers of a generation can be told apart by the
// kernel: what [handoff.Group.Steerable] is.
func (a *Address) Steerable() bool { return a.group != nil && a.group.Steerable() }

func (a *Address) leaseOfSocket(s *handoff.Socket) *Lease {
	if i := slices.IndexFunc(a.leases, func(l *Lease) bool { return l.socket == s }); i >= 0 {
		return a.leases[i]
	}
	return nil
}

// Take gives a worker a share of the address, one more if it has one already.
func (a *Address) Take(id Worker, slot int) (*Lease, error) {
	s, fd, err := a.kind.take(slot)
	if err != nil {
		return nil, err
	}
	l := &Lease{address: a, worker: id, slot: slot, socket: s, fd: fd}
	a.leases = append(a.leases, l)
	a.unheld = time.Time{}
	if a.group != nil && !a.group.Steerable() && a.group.Balance() != handoff.Shared {
		a.table.note(Unsteerable{a})
	}
	return l, nil
}

// Retake gives a worker a share for one more socket of its own making: one that it
// was given and has closed (open tells what it has, by inode), else another. A second
// open one is for who has asked for SO_REUSEPORT, as the kernel has it: else
// unix.EADDRINUSE.
func (a *Address) Retake(id Worker, slot int, open func(inode uint64) bool, reusePort bool) (*Lease, error) {
	second := false
	for _, l := range a.leases {
		switch {
		case l.worker != id:
		case l.atStart: // it was told of the socket, and makes one of its own
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

// Lease is a worker's share of an address.
type Lease struct {
	address   *Address
	worker    Worker
	slot      int
	socket    *handoff.Socket // nil where one is shared by all
	fd        int
	listening bool // the worker accepts
	atStart   bool // it was given at the start, and the worker has not bound it
}

// Address is what it is a share of.
func (l *Lease) Address() *Address { return l.address }

// Worker is who has it.
func (l *Lease) Worker() Worker { return l.worker }

// FD is the listening socket. It stays the table's: the worker gets a duplicate.
func (l *Lease) FD() int { return l.fd }

// Type is the type of the socket.
func (l *Lease) Type() Type { return l.address.endpoint.Type }

// Inode tells the socket from others; 0 where one is shared by all.
func (l *Lease) Inode() uint64 {
	if l.socket == nil {
		return 0
	}
	return l.socket.Inode()
}

// Listening notes that the worker accepts. [Table.Steer] puts it into effect.
func (l *Lease) Listening() { l.listening = true }

// OwnFlags says that the socket is in the place of one of the worker's own: its
// O_NONBLOCK is the worker's business until it is released.
func (l *Lease) OwnFlags() {
	if l.socket != nil {
		l.socket.OwnFlags()
	}
}
