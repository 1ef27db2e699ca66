package sim

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"handoff/master/reload"
	"handoff/master/snapshot"
)

// keeper is a model of internal/keeper: it holds the record and the descriptors, starts
// the next master when one dies, and keeps the signals that no record has.
type keeper struct {
	s       *sim
	record  *snapshot.Record
	failed  string        // why the master of an upgrade did not take over
	workers map[int]*proc // whose pidfd is stored
	waiting []unix.Signal // while no master could take them
	sent    []unix.Signal // and not acknowledged
	ready   bool          // the master takes signals
	leaving bool          // the master leaves for a candidate
	ending  bool          // its exit is meant
	wait    time.Duration // before the next start
	began   time.Time
}

// candidate is a new binary that was started for an upgrade, and can take over.
type candidate struct{ dead bool }

const (
	backoffFirst = 50 * time.Millisecond
	backoffMax   = 2 * time.Second
)

// mute reports whether the keeper is stopped: what a master stores now is lost.
func (s *sim) mute() bool { return s.now.Before(s.muteUntil) }

// start starts a master, from what is stored. upgraded: it is the candidate.
func (k *keeper) start(why string) {
	s := k.s
	if s.keeper != k || s.master != nil || s.over {
		return
	}
	s.masters++
	if s.mute() {
		s.after(s.muteUntil.Sub(s.now), func() { k.start(why) })
		return
	}
	s.note("a master starts: %s", why)
	k.ready, k.leaving, k.ending, k.began = false, false, false, s.now
	m := newMaster(s)
	s.master = m
	var record []byte
	if k.record != nil {
		record = encode(*k.record)
	}
	failed := k.failed
	k.failed = ""
	s.inMaster(m, func() { m.run(record, failed) })
}

// becomes: the master takes signals from now on.
func (k *keeper) becomes() {
	k.ready = true
	waiting := k.waiting
	k.waiting = nil
	for _, sig := range waiting {
		k.signal(sig)
	}
}

// signal forwards a signal, or keeps it.
func (k *keeper) signal(sig unix.Signal) {
	m := k.s.master
	if m == nil || !k.ready {
		if !slices.Contains(k.waiting, sig) {
			k.waiting = append(k.waiting, sig)
		}
		return
	}
	if slices.Contains(m.pending, sig) {
		return // a signal that is pending twice arrives once
	}
	if !slices.Contains(k.sent, sig) {
		k.sent = append(k.sent, sig)
	}
	m.pending = append(m.pending, sig)
	k.s.after(k.s.between(0, time.Millisecond), func() {
		if m == k.s.master {
			m.post("signal "+unix.SignalName(sig), nil, func() { m.signalled(sig) })
		}
	})
}

// store holds a record, and forgets the signals that it has.
func (k *keeper) store(r *snapshot.Record, handled []unix.Signal) {
	k.record = r
	k.sent = slices.DeleteFunc(k.sent, func(s unix.Signal) bool { return slices.Contains(handled, s) })
}

// died: the master has, and the next one is started.
func (k *keeper) died() {
	s := k.s
	if k.ending {
		s.end()
		return
	}
	if k.leaving || s.now.Sub(k.began) > time.Second {
		k.wait = 0
	}
	k.waiting, k.sent, k.ready = append(k.sent, k.waiting...), nil, false
	wait := k.wait
	k.wait = min(max(2*k.wait, backoffFirst), backoffMax)
	s.after(wait+s.between(0, 5*time.Millisecond), k.restart)
}

func (k *keeper) restart() {
	s := k.s
	if s.keeper != k || s.master != nil {
		return
	}
	if s.next == nil {
		k.start("the previous one has died")
		return
	}
	// The candidate takes over, or dies before it is ready.
	c := s.next
	s.next = nil
	if c.dead || s.faults && s.chance(6) {
		s.note("the candidate dies before it is ready")
		k.failed = "it died before it was ready"
		s.after(backoffFirst, k.restart)
		return
	}
	s.after(s.between(0, 50*time.Millisecond), func() { k.start("the candidate takes over") })
}

