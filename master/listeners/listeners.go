// Package listeners is the table of the addresses that a service listens on, and of the
// leases that its workers have. It steers new connections to workers, detects when a
// retiring worker is quiet, repairs sockets that a worker has changed, and detects
// workers that accept nothing.
//
//	Endpoint ──open──► Address ──take──► Lease of a worker ──► listening ──► steered to
//	(a request)        (its sockets)     (a socket, or a share)  (it accepts)  (it is a target)
//
// An address without a lease is kept for a while, since another worker may request it
// again, and connections wait in the meantime. A preopened address is leased to each
// worker at its start, and kept until the end.
//
// A [Table] belongs to one goroutine; only [Table.Wait] may run in another.
// [Table.Notices] returns what has happened.
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

// Worker identifies a worker. 0 is none; a number is never reused.
type Worker int

// Store keeps duplicates of the sockets for the next master.
type Store interface {
	// Store keeps a duplicate of fd by that name.
	Store(name string, fd int) error
	// Remove closes the duplicate.
	Remove(name string)
}

// Config configures a table.
type Config struct {
	Store Store
	// Save writes the record of the master, with this table's state, now; may be nil.
	Save    func()
	Balance handoff.Balance
	// NoProgram: as if the kernel did not support the steering program.
	NoProgram bool
	// Private replaces every requested address by an unused one on loopback.
	Private bool
	// User is whose rights count for what workers ask for; nil: handoff's own. Allowed
	// reports whether they may listen on a privileged port all the same; nil: on none.
	User    *linux.User
	Allowed func(netip.AddrPort) bool
	// Grace is how long an address without a lease is kept.
	Grace time.Duration
	// StallTimeout is the duration of a stall that is reported as a [StallTimeout]; 0:
	// never.
	StallTimeout time.Duration
}

// Table has all addresses and leases.
type Table struct {
	cfg       Config
	watch     *handoff.Watch
	list      []*Address
	lastKey   int
	targets   []Worker     // by slot, the worker that is steered to; 0: none
	avoid     []Worker     // targets to which no connections go, if there are others
	preopened []preopened  // in the order in which workers get them
	inherited []*inherited // from a service manager, and not requested yet
	quieting  []*quieting
	stalls    map[Worker]*stall
	notices   []Notice
	ghosts    []ghost
	leaving   []Worker  // that must end before others can start, see Table.GiveWay
	now       time.Time // when they were named
}

// New returns an empty table. The caller closes it.
func New(cfg Config) (*Table, error) {
	watch, err := handoff.NewWatch()
	if err != nil {
		return nil, err
	}
	t := &Table{cfg: cfg, watch: watch, stalls: map[Worker]*stall{}}
	watch.Grown = t.grown
	return t, nil
}

// Wait blocks until [Table.Tick] has something to do, and returns an error once the
// table is closed. It may run in a goroutine of its own.
func (t *Table) Wait() error { return t.watch.Wait() }

// Close closes every address, and ends a Wait.
func (t *Table) Close() {
	t.CloseAll()
	t.watch.Close()
}

// CloseAll closes every address. Workers keep their duplicates.
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
	if s, ok := a.kind.(*shared); ok {
		s.closeAll(t.cfg.User)
	}
	a.removeLeft(t.cfg.User)
}

// SetStallTimeout changes [Config.StallTimeout].
func (t *Table) SetStallTimeout(d time.Duration) { t.cfg.StallTimeout = d }

// SetUser changes whose rights count, and what is allowed besides.
func (t *Table) SetUser(u *linux.User, allowed func(netip.AddrPort) bool) {
	t.cfg.User, t.cfg.Allowed = u, allowed
}

// Balance is how new connections are distributed.
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

// Addresses returns the open addresses, in the order of their opening.
func (t *Table) Addresses() []*Address { return slices.Clone(t.list) }

