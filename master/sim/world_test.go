package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"handoff/master/fleet"
	"handoff/master/listeners"
)

// sim is a service in a simulated machine: a keeper, its masters, workers and clients.
type sim struct {
	kernel
	cfg      config
	keeper   *keeper    // nil: none runs
	orphaned *keeper    // the last one that has died: what a service manager has of it
	master   *master    // nil: none runs
	next     *candidate // of an upgrade
	faults   bool       // they may happen
	most     int        // deeds
	deeds    int
	over     bool // the service was stopped, and has ended
	stopping bool // it was told to stop

	steerFails, forkFails, saveFails int // that many times
	muteUntil                        time.Time

	excused   bool // a loss that is documented: see excuse
	darkSince time.Time
	decided   []listeners.Worker // targets that a master has decided on last
	ordered   int                // version that the last order to reload was for
	versions  map[int]int        // by generation
	failed    map[int]bool       // versions that were reported to have failed
	refused   bool               // a reload was reported not to be started since the last order
	reloads   int                // generations
	masters   int
}

// config is what a seed has a service be like.
type config struct {
	fleet  fleet.Config
	hook   bool // before_reload
	stores bool // a service manager stores descriptors
	memory int64
	busy   bool // deeds follow each other closely
	exact  bool // each record is compared as JSON
}

// violation is a broken invariant.
type violation string

// killed is the death of the master between two of its actions.
type killed struct{}

func newSim(seed uint64, most int) *sim {
	r := rand.New(rand.NewPCG(seed, 16))
	s := &sim{kernel: kernel{r: r, now: epoch, lastPID: 100}, faults: true, most: most, failed: map[int]bool{}, versions: map[int]int{}}
	c := &s.cfg
	c.fleet = fleet.Config{Slots: 1 + r.IntN(4), ReadyTimeout: 20 * time.Second, QuietTimeout: 2 * time.Second, DrainTimeout: 10 * time.Second, KillGrace: 3 * time.Second,
		DrainedGrace: time.Second, Respawn: time.Second, Backoff: 20 * time.Second, Stable: 10 * time.Second, MaxFailures: 1 + r.IntN(3), Surge: r.IntN(3)}
	if r.IntN(2) == 0 {
		c.fleet.Strategy = fleet.Slot
	}
	if r.IntN(4) == 0 {
		c.fleet.Canary = 3 * time.Second
	}
	if r.IntN(4) == 0 {
		c.fleet.ReadyDelay = 2 * time.Second
	}
	if r.IntN(6) == 0 {
		c.fleet.DrainSpread = 10 * time.Second
	}
	if r.IntN(6) == 0 {
		c.fleet.MaxAge = 5 * time.Minute
	}
	if r.IntN(6) == 0 {
		c.fleet.ReloadEvery = 10 * time.Minute
	}
	c.exact = r.IntN(8) == 0
	c.hook, c.stores, c.busy = r.IntN(4) == 0, r.IntN(2) == 0, r.IntN(2) == 0
	if r.IntN(4) == 0 {
		c.memory = 100 << 20
	}
	// Of a source of its own: what other seeds do stays.
	c.fleet.NoOverlap = rand.New(rand.NewPCG(seed, 17)).IntN(3) == 0
	s.codes = []code{{}}
	s.deploy(false)
	s.keeper = &keeper{s: s, workers: map[int]*proc{}}
	return s
}

func (s *sim) fail(format string, args ...any) {
	panic(violation(fmt.Sprintf(format, args...)))
}

// excuse notes a loss that is documented: what the record cannot know, since it could not
// be written, or is gone.
func (s *sim) excuse(why string) {
	if !s.excused {
		s.note("from here on losses are excused, until the next rest: %s", why)
	}
	s.excused = true
}

// deploy puts another version on disk. good: it works.
func (s *sim) deploy(maybeBad bool) {
	c := code{boots: s.between(10*time.Millisecond, 3*time.Second), drains: s.between(0, 3*time.Second)}
	if maybeBad {
		switch s.r.IntN(16) {
		case 0:
			c.missing = true
		case 1, 2:
			c.crashes = true
		case 3:
			c.neverTold = true
		}
	}
	c.stubborn = max(0, s.r.IntN(10)-7)
	s.codes = append(s.codes, c)
	s.version = len(s.codes) - 1
	s.note("version %d is deployed: %+v", s.version, c)
}

// fork starts a worker.
func (s *sim) fork(id, slot, gen, version int) *proc {
	s.lastPID++
	p := &proc{pid: s.lastPID, id: id, slot: slot, gen: gen, version: version, code: s.codes[version]}
	for _, o := range s.procs {
		if s.cfg.fleet.NoOverlap && o.slot == slot && !o.killed && !s.excused {
			s.fail("%v is started beside %v", p, o)
		}
	}
	s.procs = append(s.procs, p)
	s.after(s.between(p.code.boots/2, p.code.boots), func() {
		switch {
		case p.dead || p.hung:
		case p.code.crashes:
			s.exit(p, "crashes in its start")
		case p.code.neverTold:
		default:
			s.tell(p, "asks for its socket", func(m *master) { m.lease(p) })
		}
	})
	return p
}

