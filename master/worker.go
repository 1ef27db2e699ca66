package master

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/alone"
	"handoff/internal/cmsg"
	"handoff/internal/events"
	"handoff/internal/keeper/fdstore"
	"handoff/internal/repeat"
	"handoff/internal/sdnotify"
	"handoff/master/contract"
	"handoff/master/descendants"
	"handoff/master/fleet"
	"handoff/master/listeners"
	"handoff/master/process"
	"handoff/master/readiness"
	"handoff/master/serving"
	"handoff/master/snapshot"
	"handoff/master/takeover"
	"handoff/master/unheld"
)

// worker is a live process, as the loop knows it.
type worker struct {
	process   *process.Process
	identity  snapshot.Identity
	id        fleet.ID
	slot      int
	gen       fleet.Gen
	session   contract.Session // its session
	notify    *cmsg.Conn
	state     sdnotify.State // its status text
	drainedAt time.Time      // zero: it is not draining
	began     time.Time
	dead      bool           // its process is dead; its last messages may be unread
	listened  bool           // it had an address when it died
	port      int            // of its slot; 0: it has none
	requests  int            // that it reports as served
	judging   bool           // a hook is asked whether it may serve
	stderr    *repeat.Writer // nil: its output is written elsewhere, or by a previous master's
	refused   string         // why it does not get the address that it wants, which another process has; "": it does
	// unreported: it is a target, and was not reported as serving yet.
	unreported bool
}

// stopCopying stops reading the workers' output, for the next master.
func (m *Master) stopCopying() {
	var all []*process.Process
	for _, w := range m.workers {
		all = append(all, w.process)
	}
	process.StopCopying(maxStuck, all...)
}

// maxStuck is how long a reader of handoff's own output can delay an upgrade.
const maxStuck = 200 * time.Millisecond

// notified handles a notice of a worker (sd_notify(3)).
func (m *Master) notified(w *worker, n sdnotify.Notice) {
	if n.State != nil {
		w.state = *n.State
		m.log.Debug("Worker's status", w.attrs(events.WorkerStatus, "status", w.state.Status, "reloading", w.state.Reloading)...)
	}
	if n.Stores {
		m.log.Warn("A worker sent descriptors to store (FDSTORE=1); handoff does not store them and closed them", w.attrs(events.WorkerStatus)...)
	}
	if n.Extend > 0 {
		m.step(fleet.Extend{ID: w.id, By: n.Extend})
	}
	if n.Alive {
		m.step(fleet.Ping{ID: w.id})
	}
	if n.Requests > 0 {
		m.served(w, n.Requests)
	}
	if n.Hung {
		m.step(fleet.Hung{ID: w.id, Reason: "it reported WATCHDOG=trigger"})
	}
	if n.Ready && m.cfg.ReadyWhen != Started {
		m.claims(w, readiness.Says) // also with --ready-when listening
	}
	if n.Stopping {
		m.leaving(w)
	}
}

// isDraining reports whether a worker has been told to drain.
func (m *Master) isDraining(id fleet.ID) bool { return m.fleet.Worker(id).Phase == fleet.Draining }

// leaving: a worker asks to be replaced. It may ask as often as it likes, and when it has
// been told to exit.
func (m *Master) leaving(w *worker) {
	if !m.fleet.Stays(w.id) || m.fleet.Worker(w.id).Leaving {
		return
	}
	m.history.counters.CountRestart(w.slot, "asked", "")
	m.log.Info("Worker asked to be replaced", w.attrs(events.WorkerLeaving)...)
	m.step(fleet.Leave{ID: w.id})
}

// died steers connections away from a dead worker.
func (m *Master) died(id fleet.ID) {
	w := m.workers[id]
	if w == nil {
		return
	}
	w.dead = true
	m.endChecks(id)
	m.noteListened(w)
	w.session.Died()
	m.takeover.Forget(takeover.Worker(id))
	queues := m.listeners.QueuesOf(listeners.Worker(id))
	m.listeners.ReleaseAll(listeners.Worker(id), time.Now())
	m.step(fleet.Died{ID: id})
	m.resteer()
	for _, q := range queues { // before its successor, which may have the socket already, has booted
		m.empties(q)
	}
}

// noteListened remembers whether a worker has an address, before that is taken from it.
func (m *Master) noteListened(w *worker) {
	if m.listeners.IsTarget(listeners.Worker(w.id)) {
		m.readiness.Note([]readiness.Service{{Slot: w.slot, At: serving.On(m.listeners, listeners.Worker(w.id), nil, false)}})
	}
	ports, any := m.listeners.Serving(listeners.Worker(w.id))
	w.listened = w.listened || any
	if len(ports) > 0 {
		m.descendants.Serves(descendants.Worker(w.id), ports)
	}
}

