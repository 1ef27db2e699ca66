package sim

import (
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"handoff/master/fleet"
	"handoff/master/listeners"
	"handoff/master/recycle"
	"handoff/master/reload"
	"handoff/master/sequence"
	"handoff/master/snapshot"
)

// master is a model of package master's loop: the decisions, the order in which they are
// recorded and carried out, and the record are the real ones; sockets, processes and
// messages are the simulated kernel's.
type master struct {
	s        *sim
	fleet    *fleet.Fleet
	reloads  *reload.Machine
	recycler *recycle.Recycler
	steps    sequence.Steps
	saver    snapshot.Saver
	keep     *keeper         // nil: none
	muted    bool            // the keeper does not read
	written  snapshot.Record // that the keeper has
	encoded  []byte          // the same, in an exact run
	unsaved  bool            // the record differs from what is stored, since it could not be
	workers  map[fleet.ID]*worker
	gens     map[fleet.Gen]int // versions
	socks    []*lease          // in the table
	targets  []listeners.Worker
	program  []*sock // as this master has attached it
	quieting map[fleet.ID]time.Time
	mail     []mail
	pending  []unix.Signal // sent, and not handled
	wakeAt   time.Time     // of the timer that is set
	listens  bool          // it has opened the address
	gone     bool
	replaced bool // another one takes over
	ended    bool
	alone    bool // it could not start a new keeper
	done     *fleet.Done
	fuse     int  // actions until it dies; 0: it does not
	both     bool // the keeper dies with it
	tracked  map[*proc]bool
}

type mail struct {
	what string
	from *proc
	f    func()
}

type worker struct {
	p    *proc
	id   fleet.ID
	slot int
	gen  fleet.Gen
	dead bool
}

// of is the worker that a process is, nil if it is none of this master's: a number may be
// used again that no record had.
func (m *master) of(p *proc) *worker {
	if w := m.workers[fleet.ID(p.id)]; w != nil && w.p == p {
		return w
	}
	return nil
}

// lease is a socket in the table; worker is 0 where it is parked.
type lease struct {
	sock      *sock
	worker    listeners.Worker
	slot      int
	listening bool
	waits     bool // connections wait there, since no worker is to have them
}

// These events alone do not change a record.
const (
	timeIsUp          = "the time"
	queuedConnections = "queued connections"
)

var address = netip.MustParseAddrPort("127.0.0.1:80")

func newMaster(s *sim) *master {
	m := &master{s: s, fleet: fleet.New(s.cfg.fleet), reloads: &reload.Machine{Hook: s.cfg.hook}, recycler: recycle.New(recycle.Config{MaxMemory: s.cfg.memory}),
		keep: s.keeper, workers: map[fleet.ID]*worker{}, gens: map[fleet.Gen]int{}, quieting: map[fleet.ID]time.Time{}, tracked: map[*proc]bool{}}
	m.steps.Pause()
	return m
}

// point is between two actions: the master may die here.
func (m *master) point(format string, args ...any) {
	if m.s.trace != nil {
		m.s.note("    "+format, args...)
	}
	if m.fuse > 0 {
		if m.fuse--; m.fuse == 0 {
			panic(killed{})
		}
	}
}

// run starts, or takes over from a record.
func (m *master) run(record []byte, upgradeFailed string) {
	s := m.s
	m.point("reads the store")
	first := func() {}
	if record == nil {
		m.discard(func(fleet.ID) bool { return true })
	} else if r, err := snapshot.Parse(record); err != nil {
		s.excuse("the record cannot be read")
		m.discard(func(fleet.ID) bool { return true })
		record = nil
	} else {
		first = m.takeOver(r, upgradeFailed)
	}
	if record == nil {
		m.listens = true // the first worker that asks opens it
	}
	m.point("says READY")
	if m.keep != nil {
		m.keep.becomes()
	}
	m.steps.Resume(first)
	if record == nil {
		m.step(fleet.Reload{})
	} else {
		m.step(nil)
	}
	m.rest()
}

// post sends an event to the loop.
func (m *master) post(what string, from *proc, f func()) {
	if m.gone || m.ended {
		return
	}
	m.mail = append(m.mail, mail{what, from, f})
	if len(m.mail) == 1 {
		m.s.after(0, m.loop)
	}
}

// loop handles what was posted.
func (m *master) loop() {
	if m.gone || m.ended {
		return
	}
	m.s.inMaster(m, func() {
		for len(m.mail) > 0 && !m.replaced && !m.ended {
			e := m.mail[0]
			m.mail = m.mail[1:]
			if e.from != nil {
				m.point("hears: %v %s", e.from, e.what)
			} else {
				m.point("hears: %s", e.what)
			}
			if e.what != timeIsUp && e.what != queuedConnections { // as Master.handle has it
				m.saver.Changed()
			}
			e.f()
			if m.s.chance(2) {
				m.due()
			}
		}
		m.tick()
		m.rest()
	})
}

// rest is when no event is pending.
func (m *master) rest() {
	if m.replaced {
		m.leave()
		return
	}
	m.due()
	m.finish()
	if m.ended {
		return
	}
	at := earlier(earlier(m.fleet.Deadline(), m.recycler.Deadline()), m.quietAt())
	at = earlier(at, m.saver.Deadline())
	if m.muted {
		at = earlier(at, m.s.now.Add(time.Second))
	}
	if at.IsZero() || at.Equal(m.wakeAt) {
		return
	}
	m.wakeAt = at
	m.s.after(max(at.Sub(m.s.now), time.Millisecond), func() {
		if m.wakeAt.Equal(at) && !m.gone {
			m.wakeAt = time.Time{}
			m.post(timeIsUp, nil, func() {})
		}
	})
}

