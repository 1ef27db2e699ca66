package sim

import (
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"handoff/master/fleet"
	"handoff/master/listeners"
	"handoff/master/reload"
	"handoff/master/sequence"
	"handoff/master/snapshot"
)

// Do is as Master.do.
func (m *master) Do(a fleet.Action) {
	m.point("%T%+v", a, a)
	switch a := a.(type) {
	case fleet.Prepare:
		m.prepare(a.Gen)
	case fleet.Forget:
		delete(m.gens, a.Gen)
	case fleet.Spawn:
		m.spawn(a)
	case fleet.Quiesce:
		m.quieting[a.ID] = m.s.now.Add(100 * time.Millisecond)
	case fleet.Drain:
		delete(m.quieting, a.ID)
		if w := m.workers[a.ID]; w != nil {
			m.s.signal(w.p, "drain")
		}
	case fleet.Signal:
		if w := m.workers[a.ID]; w != nil {
			m.s.signal(w.p, map[bool]string{true: "KILL", false: "TERM"}[a.Kill])
		}
	case fleet.Abandon:
		if w := m.workers[a.ID]; w != nil {
			w.p.abandoned = true
			m.releaseAll(a.ID)
			m.resteer()
		}
	case fleet.Renew:
		m.order(reload.Order{Upgrade: true})
	case fleet.Recycle:
	case fleet.Unlisten:
		m.order(reload.Stopping{})
		m.s.stopping = true
		for _, l := range m.socks {
			m.drop(l.sock)
		}
		m.socks = nil
	case fleet.Live:
		m.order(reload.Ended{Generation: int(a.Gen), Outcome: reload.Served})
	case fleet.Failed:
		m.s.failed[m.gens[a.Gen]] = true
		if a.Back > 0 {
			m.order(reload.Ended{Generation: int(a.Gen), Outcome: reload.Failed, Reason: a.Reason})
		}
	case fleet.NotScaled, fleet.NotRestarted:
	case fleet.Done:
		m.done = &a
	default:
		m.s.fail("unknown action %T", a)
	}
}

func (m *master) prepare(gen fleet.Gen) {
	m.s.reloads++
	m.order(reload.Began{Generation: int(gen)})
	m.gens[gen], m.s.versions[int(gen)] = m.s.version, m.s.version
	if m.s.codes[m.s.version].missing {
		m.step(fleet.Broken{Gen: gen, Reason: "no such file"})
	}
}

// spawn starts a worker's process, and stores its pidfd.
func (m *master) spawn(a fleet.Spawn) {
	s := m.s
	version, ok := m.gens[a.Gen]
	if !ok {
		s.fail("%+v: its generation is not known", a)
	}
	switch {
	case s.codes[version].missing:
		m.step(fleet.Exited{ID: a.ID, Reason: "no such file"})
		return
	case s.forkFails > 0:
		s.forkFails--
		s.note("    fork fails")
		m.step(fleet.Exited{ID: a.ID, Reason: "fork: resource temporarily unavailable"})
		return
	}
	p := s.fork(int(a.ID), a.Slot, int(a.Gen), version)
	m.point("has forked %v", p)
	m.workers[a.ID] = &worker{p: p, id: a.ID, slot: a.Slot, gen: a.Gen}
	m.store("its pidfd", func(k *keeper) { k.workers[int(a.ID)] = p })
	m.watch(p)
}

// watch waits for a worker's death, whose last messages are still read.
func (m *master) watch(p *proc) {
	w := m.of(p)
	if w == nil || !p.dead || m.tracked[p] {
		return
	}
	m.tracked[p] = true
	m.s.after(m.s.between(0, time.Millisecond), func() { m.post("its death", p, func() { m.died(w) }) })
	m.s.after(m.s.between(time.Duration(1+150*m.s.r.IntN(2))*time.Millisecond, 200*time.Millisecond), func() { m.post("its end", p, func() { m.reaped(w) }) })
}

// died is as Master.died.
func (m *master) died(w *worker) {
	w.dead = true
	m.releaseAll(w.id)
	m.step(fleet.Died{ID: w.id})
	m.resteer()
}

// reaped is as Master.ended.
func (m *master) reaped(w *worker) {
	if m.workers[w.id] != w {
		return
	}
	if !w.dead { // the death is always heard first
		m.died(w)
	}
	delete(m.workers, w.id)
	delete(m.quieting, w.id)
	m.store("that it has ended", func(k *keeper) { delete(k.workers, int(w.id)) })
	m.step(fleet.Exited{ID: w.id, Reason: "it ended"})
}

