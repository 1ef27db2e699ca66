package master

import (
	"slices"
	"strings"
	"time"

	"handoff/internal/events"
	"handoff/master/descendants"
	"handoff/master/fleet"
	"handoff/master/health"
	"handoff/master/launch"
	"handoff/master/listeners"
	"handoff/master/readiness"
	"handoff/master/serving"
)

// The loop's side of the room master/readiness: asks it, and says what it finds.

// workforce are the workers, their programs, and which of those that start claim to be ready.
type workforce struct {
	workers   map[fleet.ID]*worker
	programs  *launch.Programs
	readiness *readiness.Room
	health    *health.Room
}

// claims: a worker claims to be ready.
func (m *Master) claims(w *worker, what readiness.Claim) {
	if fw := m.fleet.Worker(w.id); fw.ID != 0 && fw.Phase == fleet.Starting && !w.dead {
		m.readiness.Claimed(time.Now(), readiness.Worker{ID: readiness.ID(w.id), Slot: w.slot, Gen: int(w.gen)}, what)
	}
	m.judge()
}

// judge decides on the workers that claim to be ready.
func (m *Master) judge() {
	for _, v := range m.readiness.Judge(time.Now(), facts{m}) {
		switch w := m.workers[fleet.ID(v.ID)]; {
		case w == nil || w.dead:
		case v.Lacks != "":
			if m.lacks(w, v); v.Ready {
				m.ready(w)
			}
		default:
			m.ready(w)
		}
	}
}

// recheck looks again at the workers that have seemed ready for as long as they must.
func (m *Master) recheck(now time.Time) {
	for _, fw := range m.fleet.Workers() {
		if at := fw.Seems(); at.IsZero() || now.Before(at) {
			continue
		}
		if v, lost := m.readiness.Recheck(now, readiness.ID(fw.ID), facts{m}); lost && m.workers[fw.ID] != nil {
			m.lacks(m.workers[fw.ID], v)
		}
	}
}

func (m *Master) lacks(w *worker, v readiness.Verdict) {
	if v.Say {
		m.log.Warn("Worker not ready: it "+v.Lacks, w.attrs(events.WorkerIncomplete, "reason", v.Lacks)...)
	}
	m.step(fleet.Lacks{ID: w.id, What: v.Lacks})
}

// reportUnserved says of an address once that nobody accepts on it any more, though all
// workers are there.
func (m *Master) reportUnserved() {
	not := m.unserved()
	for _, name := range not {
		if !m.fleet.Complete() || m.listeners.LetsWait() {
			return // a worker was lost, or has given way, and is replaced
		}
		m.once("unserved "+name, "Nobody accepts on "+name+" any more: the program has closed its socket. Connections wait; handoff reload starts it anew, --may-drop "+
			strings.TrimPrefix(name, "udp ")+" says that it is intended", "event", events.AddressUnserved, "address", name)
	}
}

// The sockets of those in service are looked at when somebody asks for the status, at most
// once in a second, and every few seconds: where one worker serves alone, no connection
// tells that it does not accept.
const (
	verifyAsked  = time.Second
	verifyBySelf = 5 * time.Second
)

// verify looks whether those in service have their sockets open still.
func (m *Master) verify(now time.Time, every time.Duration) {
	if now.Sub(m.history.verified) >= every {
		m.history.verified, m.history.verifyAt = now, now.Add(verifyBySelf)
		facts{m}.InService(true)
	}
}

// facts is the loop, as the packages readiness and serving see it.
type facts struct{ m *Master }

func (f facts) Live() int   { return int(f.m.fleet.Live()) }
func (f facts) Slots() int  { return f.m.fleet.Slots() }
func (f facts) Steer()      { f.m.resteer() }
func (f facts) Keeper() int { return f.m.cfg.PID }

// MayDrop: where the configuration gives slots other ports than the generation in service has,
// it says on purpose that the service moves.
func (f facts) MayDrop(a readiness.Address) bool {
	if p := f.m.programs.Of(f.m.fleet.Live()); p != nil && !slices.Equal(p.Ports, f.m.cfg.Ports) {
		return true
	}
	return f.m.cfg.MayDrop != nil && f.m.cfg.MayDrop(a.At, a.Name)
}

func (f facts) Processes(id listeners.Worker) []int {
	if w := f.m.workers[fleet.ID(id)]; w != nil && !w.dead {
		return append(f.m.descendants.PIDs(descendants.Worker(id)), w.process.PID())
	}
	return nil
}

func (f facts) Accepts(id readiness.ID) []readiness.Address {
	return serving.On(f.m.listeners, listeners.Worker(id), f, true)
}

func (f facts) InService(checked bool) []readiness.Service {
	return serving.InService(f.m.listeners, f, checked)
}

func (m *Master) unserved() []string { return serving.Unserved(m.listeners, facts{m}) }