func (m *Master) ended(e ended) {
	id := e.id
	w := m.workers[id]
	if w == nil {
		return
	}
	delete(m.workers, id)
	m.readiness.Ended(readiness.ID(id))
	m.listeners.ForgetQuiet(listeners.Worker(id))
	w.session.End()
	if w.notify != nil {
		sdnotify.Close(w.notify)
	}
	for _, what := range fdstore.OfWorker() {
		m.keep.Remove(fdstore.WorkerName(int(id), what))
	}
	fw := m.fleet.Worker(id)
	exit := m.reap(w, fw, e)
	m.measureEnd(w, fw.Phase, fw.Leaving)
	reason, final := m.reportEnd(w, fw, exit)
	exited := func() { m.step(fleet.Exited{ID: id, Reason: reason, Final: final}) }
	if !m.cfg.Fleet.NoOverlap || !m.descendants.WhenGone(descendants.Worker(id), exited) { // they have its lock, too
		exited()
	}
	if m.cfg.Calm != nil && len(m.workers) == m.fleet.Slots() {
		m.cfg.Calm()
	}
}

// attempt says of a start that has failed which one it is of its slot, and whether it ends
// like the one before in its generation.
func (m *Master) attempt(w *worker, phase fleet.Phase, reason string, stderrTail []string) []any {
	if phase != fleet.Starting {
		return nil
	}
	before, _ := m.fleet.Failures(w.slot, w.gen)
	about := []any{"failures", before + 1, "same", m.programs.Of(w.gen).Starts.Failed(w.process.PID(), reason, stderrTail)}
	if w.gen != m.fleet.Live() && !m.cfg.Fleet.RetryFirst {
		about = append(about, "max_failures", m.cfg.Fleet.MaxFailures)
	}
	return about
}

// reportEnd says how a worker has ended, and returns it; final tells that another start
// would end in the same way.
func (m *Master) reportEnd(w *worker, fw fleet.Worker, exit process.Exit) (reason string, final bool) {
	reason, final = exit.Reason()
	how, crashed := exit.Attrs(), "crashed: "
	if exit.Err == nil && exit.Status.Exited() && exit.Status.ExitStatus() == 0 {
		crashed = ""
	}
	if exit.Asked {
		m.log.Info("Worker ended: "+reason, w.attrs(events.WorkerShutdown, how...)...)
		return reason, false
	}
	stderrTail := w.process.StderrTail(maxStderrLines)
	m.programs.Of(w.gen).StderrTail = stderrTail
	m.history.restarts[w.slot]++
	m.history.lastError = sdnotify.Printable(fmt.Sprintf("slot %d, generation %d %s", w.slot, w.gen, reason))
	if why := unheld.InUse(w.refused, stderrTail, facts{m}.Holders); why != "" && !exit.Ready && len(exit.Left) == 0 {
		reason, final, crashed = why, true, "crashed: "
	}
	if advice := m.alone(exit, stderrTail); final || advice != "" {
		reason += advice
		m.history.lastError = sdnotify.Printable(fmt.Sprintf("slot %d, generation %d: %s", w.slot, w.gen, reason))
	}
	m.log.Error("Worker "+crashed+reason, append(w.attrs(events.WorkerCrashed, append(append(how, "after", time.Since(w.began).Round(time.Millisecond)), m.attempt(w, fw.Phase, reason, stderrTail)...)...), stderrAttr(stderrTail)...)...)
	return reason, final
}

// alone is the advice for a program that has refused to start beside another worker.
func (m *Master) alone(exit process.Exit, stderr []string) string {
	groups := map[int]bool{}
	for _, w := range m.workers {
		groups[w.process.PID()] = true
	}
	if len(groups) == 0 || exit.Ready || m.cfg.Fleet.NoOverlap {
		return ""
	}
	return alone.Hint(stderr, func(pid int) bool { group, _ := unix.Getpgid(pid); return groups[group] }, m.fleet.Slots())
}

const maxStderrLines = 20 // lines of stderr in a report: the message of a Node error stands above its stack

// attrs are the attributes of a worker in a log line.
func (w *worker) attrs(name string, more ...any) []any {
	about := []any{"event", name, "slot", w.slot, "pid", w.process.PID(), "generation", int(w.gen), "worker", int(w.id)}
	if w.port > 0 {
		about = append(about, "port", w.port)
	}
	return append(about, more...)
}