func (m *master) tick() {
	if m.muted && !m.s.mute() && m.keep != nil {
		m.muted = false
		m.point("gives the keeper everything again")
		m.kept(m.keep)
	}
	for _, id := range m.sortedQuieting() {
		at := m.quieting[id]
		if m.s.now.Before(at) {
			continue
		}
		if slices.ContainsFunc(m.socks, func(l *lease) bool { return l.worker == listeners.Worker(id) && l.sock.queue > 0 }) {
			m.quieting[id] = m.s.now.Add(20 * time.Millisecond)
			continue
		}
		delete(m.quieting, id)
		m.step(fleet.Quiet{ID: id})
	}
	if m.recycler.Tick(m.s.now) {
		resident := map[int]int64{}
		for _, w := range m.workers {
			resident[int(w.id)] = w.p.mem
		}
		for _, v := range m.recycler.Sampled(resident) {
			if m.fleet.Stays(fleet.ID(v.Worker)) {
				m.step(fleet.MarkRecycle{ID: fleet.ID(v.Worker), Reason: v.Reason})
			}
		}
	}
	if at := m.fleet.Deadline(); !at.IsZero() && !m.s.now.Before(at) {
		m.step(nil)
	}
}

func (m *master) sortedQuieting() (ids []fleet.ID) {
	for id := range m.quieting {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

func (m *master) quietAt() (at time.Time) {
	for _, t := range m.quieting {
		at = earlier(at, t)
	}
	return at
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func (m *master) step(e fleet.Event) {
	m.saver.Changed()
	m.steps.Do(func() { sequence.Step(m, m.fleet, e) })
}

func (m *master) order(e reload.Event) {
	m.saver.Changed()
	m.steps.Do(func() {
		for _, a := range m.reloads.Step(m.s.now, e) {
			m.CarryOut(a)
		}
	})
}

// due writes the record, if it may have changed.
func (m *master) due() {
	if m.saver.Due(m.s.now) {
		m.Save()
	}
}

// record is as Master.record.
func (m *master) record() snapshot.Record {
	a := listeners.AddressState{Key: "1", Name: address.String(), Bound: address, Steerable: true}
	for _, l := range m.socks {
		a.Sockets = append(a.Sockets, listeners.SocketState{Inode: l.sock.ino, Slot: l.slot, Waits: l.waits})
		if l.worker != 0 {
			a.Leases = append(a.Leases, listeners.LeaseState{Worker: l.worker, Slot: l.slot, Inode: l.sock.ino, Listening: l.listening})
		}
	}
	r := snapshot.Record{Version: snapshot.Version, Fleet: m.fleet.State(), State: listeners.State{Targets: m.targets, LastKey: 1}, Began: epoch, Keeper: 1}
	if len(m.socks) > 0 {
		r.Addresses = []listeners.AddressState{a}
	}
	sequence.Note(&r, m.reloads.State)
	for _, gen := range r.Fleet.Known {
		if v, ok := m.gens[gen]; ok {
			r.Generations = append(r.Generations, snapshot.Generation{Gen: gen, Drain: v})
		}
	}
	for _, fw := range r.Fleet.Workers {
		if w := m.workers[fw.ID]; w != nil {
			r.Workers = append(r.Workers, snapshot.Worker{ID: w.id, Slot: w.slot, Gen: w.gen, PID: w.p.pid})
		}
	}
	return r
}

// Save writes the record.
func (m *master) Save() {
	if m.keep == nil {
		return
	}
	r := m.record()
	if !m.differs(r) {
		return
	}
	m.point("writes the record")
	if m.s.saveFails > 0 {
		m.s.saveFails--
		m.s.note("    which fails")
		m.unsaved = true
		m.saver.Failed(m.s.now)
		return
	}
	if !m.store("the record", func(k *keeper) { k.store(&r, m.saver.Signals()) }) {
		m.unsaved = true
		return
	}
	m.saver.Stored(m.encoded)
	m.written, m.unsaved = r, false
}

// differs reports whether a record must be stored, as Saver.Next does; but in an exact run
// the structs are compared, which takes a fraction of the time.
func (m *master) differs(r snapshot.Record) bool {
	if !m.s.cfg.exact {
		return len(m.saver.Signals()) > 0 || !reflect.DeepEqual(r, m.written)
	}
	b, err := m.saver.Next(r)
	if err != nil {
		m.s.fail("%v", err)
	}
	m.encoded = b
	return b != nil
}

// store stores something with the keeper, and reports whether it has it.
func (m *master) store(what string, f func(k *keeper)) bool {
	if m.keep == nil || m.muted {
		return false
	}
	if m.s.mute() || m.s.keeper != m.keep {
		if m.s.keeper == m.keep {
			m.s.note("    the keeper is mute")
			m.muted = true
		}
		return false
	}
	f(m.keep)
	m.point("has stored %s", what)
	return true
}

func (m *master) Now() time.Time     { return m.s.now }
func (m *master) Step(e fleet.Event) { m.step(e) }

var errSteer = errors.New("the kernel refuses the program")

// finish ends the service when no worker is left.
func (m *master) finish() {
	if m.ended || m.done == nil {
		return
	}
	m.point("says STOPPING")
	if m.keep != nil && m.s.keeper == m.keep {
		m.keep.ending = true
	}
	m.point("ends")
	m.ended = true
	m.s.end()
}