// dies is the death of the keeper alone, or with its master.
func (k *keeper) dies(both bool) {
	s := k.s
	s.note("the keeper dies")
	s.keeper, s.next = nil, nil // no candidate can get anything from it
	if both || s.master == nil {
		s.lose()
		s.kill("with its keeper")
	}
	if !s.cfg.stores {
		s.drop()
	}
	s.orphaned = k
	if m := s.master; m != nil {
		s.after(s.between(0, 5*time.Millisecond), func() {
			if m == s.master {
				m.post("the keeper has died", nil, m.keeperDied)
			}
		})
		return
	}
	s.bothDied(k)
}

// lose notes that keeper and master have both died.
func (s *sim) lose() {
	if !s.cfg.stores {
		s.excuse("keeper and master have died")
	}
}

// drop closes what a dead keeper held.
func (s *sim) drop() {
	for _, o := range slices.Clone(s.socks) {
		if o.stored {
			o.stored = false
			s.closed(o)
		}
	}
}

// bothDied: with a service manager that stores, the restart adopts; else Node's workers
// end with their channel, and the service starts anew.
func (s *sim) bothDied(old *keeper) {
	if s.next != nil {
		s.next.dead = true
	}
	k := &keeper{s: s, workers: map[int]*proc{}, waiting: slices.Concat(old.sent, old.waiting)}
	if s.cfg.stores {
		k.record, k.workers = old.record, old.workers
	} else {
		k.waiting = nil
		s.dropAll()
	}
	s.after(s.between(100*time.Millisecond, time.Second), func() {
		if s.keeper == nil && !s.over {
			s.keeper = k
			k.start("the service manager has restarted the keeper")
		}
	})
}

func (s *sim) dropAll() {
	s.drop()
	for _, p := range slices.Clone(s.procs) {
		s.after(s.between(0, 50*time.Millisecond), func() { s.exit(p, "its channel is closed") })
	}
}

// kill kills the master.
func (s *sim) kill(why string) {
	m := s.master
	if m == nil {
		return
	}
	s.note("the master dies: %s", why)
	if s.keeper == nil || m.both {
		s.lose()
	}
	if s.mute() || m.unsaved {
		s.excuse("the record could not be written")
	}
	s.master, s.darkSince = nil, time.Time{}
	m.gone = true
	for _, o := range slices.Clone(s.socks) {
		if o.master {
			o.master = false
			s.closed(o)
		}
	}
}

// inMaster lets a master act, and die of it.
func (s *sim) inMaster(m *master, f func()) {
	defer func() {
		if e := recover(); e != nil {
			if _, ok := e.(killed); !ok {
				panic(e)
			}
			both := m.both
			s.kill("between two actions")
			s.masterDied(both)
		}
	}()
	f()
}

func (s *sim) masterDied(both bool) {
	if s.keeper == nil {
		s.bothDied(s.orphaned)
		return
	}
	if both {
		k := s.keeper
		s.note("the keeper dies, too")
		s.keeper = nil
		s.bothDied(k)
		return
	}
	s.keeper.died()
}

// kept is what a new keeper, or one that reads again, is given.
func (m *master) kept(k *keeper) {
	k.workers = map[int]*proc{}
	for id, w := range m.workers {
		if !w.dead {
			k.workers[int(id)] = w.p
		}
	}
	for _, o := range slices.Clone(m.s.socks) {
		o.stored = slices.ContainsFunc(m.socks, func(l *lease) bool { return l.sock == o })
		m.s.closed(o)
	}
	m.saver.Forget()
	m.written = snapshot.Record{}
}

// keeperDied continues without the keeper, as Master.keeperDied does.
func (m *master) keeperDied() {
	m.keep = nil
	m.order(reload.KeeperDied{})
}

// replaceKeeper is as Master.replaceKeeper.
func (m *master) replaceKeeper() {
	s := m.s
	switch {
	case m.fleet.Stopping():
		return
	case s.cfg.stores: // the service manager has what was stored, and restarts the keeper
		m.drainEvents()
		old := s.orphaned
		s.kill("the service manager restarts handoff")
		s.bothDied(old)
		return
	}
	m.drainEvents()
	m.point("starts a new keeper")
	if s.faults && s.chance(5) {
		s.note("    which fails")
		m.alone = true
		return
	}
	k := &keeper{s: s, workers: map[int]*proc{}}
	r := m.record()
	m.kept(k)
	k.record = &r
	s.keeper = k
	s.kill("the new keeper ends it")
	s.after(s.between(0, 5*time.Millisecond), func() { k.start("its keeper died") })
}