// lease gives a worker its socket, as Group.Take and Group.pick do; it listens soon.
func (m *master) lease(p *proc) {
	w := m.of(p)
	if w == nil || w.dead || m.fleet.Stopping() || slices.ContainsFunc(m.socks, func(l *lease) bool { return l.worker == listeners.Worker(p.id) }) {
		return
	}
	var l *lease
	best := 0
	for _, o := range m.socks {
		if o.worker != 0 {
			continue
		}
		rank := 1
		switch target := o.waits || slices.Contains(m.program, o.sock); {
		case target && o.slot == w.slot:
			rank = 4
		case target:
			rank = 3
		case o.sock.queue > 0:
			rank = 2
		}
		if rank > best {
			l, best = o, rank
		}
	}
	if l == nil {
		l = m.open()
	}
	l.worker, l.slot, l.listening = listeners.Worker(p.id), w.slot, false
	m.point("gives %v socket %d", p, l.sock.ino)
	if p.dead {
		return
	}
	p.socks = append(p.socks, l.sock)
	m.s.waits(l.sock)
	p.serving = true
	lost := m.s.faults && m.s.chance(200)
	for range 1 + m.s.r.IntN(8)/7 { // now and then it says it twice
		if !lost {
			m.s.tell(p, "listens", func(m *master) { m.listening(p) })
		}
	}
}

// open opens a socket.
func (m *master) open() *lease {
	l := &lease{sock: m.s.listen()}
	m.socks = append(m.socks, l)
	m.point("has opened socket %d", l.sock.ino)
	m.store("it", func(*keeper) { l.sock.stored = true })
	return l
}

func (m *master) listening(p *proc) {
	w := m.of(p)
	if w == nil || w.dead {
		return
	}
	for _, l := range m.socks {
		l.listening = l.listening || l.worker == listeners.Worker(p.id)
	}
	m.resteer()
	m.step(fleet.Ready{ID: w.id, Seems: true})
}

func (m *master) releaseAll(id fleet.ID) {
	for _, l := range m.socks {
		if l.worker == listeners.Worker(id) {
			l.worker, l.listening = 0, false
		}
	}
}

// drop closes a socket, also in the store.
func (m *master) drop(o *sock) {
	o.master = false
	m.store("that it is closed", func(*keeper) { o.stored = false })
	m.s.closed(o)
}

func (m *master) resteer() { sequence.Resteer(m, m.step) }

// Aim sets the targets.
func (m *master) Aim(ids []fleet.ID) (undo func()) {
	before := m.targets
	m.targets = make([]listeners.Worker, m.fleet.Slots())
	for _, id := range ids {
		w := m.workers[id]
		if w == nil {
			continue
		}
		for len(m.targets) <= w.slot {
			m.targets = append(m.targets, 0)
		}
		m.targets[w.slot] = listeners.Worker(id)
	}
	m.s.decided = m.targets
	m.point("aims at %v", ids)
	return func() { m.targets = before }
}

// Steer is as Table.Steer, with one address.
func (m *master) Steer() error {
	var to []*sock
	left := false // to somebody who is to give way
	for _, l := range m.socks {
		left = left || l.worker != 0 && l.listening && slices.Contains(m.fleet.GivingWay(), fleet.ID(l.worker))
	}
	for _, id := range m.targets {
		for _, l := range m.socks {
			if id != 0 && l.worker == id && l.listening {
				to = append(to, l.sock)
			}
		}
	}
	waits := len(to) == 0 && left
	if waits {
		for _, l := range m.socks { // they may do so already, since a master before
			if l.waits && l.worker == 0 {
				to = append(to, l.sock)
			}
		}
		if len(to) == 0 {
			to = m.waiting(max(len(m.targets), 1))
		}
	}
	if len(to) == 0 {
		return nil
	}
	if slices.Equal(to, m.program) {
		m.steered(to, waits) // a worker has taken the socket in which connections have waited
		return nil
	}
	m.point("steers to %v", m.targets)
	if m.s.steerFails > 0 {
		m.s.steerFails--
		m.s.note("    which the kernel refuses")
		m.s.darkSince = time.Time{}
		for _, l := range m.socks {
			l.waits = l.waits && slices.Contains(m.program, l.sock)
		}
		return errSteer
	}
	m.program, m.s.program = to, slices.Clone(to)
	m.steered(to, waits)
	return nil
}

func (m *master) steered(to []*sock, waits bool) {
	for _, l := range m.socks {
		l.waits = waits && slices.Contains(to, l.sock)
	}
	for _, id := range m.targets {
		if w := m.workers[fleet.ID(id)]; w != nil {
			w.p.aimed = true
		}
	}
}

// waiting are n sockets that nobody accepts from, as Group.LetWait has them.
func (m *master) waiting(n int) (all []*sock) {
	for slot := range n {
		i := slices.IndexFunc(m.socks, func(l *lease) bool {
			return l.worker == 0 && !slices.Contains(all, l.sock) && !m.s.held(l.sock)
		})
		l := (*lease)(nil)
		if i >= 0 {
			l = m.socks[i]
		} else {
			l = m.open()
		}
		l.slot, l.waits = slot, true
		all = append(all, l.sock)
	}
	m.point("has %d sockets in which connections wait", n)
	m.Save() // the next master must know them before connections come
	return all
}

