package sim

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"handoff/master/fleet"
	"handoff/master/reload"
)

// deeds are what happens to a service, from outside and by chance, with how often.
var deeds = []struct {
	weight int
	name   string
	do     func(s *sim)
}{
	{50, "somebody deploys and reloads", func(s *sim) {
		s.deploy(true)
		s.reload(unix.SIGUSR2)
	}},
	{8, "somebody reloads", func(s *sim) { s.reload([]unix.Signal{unix.SIGUSR2, unix.SIGHUP}[s.r.IntN(2)]) }},
	{10, "a worker dies", func(s *sim) {
		if p := s.any(); p != nil {
			s.exit(p, "it crashes")
		}
	}},
	{3, "half of the workers die", func(s *sim) {
		for _, p := range slices.Clone(s.procs) {
			if s.chance(2) {
				s.exit(p, "it crashes")
			}
		}
	}},
	{4, "a worker hangs", func(s *sim) {
		if p := s.any(); p != nil && !p.hung {
			s.hang(p)
		}
	}},
	{4, "a worker asks to be replaced", func(s *sim) {
		if p := s.any(); p != nil && !p.hung {
			s.tell(p, "asks to be replaced", func(m *master) {
				if m.fleet.Stays(fleet.ID(p.id)) {
					m.step(fleet.Leave{ID: fleet.ID(p.id)})
				}
			})
		}
	}},
	{2, "a worker leaks", func(s *sim) {
		if p := s.any(); p != nil {
			p.mem = 200 << 20
		}
	}},
	{3, "somebody restarts a worker", func(s *sim) {
		if p := s.any(); p != nil {
			s.call("restart", func(m *master) { m.step(fleet.Restart{ID: fleet.ID(p.id)}) })
		}
	}},
	{4, "somebody scales", func(s *sim) {
		n := 1 + s.r.IntN(5)
		s.call("scale", func(m *master) { m.step(fleet.SetSlots{N: n}) })
	}},
	{4, "somebody scales by one", func(s *sim) { s.send([]unix.Signal{unix.SIGTTIN, unix.SIGTTOU}[s.r.IntN(2)]) }},
	{3, "somebody upgrades", func(s *sim) { s.call("upgrade", func(m *master) { m.order(reload.UpgradeOrder{}) }) }},
	{20, "the master will die", func(s *sim) {
		if m := s.master; m != nil {
			m.fuse, m.both = 1+s.r.IntN(1<<(1+s.r.IntN(6))), s.chance(6)
		}
	}},
	{4, "the master dies", func(s *sim) {
		if s.master != nil {
			s.master.both = false
			s.kill("now")
			s.masterDied(false)
		}
	}},
	{3, "the keeper dies", func(s *sim) {
		if s.keeper != nil {
			s.keeper.dies(false)
		}
	}},
	{1, "keeper and master die", func(s *sim) {
		if s.keeper != nil {
			s.keeper.dies(true)
		}
	}},
	{2, "the keeper is stopped for a while", func(s *sim) { s.muteUntil = s.now.Add(s.between(0, 4*time.Second)) }},
	{5, "steering will fail", func(s *sim) { s.steerFails = 1 + s.r.IntN(4) }},
	{3, "fork will fail", func(s *sim) { s.forkFails = 1 + s.r.IntN(3) }},
	{3, "the record will not be written", func(s *sim) { s.saveFails = 1 + s.r.IntN(3) }},
	{1, "the candidate dies", func(s *sim) {
		if s.next != nil {
			s.next.dead = true
		}
	}},
	{1, "somebody stops the service", func(s *sim) {
		if s.chance(8) {
			s.send(unix.SIGTERM)
		}
	}},
}

// disturb does one of them, and later the next.
func (s *sim) disturb() {
	if s.over || s.deeds == s.most {
		return
	}
	s.deeds++
	total := 0
	for _, d := range deeds {
		total += d.weight
	}
	n := s.r.IntN(total)
	for _, d := range deeds {
		if n -= d.weight; n < 0 {
			s.note("%d. %s", s.deeds, d.name)
			d.do(s)
			break
		}
	}
	for range s.r.IntN(6) {
		s.after(s.between(0, 2*time.Second), s.connect)
	}
	wait := s.between(0, 500*time.Millisecond)
	if s.chance(3) {
		wait = s.between(0, 50*time.Millisecond)
	}
	if !s.cfg.busy || s.chance(4) {
		wait = s.between(0, 5*time.Minute)
	}
	s.after(wait, s.disturb)
}

// any is a worker that has not been told to go, nil if there is none.
func (s *sim) any() *proc {
	var all []*proc
	for _, p := range s.procs {
		if !p.told || s.chance(4) {
			all = append(all, p)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all[s.r.IntN(len(all))]
}

// hang has a worker accept nothing any more, for a while or for ever.
func (s *sim) hang(p *proc) {
	p.hung = true
	if s.chance(2) {
		s.after(s.between(0, 4*time.Second), func() { s.wakes(p) })
	}
	s.stalls(p)
}

// stalls has the master notice that a worker hangs, again and again.
func (s *sim) stalls(p *proc) {
	s.after(3*time.Second, func() {
		if p.hung && !p.dead && !p.told && !s.over {
			s.call("a worker does not respond", func(m *master) { m.step(fleet.Hung{ID: fleet.ID(p.id), Reason: "stalled", Stalled: true}) })
			s.stalls(p)
		}
	})
}

func (s *sim) wakes(p *proc) {
	if p.dead {
		return
	}
	p.hung = false
	for _, o := range p.socks {
		s.waits(o)
	}
	if p.termed && p.code.stubborn < 2 {
		s.exit(p, "SIGTERM")
	}
	s.drained(p)
}

// reload orders one, and what is on disk is to be served.
func (s *sim) reload(sig unix.Signal) {
	s.ordered, s.refused = s.version, false
	s.send(sig)
}

// send signals the keeper, or the master that could not start another.
func (s *sim) send(sig unix.Signal) {
	switch {
	case s.mute():
		s.after(s.muteUntil.Sub(s.now), func() { s.send(sig) })
	case s.keeper != nil:
		s.keeper.signal(sig)
	case s.master != nil && s.master.alone:
		s.master.post("signal", nil, func() { s.master.signalled(sig) })
	default:
		s.refused = true // there is nobody to take it
	}
}

// call is a call of the control API, or a notice; nobody hears it without a master.
func (s *sim) call(what string, f func(m *master)) {
	s.after(s.between(0, 5*time.Millisecond), func() {
		if m := s.master; m != nil {
			m.post(what, nil, func() { f(m) })
		}
	})
}
