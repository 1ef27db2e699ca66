package sim

import (
	"fmt"
	"slices"
	"time"

	"handoff/master/fleet"
)

// darkLimit is how long connections may go to a worker that is dead, while others serve.
const darkLimit = time.Second

// check checks the invariants of each moment.
func (s *sim) check() {
	m := s.master
	if m == nil || m.replaced || m.ended || s.over {
		return
	}
	if s.excused && s.unrest() == "" {
		s.note("at rest: losses are no longer excused")
		s.excused = false
		for _, p := range s.procs {
			p.told = p.killed // not by a master whose record is lost; it has ignored that
		}
	}
	s.lit()
	if len(m.mail) > 0 {
		return
	}
	for i, p := range s.procs {
		if p.told {
			continue
		}
		if m.of(p) == nil {
			s.fail("%v is forgotten", p)
		}
		for _, o := range s.procs[:i] {
			if o.slot == p.slot && o.gen == p.gen && !o.told && !m.goes(o) && !m.goes(p) && !m.doubled(o) && !m.doubled(p) {
				s.fail("two workers have a slot: %v and %v", o, p)
			}
		}
	}
}

// goes reports whether a worker is to be replaced.
func (m *master) goes(p *proc) bool {
	w := m.fleet.Worker(fleet.ID(p.id))
	return w.Leaving || w.ID == 0 || w.Phase > fleet.Serving || p.slot >= m.fleet.Slots()
}

// doubled reports whether another start was ordered beside one that takes long.
func (m *master) doubled(p *proc) bool {
	return slices.ContainsFunc(m.fleet.State().Workers, func(w fleet.WorkerState) bool { return w.ID == fleet.ID(p.id) && w.Doubled })
}

// lit checks that connections go to no dead worker while others serve.
func (s *sim) lit() {
	dark, served := false, false
	for _, o := range s.program {
		all := s.readers(o)
		dark = dark || len(all) == 0
		served = served || slices.ContainsFunc(all, func(p *proc) bool { return p.aimed && !p.told })
	}
	switch {
	case !dark || !served || s.stopping || s.excused:
		s.darkSince = time.Time{}
	case s.darkSince.IsZero():
		s.darkSince = s.now
	case s.now.Sub(s.darkSince) > darkLimit:
		s.fail("connections go to a dead worker, while others serve, for %v", s.now.Sub(s.darkSince))
	}
}

// end: the service has stopped.
func (s *sim) end() {
	s.note("the service has ended")
	s.over = true
	for _, p := range s.procs {
		if !p.killed {
			s.fail("%v is left after the end", p)
		}
	}
	s.timers = nil
}

// unrest says why the service is not at rest; "": it is.
func (s *sim) unrest() string {
	m := s.master
	switch {
	case m == nil:
		return "there is no master"
	case s.keeper == nil && !m.alone:
		return "there is no keeper"
	case m.reloads.Phase != 0:
		return fmt.Sprintf("the master is busy: %v", m.reloads.Phase)
	case m.fleet.Wanted() != m.fleet.Live():
		return "the wanted generation is not live"
	case len(s.procs) != m.fleet.Slots() || len(m.workers) != m.fleet.Slots():
		return "the number of workers is not the wanted one"
	case m.keep != nil && (m.unsaved || m.muted):
		return "the record was not written"
	}
	for _, p := range s.procs {
		switch {
		case p.killed || p.told && !s.excused || !p.serving || fleet.Gen(p.gen) != m.fleet.Live():
			return p.String() + " is another one than wanted"
		case !s.steeredTo(p):
			return p.String() + " serves, and gets no connections"
		}
	}
	for _, o := range s.socks {
		if o.queue > 0 && s.reader(o) == nil {
			return "connections wait where nobody accepts"
		}
	}
	if len(s.program) != len(s.procs) {
		return "connections go to others, too"
	}
	return ""
}

// maxRest is how long a service may take to come to rest.
const maxRest = 10 * time.Minute

// settle ends the faults, and checks that the service comes to rest.
func (s *sim) settle() {
	s.note("from here on, no faults")
	s.faults, s.steerFails, s.forkFails, s.saveFails = false, 0, 0, 0
	if s.mute() {
		s.muteUntil = s.now
	}
	if s.master != nil {
		s.master.fuse = 0
	}
	for _, p := range slices.Clone(s.procs) {
		if p.hung && s.chance(2) {
			s.wakes(p)
		}
	}
	began := s.now
	s.after(5*time.Second, func() {})
	for !s.over && (s.unrest() != "" || s.now.Sub(began) < 5*time.Second) {
		if s.now.Sub(began) > maxRest {
			s.fail("no rest after %v: %s", maxRest, s.unrest())
		}
		if !s.turn() {
			if s.unrest() == "" {
				break
			}
			s.fail("no rest, and nothing happens any more: %s", s.unrest())
		}
	}
	if s.over {
		return
	}
	m := s.master
	s.note("at rest: generation %d, version %d, %d workers", m.fleet.Live(), m.gens[m.fleet.Live()], m.fleet.Slots())
	if v := m.gens[m.fleet.Live()]; v < s.ordered && !s.refused && !s.failed[s.ordered] {
		s.fail("a reload was ordered for version %d, and version %d serves", s.ordered, v)
	}
	if m.keep == nil {
		return
	}
	if len(m.keep.workers) != len(m.workers) {
		s.fail("the store has %d workers, and %d are known", len(m.keep.workers), len(m.workers))
	}
	for _, o := range s.socks {
		if o.stored != o.master {
			s.fail("socket %d: in the store %v, the master has it %v", o.ino, o.stored, o.master)
		}
	}
	if m.differs(m.record()) {
		s.fail("the record in the store is not the current one")
	}
}

// turn has the next thing happen.
func (s *sim) turn() bool {
	f := s.upcoming()
	if f == nil {
		return false
	}
	f()
	s.check()
	return true
}

// run runs a service, until its deeds are done and it has come to rest.
func (s *sim) run() {
	s.keeper.start("the service begins")
	s.after(s.between(0, 10*time.Second), s.disturb)
	for !s.over && s.deeds < s.most {
		if !s.turn() {
			s.fail("nothing happens any more: %s", s.unrest())
		}
	}
	s.settle()
}
