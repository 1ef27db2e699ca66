// Package listeners is the table of what a service listens on: its addresses, and
// which worker has which share of them. It steers new connections to the workers that
// are to have them, finds out when a worker that is steered away is quiet, repairs
// what workers do to the sockets that they share with their master, and notices
// workers that accept nothing.
//
//	Endpoint ──open──► Address ──take──► Lease of a worker ──► listening ──► steered to
//	(what is asked for) (its sockets)    (a socket, or a share)  (it accepts)  (it is a target)
//
// An address without a lease is kept for a while: whoever closed it may be followed by
// somebody who asks for it again, and connections wait meanwhile. One that is
// preopened is given to each worker at its start, and kept to the end.
//
// A [Table] belongs to one goroutine; [Table.Wait] alone may run in another. What
// it finds out is in [Table.Notices].
package listeners

import (
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"handoff/handoff"
	"handoff/internal/linux"
)

// Worker names a worker. 0 is nobody; a name is not used again.
type Worker int

// Store is who keeps duplicates of the sockets for the next master.
type Store interface {
	// Store keeps a duplicate of fd by that name.
	Store(name string, fd int) error
	// Remove closes the duplicate.
	Remove(name string)
}

// Config is what a table goes by.
type Config struct {
	Store   Store
	Balance handoff.Balance
	// NoProgram: as if the kernel refused the steering program.
	NoProgram bool
	// Private: every address is one of loopback's where nobody else is, whatever is
	// asked for.
	Private bool
	// User is whose rights count for what workers ask for; nil: handoff's own. Allowed
	// tells whether they may listen on a privileged port all the same; nil: on none.
	User    *linux.User
	Allowed func(netip.AddrPort) bool
	// Grace is how long an address is kept for which there is no lease.
	Grace time.Duration
	// StallTimeout is after how long a stall is reported as a [StallTimeout]; 0: never.
	StallTimeout time.Duration
}

// Table is the register of what is listened on.
type Table struct {
	cfg       Config
	watch     *handoff.Watch
	list      []*Address
	lastKey   int
	targets   []Worker     // by slot, who is steered to; 0 is nobody
	preopened []preopened  // in the order in which workers get them
	inherited []*inherited // by a service manager, and not asked for yet
	quieting  []*quieting
	stalls    map[Worker]*stall
	notices   []Notice
}

// New returns an empty table. The caller closes it.
func New(cfg Config) (*Table, error) {
	watch, err := handoff.NewWatch()
	if err != nil {
		return nil, err
	}
	return &Table{cfg: cfg, watch: watch, stalls: map[Worker]*stall{}}, nil
}

// Wait blocks until [Table.Tick] has something to do, and returns an error once the
// table is closed. It may run in a goroutine of its own.
func (t *Table) Wait() error { return t.watch.Wait() }

// Close gives every address up, and ends a Wait.
func (t *Table) Close() {
	t.CloseAll()
	t.watch.Close()
}

// CloseAll gives every address up. Workers still have their duplicates.
func (t *Table) CloseAll() {
	for _, a := range t.list {
		t.close(a)
	}
	for _, p := range t.inherited {
		unix.Close(p.FD)
	}
	t.list, t.inherited, t.quieting = nil, nil, nil
}

func (t *Table) close(a *Address) {
	a.closed = true
	a.kind.close()
}

// SetStallTimeout changes what [Config] says.
func (t *Table) SetStallTimeout(d time.Duration) { t.cfg.StallTimeout = d }

// SetUser changes whose rights count, and what is allowed besides.
func (t *Table) SetUser(u *linux.User, allowed func(netip.AddrPort) bool) {
	t.cfg.User, t.cfg.Allowed = u, allowed
}

// Balance is how new connections are spread.
func (t *Table) Balance() handoff.Balance { return t.cfg.Balance }

// SetBalance changes it for every address, between [handoff.Even] and
// [handoff.Sticky].
func (t *Table) SetBalance(b handoff.Balance) error {
	if t.cfg.Balance == b {
		return nil
	}
	t.cfg.Balance = b
	var errs []error
	for _, a := range t.list {
		if a.group != nil {
			errs = append(errs, a.group.SetBalance(b))
		}
	}
	return errors.Join(errs...)
}

// Addresses are those that are open, in the order in which they were.
func (t *Table) Addresses() []*Address { return slices.Clone(t.list) }

// Find returns the address of an endpoint, nil if nobody has asked for it yet.
func (t *Table) Find(e Endpoint) *Address {
	return t.where(func(a *Address) bool { return a.endpoint == e })
}

// ByKey returns the address with that key, nil if there is none.
func (t *Table) ByKey(key string) *Address {
	return t.where(func(a *Address) bool { return a.key == key })
}

func (t *Table) where(ok func(*Address) bool) *Address {
	if i := slices.IndexFunc(t.list, ok); i >= 0 {
		return t.list[i]
	}
	return nil
}