func (m *master) Steered() { m.point("has steered") }

// Retry hands the connections of parked sockets to workers that stay.
func (m *master) Retry() {
	for _, l := range m.socks {
		if l.worker != 0 || l.sock.queue == 0 || m.s.held(l.sock) {
			continue
		}
		for _, fw := range m.fleet.Workers() {
			w := m.workers[fw.ID]
			if fw.Phase == fleet.Serving && w != nil && !w.p.dead && !w.p.hung {
				m.point("hands connections of socket %d to %v", l.sock.ino, w.p)
				n := l.sock.queue
				l.sock.queue = 0
				m.s.serve(w.p, n)
				break
			}
		}
	}
}

// queued: connections are at a socket without a process.
func (m *master) queued() { m.post(queuedConnections, nil, m.Retry) }

func (m *master) signalled(sig unix.Signal) {
	m.pending = slices.DeleteFunc(m.pending, func(s unix.Signal) bool { return s == sig })
	m.saver.Handled(sig)
	switch sig {
	case unix.SIGUSR2:
		m.order(reload.Order{Upgrade: true})
	case unix.SIGHUP:
		m.order(reload.Order{})
	case unix.SIGTERM:
		m.step(fleet.Stop{Now: m.fleet.Stopping()})
	case unix.SIGTTIN, unix.SIGTTOU:
		if n := m.fleet.Slots() + map[bool]int{true: 1, false: -1}[sig == unix.SIGTTIN]; n >= 1 && n <= 5 {
			m.step(fleet.SetSlots{N: n})
		}
	}
}

// CarryOut is as Master.carryOut.
func (m *master) CarryOut(a reload.Action) {
	m.point("%T%+v", a, a)
	s := m.s
	switch a := a.(type) {
	case reload.Ask:
		refused := ""
		if s.faults && s.chance(8) {
			refused = "the hook says no"
		}
		s.after(s.between(0, time.Second), func() { m.post("the hook's answer", nil, func() { m.order(reload.Judged{Refused: refused}) }) })
	case reload.ReadAgain:
		e := reload.Reread{Upgrade: a.Upgrade, Changed: a.Upgrade && s.faults && s.chance(6)}
		if s.faults && s.chance(40) {
			e = reload.Reread{Upgrade: a.Upgrade, Wrong: "it cannot be read"}
		}
		m.order(e)
	case reload.Reload:
		m.step(fleet.Reload{})
	case reload.Upgrade:
		m.upgrade()
	case reload.NotReloaded:
		s.refused = true
	case reload.Finished:
		if a.Result.Outcome == reload.Failed {
			s.failed[s.versions[a.Result.Generation]] = true
		}
	case reload.UpgradeFailed:
	case reload.ReplaceKeeper:
		m.steps.AtRest = m.replaceKeeper
	case reload.Leave:
		m.steps.AtRest = func() {
			m.drainEvents()
			if m.reloads.Phase != reload.Leaving {
				return
			}
			m.Save()
			m.replaced = true
		}
	default:
		s.fail("unknown action %T", a)
	}
}

// upgrade starts a candidate, which says whether it understands the record.
func (m *master) upgrade() {
	s := m.s
	if m.keep == nil || m.muted || m.fleet.Stopping() {
		m.order(reload.UpgradeEnded{Failed: "there is no keeper"})
		return
	}
	failed := ""
	if s.faults && s.chance(4) {
		failed = "it does not start"
	}
	if _, err := snapshot.Parse(encode(m.record())); err != nil {
		failed = err.Error()
	}
	s.after(s.between(0, 200*time.Millisecond), func() {
		if m.gone {
			return
		}
		if failed == "" && m.reloads.Phase == reload.Upgrading {
			s.next = &candidate{}
		}
		m.post("the candidate's answer", nil, func() { m.order(reload.UpgradeEnded{Failed: failed}) })
	})
}

// drainEvents handles what has been posted, but signals, which the keeper tells the next
// master.
func (m *master) drainEvents() {
	mail := m.mail
	m.mail = nil
	for _, e := range mail {
		if !strings.HasPrefix(e.what, "signal ") {
			m.point("hears at last: %s", e.what)
			e.f()
		}
	}
}

// leave ends this master for the candidate.
func (m *master) leave() {
	m.point("leaves")
	if m.s.keeper != nil && m.keep == m.s.keeper {
		m.keep.leaving = true
	}
	m.s.kill("it leaves for the candidate")
	m.s.masterDied(false)
}
