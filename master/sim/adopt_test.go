package sim

import (
	"encoding/json"
	"slices"
	"strconv"

	"handoff/master/fleet"
	"handoff/master/listeners"
	"handoff/master/reload"
	"handoff/master/sequence"
	"handoff/master/snapshot"
)

func encode(r snapshot.Record) []byte {
	b, err := json.Marshal(r)
	if err != nil {
		panic(err)
	}
	return b
}

// heir is a master that takes over.
type heir struct {
	*master
	r snapshot.Record
}

func (h heir) Begin(f *fleet.Fleet, r *reload.Machine) { h.fleet, h.reloads = f, r }
func (h heir) Has(id fleet.ID) bool                    { return h.workers[id] != nil }
func (h heir) Dead(id fleet.ID) bool                   { return h.workers[id].p.dead }
func (h heir) Lost(id fleet.ID)                        { h.releaseAll(id) }

func (m *master) takeOver(r snapshot.Record, upgradeFailed string) (first func()) {
	before := slices.Clone(m.s.program)
	first = sequence.TakeOver(heir{m, r}, m.s.cfg.fleet, m.s.cfg.hook, upgradeFailed, r)
	m.s.notSteeredBack(before)
	for _, w := range sorted(m.workers) {
		m.watch(w.p)
	}
	return first
}

func sorted(workers map[fleet.ID]*worker) (all []*worker) {
	for _, w := range workers {
		all = append(all, w)
	}
	slices.SortFunc(all, func(a, b *worker) int { return int(a.id - b.id) })
	return all
}

// Adopt takes over what is in the record, and stored.
func (h heir) Adopt() {
	m, s := h.master, h.s
	m.targets = h.r.Targets
	for _, gr := range h.r.Generations {
		m.gens[gr.Gen] = gr.Drain
	}
	for _, gen := range h.r.Fleet.Known {
		if _, ok := m.gens[gen]; !ok { // it was ordered, and not started
			m.prepare(gen)
		}
	}
	for _, a := range h.r.Addresses {
		for _, sr := range a.Sockets {
			i := slices.IndexFunc(s.socks, func(o *sock) bool { return o.ino == sr.Inode && o.stored })
			if i < 0 {
				continue
			}
			l := &lease{sock: s.socks[i], slot: sr.Slot, waits: sr.Waits}
			l.sock.master = true
			for _, lr := range a.Leases {
				if lr.Inode == sr.Inode {
					l.worker, l.listening = lr.Worker, lr.Listening
				}
			}
			m.socks = append(m.socks, l)
		}
	}
	for _, wr := range h.r.Workers {
		if p := m.keep.workers[int(wr.ID)]; p != nil {
			m.workers[wr.ID] = &worker{p: p, id: wr.ID, slot: wr.Slot, gen: wr.Gen}
			m.point("adopts %v", p)
		}
	}
}

// Discard kills who is not in the record, and closes what is not.
func (h heir) Discard(unrecorded func(fleet.ID) bool) { h.discard(unrecorded) }

func (m *master) discard(unrecorded func(fleet.ID) bool) {
	s := m.s
	var stored []int
	for id := range m.keep.workers {
		if m.workers[fleet.ID(id)] == nil {
			stored = append(stored, id)
		}
	}
	slices.Sort(stored)
	for _, id := range stored {
		p := m.keep.workers[id]
		m.point("kills, as it was stored and not recorded: worker %s", strconv.Itoa(id))
		s.signal(p, "KILL")
		m.store("that it is gone", func(k *keeper) { delete(k.workers, id) })
	}
	for _, o := range slices.Clone(s.socks) {
		if o.stored && !slices.ContainsFunc(m.socks, func(l *lease) bool { return l.sock == o }) {
			m.point("closes socket %d, which is stored and not recorded", o.ino)
			m.store("that it is closed", func(*keeper) { o.stored = false })
			s.closed(o)
		}
	}
	for _, p := range slices.Clone(s.procs) {
		if !p.killed && m.of(p) == nil && unrecorded(fleet.ID(p.id)) {
			m.point("kills, as it was not recorded: %v", p)
			s.signal(p, "KILL")
		}
	}
}

// notSteeredBack: what a master does first leaves connections where they went, or where
// the previous one was about to send them.
func (s *sim) notSteeredBack(before []*sock) {
	if s.excused || s.stopping {
		return
	}
	if s.cfg.fleet.NoOverlap && !slices.ContainsFunc(s.program, s.held) {
		return // to nobody: they wait
	}
	for _, o := range before {
		p := s.reader(o)
		if p == nil || p.told || !p.aimed || p.abandoned || slices.Contains(s.program, o) || !slices.Contains(s.decided, listeners.Worker(p.id)) {
			continue
		}
		s.fail("the next master steers away from %v, to which the previous one had steered", p)
	}
}