// Open makes the address of an endpoint, of which there is none yet. The error is
// the kernel's; an [InUse] names who has the address.
func (t *Table) Open(e Endpoint) (*Address, error) { return t.open(e, nil) }

// open makes an address. made says how the file of a new path is, before anybody can
// connect; nil: a worker asks for it.
func (t *Table) open(e Endpoint, made *pathMode) (*Address, error) {
	a := t.newAddress(e)
	k, err := t.openKind(e, a.key, made)
	if err != nil {
		return nil, err
	}
	t.add(a, k)
	return a, nil
}

// Adopt makes an address of a socket that a worker has bound, to a port that the
// kernel chose, and does not listen on yet. It owns fd.
func (t *Table) Adopt(e Endpoint, fd int) (*Address, error) {
	k, err := t.adoptTCP(e, fd)
	if err != nil {
		return nil, err
	}
	a := t.newAddress(e)
	t.add(a, k)
	return a, nil
}

func (t *Table) newAddress(e Endpoint) *Address {
	t.lastKey++
	return &Address{table: t, key: strconv.Itoa(t.lastKey), endpoint: e}
}

func (t *Table) add(a *Address, k kind) {
	a.kind, a.name = k, k.name()
	if g, ok := k.(*group); ok {
		a.group = g.Group
	}
	t.list = append(t.list, a)
}

// Lease gives a worker its share of what it asks for, which is opened if nobody has
// asked for it before; data is then kept with it. One worker cannot ask for the same
// twice: unix.EADDRINUSE.
func (t *Table) Lease(id Worker, slot int, e Endpoint, data json.RawMessage) (*Lease, error) {
	a := t.Find(e)
	if a == nil {
		var err error
		if a, err = t.Open(e); err != nil {
			return nil, err
		}
		a.data = data
	} else if a.LeaseOf(id) != nil {
		return nil, unix.EADDRINUSE
	}
	return a.Take(id, slot)
}

// Count is how many addresses a worker has a share of.
func (t *Table) Count(id Worker) int {
	n := 0
	for _, a := range t.list {
		if a.LeaseOf(id) != nil {
			n++
		}
	}
	return n
}

// LeaseOf finds a worker's lease by the socket that it has, nil if there is none.
func (t *Table) LeaseOf(id Worker, inode uint64) *Lease {
	for _, a := range t.list {
		for _, l := range a.leases {
			if l.worker == id && l.socket != nil && l.socket.Inode() == inode {
				return l
			}
		}
	}
	return nil
}

// Listening notes that a worker accepts at an endpoint of which it has a lease; Port
// is the one that it got. [Table.Steer] puts it into effect.
func (t *Table) Listening(id Worker, e Endpoint) {
	for _, a := range t.list {
		l := a.LeaseOf(id)
		if l == nil || !a.endpoint.meant(e) {
			continue
		}
		l.listening = true
		if l.socket != nil {
			// It may have set a backlog of its own: the largest is set again.
			t.handle(l.socket.Repair())
		}
	}
}

// Release takes a worker's share of an address back.
func (t *Table) Release(a *Address, id Worker, now time.Time) {
	if a.LeaseOf(id) == nil {
		return
	}
	a.leases = slices.DeleteFunc(a.leases, func(l *Lease) bool {
		if l.worker == id && l.socket != nil {
			l.socket.Release()
		}
		return l.worker == id
	})
	if len(a.leases) == 0 {
		a.unheld = now
	}
}

// ReleaseAll takes back all that a worker had: it is dead, or given up.
func (t *Table) ReleaseAll(id Worker, now time.Time) {
	for _, a := range t.list {
		t.Release(a, id, now)
	}
}

// CloseUnused gives an address up, unless somebody has asked for it since it was
// reported as [Unused]. It tells whether it did.
func (t *Table) CloseUnused(a *Address) bool {
	if a.closed || a.preopened || len(a.leases) > 0 {
		return false
	}
	t.close(a)
	t.list = slices.DeleteFunc(t.list, func(o *Address) bool { return o == a })
	return true
}

// Deadline is when [Table.Tick] wants to be called, zero if not by time.
func (t *Table) Deadline() time.Time {
	next := earlier(earlier(t.quietDeadline(), t.stallDeadline()), t.watch.Deadline())
	for _, a := range t.list {
		if !a.unheld.IsZero() && !a.preopened {
			next = earlier(next, a.unheld.Add(t.cfg.Grace))
		}
	}
	return next
}

// Tick takes in what has happened to the sockets, and does what time has brought: it
// keeps the balance, looks who is quiet and who stalls, and reports addresses that
// nobody uses. It is to be called when [Table.Wait] has returned, and at the Deadline.
func (t *Table) Tick(now time.Time) {
	t.handle(t.watch.Collect(now))
	for _, a := range t.list {
		if !a.preopened && !a.unheld.IsZero() && !now.Before(a.unheld.Add(t.cfg.Grace)) {
			a.unheld = now // where it is kept, look again later
			t.note(Unused{a})
		}
	}
	t.lookStalls(now)
	t.lookQuiet(now)
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