// tell has a worker's message arrive, soon or late, once or twice.
func (s *sim) tell(p *proc, what string, f func(*master)) {
	s.after(s.delay(), func() {
		if m := s.master; m != nil && m.of(p) != nil {
			m.post(what, p, func() { f(m) })
			return
		}
		if !p.dead && s.keeper != nil { // it is in the socket's buffer
			s.after(50*time.Millisecond, func() { s.tell(p, what, f) })
		}
	})
}

// delay is how long a notice takes.
func (s *sim) delay() time.Duration {
	if s.faults && s.chance(20) {
		return s.between(0, 3*time.Second)
	}
	return s.between(0, 2*time.Millisecond)
}

// exit ends a process, and closes what it has.
func (s *sim) exit(p *proc, why string) {
	if p.dead {
		return
	}
	s.note("%v ends: %s", p, why)
	p.dead = true
	s.procs = slices.DeleteFunc(s.procs, func(o *proc) bool { return o == p })
	socks := p.socks
	p.socks = nil
	for _, sock := range socks {
		s.closed(sock)
		s.waits(sock)
	}
	if s.master != nil {
		s.master.watch(p)
	}
}

// closed has a socket go when nobody has it any more.
func (s *sim) closed(o *sock) {
	if o.closed || o.master || o.stored || s.held(o) {
		return
	}
	o.closed = true
	s.socks = slices.DeleteFunc(s.socks, func(x *sock) bool { return x == o })
	s.program = slices.DeleteFunc(slices.Clone(s.program), func(x *sock) bool { return x == o })
	if o.queue > 0 && !s.stopping && !s.excused {
		s.fail("socket %d is closed with %d connections queued", o.ino, o.queue)
	}
	o.queue = 0
}

// connect has a client connect, once the service serves.
func (s *sim) connect() {
	if len(s.program) == 0 {
		return
	}
	o := s.program[s.r.IntN(len(s.program))]
	o.queue++
	s.waits(o)
}

// waits has the connections of a socket accepted by who can.
func (s *sim) waits(o *sock) {
	if o.queue == 0 || o.closed {
		return
	}
	if p := s.reader(o); p != nil {
		s.after(s.between(0, 5*time.Millisecond), func() { s.accept(p, o) })
	} else if m := s.master; m != nil && !s.held(o) {
		m.queued()
	}
}

func (s *sim) accept(p *proc, o *sock) {
	if o.queue == 0 {
		return
	}
	if p.dead || p.hung || !slices.Contains(p.socks, o) {
		s.waits(o)
		return
	}
	n := o.queue
	o.queue = 0
	s.serve(p, n)
}

// serve has a process answer connections.
func (s *sim) serve(p *proc, n int) {
	p.active += n
	s.after(s.between(0, 2*time.Second), func() {
		p.active -= n
		s.drained(p)
	})
}

// drained ends a process that was told to, and has nothing left.
func (s *sim) drained(p *proc) {
	if p.dead || !p.told || p.hung || p.active > 0 || p.code.stubborn > 0 {
		return
	}
	s.after(s.between(0, p.code.drains), func() { s.exit(p, "drained") })
}

// signal has the master tell a process to go.
func (s *sim) signal(p *proc, what string) {
	s.note("    %s %v", what, p)
	if p.dead {
		return
	}
	// A worker that starts may have been given the socket of a dead one, to which
	// connections still come: the next master starts another.
	// Without overlap one that hangs must end before another one can have the socket.
	gives := s.cfg.fleet.NoOverlap && p.abandoned && what == "KILL"
	if p.aimed && s.steeredTo(p) && !s.stopping && !s.excused && !gives {
		s.fail("%s %v, to which connections are steered", what, p)
	}
	p.told = true
	switch what {
	case "drain":
		for _, o := range p.socks { // it stops listening, having accepted what is queued
			if !p.hung && o.queue > 0 {
				n := o.queue
				o.queue = 0
				s.serve(p, n)
			}
		}
		if !p.hung && p.code.stubborn == 0 {
			socks := p.socks
			p.socks = nil
			for _, o := range socks {
				s.closed(o)
			}
		}
		s.drained(p)
	case "TERM":
		p.termed = true
		if !p.hung && p.code.stubborn < 2 {
			s.after(s.between(0, time.Second), func() { s.exit(p, "SIGTERM") })
		}
	case "KILL":
		p.killed = true
		s.after(s.between(0, 5*time.Millisecond), func() { s.exit(p, "SIGKILL") })
	}
}