// Find returns the address of an endpoint, nil if it is not open.
func (t *Table) Find(e Endpoint) *Address {
	return t.where(func(a *Address) bool { return a.endpoint == e && !a.hidden() })
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

// Adopt creates an address from a socket that a worker has bound, to a port that the
// kernel chose, and does not listen on yet. It owns fd. A port that is open here already was
// not chosen by the kernel: the socket would join another address's group.
func (t *Table) Adopt(e Endpoint, fd int) (*Address, error) {
	at, err := handoff.Bound(fd)
	if err == nil && t.where(func(a *Address) bool { return a.tcp() && !a.hidden() && a.group.Addr() == at }) != nil {
		err = unix.EADDRINUSE
	}
	if err != nil {
		go unix.Close(fd) // ends with its SO_LINGER, at the latest
		return nil, err
	}
	k, err := t.adoptTCP(at, e.V6Only, fd)
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

// Lease gives a worker a lease of the endpoint, which is opened at the first request,
// with its data. A second request of the same worker is an error: unix.EADDRINUSE.
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
	} else if s, ok := a.kind.(*shared); ok {
		s.mend(t.cfg.User)
	}
	return a.Take(id, slot)
}

// Count is the number of a worker's leases.
func (t *Table) Count(id Worker) int {
	n := 0
	for _, a := range t.list {
		if a.LeaseOf(id) != nil {
			n++
		}
	}
	return n
}

// LeaseOf returns a worker's lease by its socket, nil if there is none.
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

// Listening records that a worker accepts at an endpoint of which it has a lease; Port is
// the one that it got. [Table.Steer] applies it. It reports whether there is such a lease.
func (t *Table) Listening(id Worker, e Endpoint) (held bool) {
	for _, a := range t.list {
		l := a.LeaseOf(id)
		if l == nil || !a.endpoint.meant(e) {
			continue
		}
		l.listening, held = true, true
		if l.socket != nil {
			// It may have set a backlog of its own: set the largest again.
			t.handle(l.socket.Repair())
		}
	}
	return held
}

// Release ends a worker's lease of an address.
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
	t.storeNew(a) // a socket in the place of one that a worker has had
	if k, ok := a.kind.(*shared); ok {
		changed, err := handoff.UndoShared(k.fd)
		for _, what := range changed {
			t.note(Violation{a, id, "set " + what + " on the socket that all share"})
		}
		t.trouble(err)
		a.dropBeside(t.cfg.User)
	}
	if len(a.leases) == 0 {
		a.unheld = now
	}
}

// Closed ends a worker's lease of an address, because it says that it has closed the
// socket. It may still accept from it: nobody else gets it before [Table.ReleaseAll].
func (t *Table) Closed(a *Address, id Worker, now time.Time) {
	var left []*Lease
	for _, l := range a.leases {
		if l.worker == id && l.socket != nil {
			left = append(left, l)
		}
	}
	t.Release(a, id, now)
	for _, l := range left {
		if !l.socket.Held() {
			l.socket.Reserve(true)
			a.left = append(a.left, l)
		}
	}
}

// ReleaseAll ends all leases of a worker that is dead or abandoned.
func (t *Table) ReleaseAll(id Worker, now time.Time) {
	for _, a := range t.list {
		t.Release(a, id, now)
		a.left = slices.DeleteFunc(a.left, func(l *Lease) bool {
			if l.worker == id {
				l.socket.Reserve(false)
			}
			return l.worker == id
		})
	}
}

// CloseUnused closes an address, unless it was requested again since it was reported as
// [Unused]. It reports whether it did.
func (t *Table) CloseUnused(a *Address) bool {
	if a.closed || a.preopened || len(a.leases) > 0 {
		return false
	}
	t.close(a)
	t.list = slices.DeleteFunc(t.list, func(o *Address) bool { return o == a })
	return true
}

// Deadline is when [Table.Tick] must be called; zero: not by time.
func (t *Table) Deadline() time.Time {
	next := earlier(earlier(t.quietDeadline(), t.stallDeadline()), t.watch.Deadline())
	for _, a := range t.list {
		if !a.unheld.IsZero() && !a.preopened {
			next = earlier(next, a.unheld.Add(t.graceOf(a)))
		}
	}
	return next
}

// Tick processes the events of the sockets and the timers: it keeps the balance, detects
// quiet and stalled workers, and reports unused addresses. Call it when [Table.Wait] has
// returned, and at the Deadline.
func (t *Table) Tick(now time.Time) {
	t.handle(t.watch.Collect(now))
	for _, a := range t.list {
		if !a.preopened && !a.unheld.IsZero() && !now.Before(a.unheld.Add(t.graceOf(a))) {
			a.unheld = now // if it is kept, check again later
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
