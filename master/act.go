package master

import (
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/cmsg"
	"handoff/internal/events"
	"handoff/internal/sdnotify"
	"handoff/master/contract"
	"handoff/master/descendants"
	"handoff/master/fleet"
	"handoff/master/launch"
	"handoff/master/listeners"
	"handoff/master/process"
	"handoff/master/recycle"
	"handoff/master/reload"
	"handoff/master/unheld"
)

// do carries out an action of the fleet.
func (m *Master) do(a fleet.Action) {
	switch a := a.(type) {
	case fleet.Prepare:
		m.prepare(a.Gen)
	case fleet.Forget:
		m.programs.Forget(a.Gen)
	case fleet.Spawn:
		m.spawn(a)
	case fleet.Quiesce:
		m.endChecks(a.ID)
		m.listeners.Quiesce(listeners.Worker(a.ID), time.Now(), m.cfg.QuietGrace)
	case fleet.Drain:
		m.endChecks(a.ID)
		m.listeners.ForgetQuiet(listeners.Worker(a.ID))
		if w := m.workers[a.ID]; w != nil {
			w.drainedAt = time.Now()
			m.descendants.Look(descendants.Worker(w.id))
			m.log.Info("Worker drains", w.attrs(events.WorkerDraining)...)
			if a.AtOnce || !m.takesConnections(w) {
				m.drain(w)
			}
		}
	case fleet.Signal:
		m.signal(a)
	case fleet.Renew:
		m.order(reload.Order{Upgrade: true})
	case fleet.Recycle:
		if w := m.workers[a.ID]; w != nil {
			m.history.counters.CountRestart(w.slot, "recycled", recycle.Limit(a.Reason))
			m.log.Info("Replacing worker: "+a.Reason, w.attrs(events.WorkerRecycled, "reason", a.Reason)...)
		}
	case fleet.Abandon:
		if w := m.workers[a.ID]; w != nil {
			why := "hung"
			if a.Stalled {
				why = "stalled"
			}
			m.history.counters.CountRestart(w.slot, why, "")
			m.log.Error("Ending worker: "+a.Reason, w.attrs(events.WorkerHung)...)
			// Connections queued at its socket go to others, or to its replacement.
			m.listeners.ReleaseAll(listeners.Worker(a.ID), time.Now())
			m.resteer()
		}
	case fleet.Unlisten:
		m.order(reload.Stopping{})
		m.reportStopping()
		m.contract.GiveUp()
		m.tookOver(m.takeover.Hurry())
		for _, w := range m.workers {
			m.noteListened(w)
		}
		m.listeners.CloseAll()
		m.keep.Flush() // only then are connections refused
	case fleet.Live:
		name, what := events.ClusterStarted, "Generation serves"
		if a.Gen > 1 {
			name, what = events.ClusterReloaded, "Reloaded: generation serves"
		}
		m.log.Info(what, "event", name, "generation", int(a.Gen), "workers", m.fleet.Slots(),
			"after", a.Took.Round(time.Millisecond), "addresses", m.names())
		m.history.reported, m.history.verifyAt = a.Gen, time.Now().Add(verifyBySelf)
		m.order(reload.Ended{Generation: int(a.Gen), Outcome: reload.Served})
		if m.cfg.Calm != nil {
			m.cfg.Calm()
		}
		m.reportServing()
	case fleet.Failed:
		m.failed(a)
	case fleet.NotScaled:
		m.notScaled(a)
	case fleet.NotRestarted:
		m.notRestarted(a)
	case fleet.Done:
		m.history.end.done = &a
	default:
		panic(fmt.Sprintf("master: unknown action %T", a))
	}
}

// drain tells a worker to finish, as its contract defines it.
func (m *Master) drain(w *worker) {
	m.report(events.SignalFailed, w.session.Drain(contract.Drain{Signal: m.drainSignal(w), Message: m.cfg.DrainMessage}))
}

func (m *Master) drainSignal(w *worker) unix.Signal {
	return m.programs.Of(w.gen).Drain(m.cfg.DrainSignal)
}

func (m *Master) names() string { return strings.Join(m.listeners.InUse(), " ") }

func (m *Master) prepare(gen fleet.Gen) {
	if gen > 1 {
		m.log.Info("Reload", "event", events.ClusterReloading, "generation", int(gen), "workers", m.fleet.Slots())
		m.reportReloading(int(gen))
	}
	m.order(reload.Began{Generation: int(gen)})
	if why := m.cfg.DrainReason; why != "" && !m.history.warned[why] {
		m.history.warned[why] = true
		m.log.Info("Workers drain by "+unix.SignalName(m.cfg.DrainSignal)+": "+why+" (--drain-signal names another)", "event", events.DrainSignal, "signal", unix.SignalName(m.cfg.DrainSignal))
	}
	p := m.programs.Prepare(gen, &m.cfg.Command, m.cfg.DrainSignal, m.cfg.Ports)
	if p.Err != nil {
		m.step(fleet.Broken{Gen: gen, Reason: p.Err.Error()})
		return
	}
	for _, link := range p.Unpinned() {
		m.once("unpinned "+link, process.Unpinned(link), "event", events.CommandUnpinned, "link", link)
	}
}

func (m *Master) failed(a fleet.Failed) {
	stderrTail := m.programs.Of(a.Gen).StderrTail
	m.history.lastError = sdnotify.Printable(fmt.Sprintf("generation %d failed: %s", a.Gen, a.Reason))
	attrs := append([]any{"event", events.ClusterFailed, "generation", int(a.Gen), "reason", a.Reason}, stderrAttr(stderrTail)...)
	if a.Back == 0 {
		m.log.Error("Cannot start the program; stopping", attrs...)
		return
	}
	m.order(reload.Ended{Generation: int(a.Gen), Outcome: reload.Failed, Reason: a.Reason, Stderr: stderrTail})
	text := m.status().Serving()
	if m.cfg.Fleet.NoOverlap {
		text = "is started again"
	}
	m.log.Error("Reload failed: the previous generation "+text, append(attrs, "serving", int(a.Back))...)
	m.manager.Ready(sdnotify.Printable(fmt.Sprintf("Generation %d %s; generation %d failed: %s", a.Back, text, a.Gen, a.Reason)))
}

// stderrAttr puts the last stderr lines of a worker into a log line, if it had any.
func stderrAttr(stderrTail []string) []any {
	if len(stderrTail) == 0 {
		return nil
	}
	return []any{"stderr", strings.Join(stderrTail, "\n")}
}

func (m *Master) spawn(a fleet.Spawn) {
	p, id := m.programs.Of(a.Gen), listeners.Worker(a.ID)
	if p.Err != nil {
		m.step(fleet.Exited{ID: a.ID, Reason: p.Err.Error()})
		return
	}
	about := func(name string) []any {
		return []any{"event", name, "slot", a.Slot, "generation", int(a.Gen), "worker", int(a.ID)}
	}
	fail := func(what, name string, err error) {
		m.listeners.ReleaseAll(id, time.Now())
		m.log.Error(what+": "+err.Error(), about(name)...)
		m.step(fleet.Exited{ID: a.ID, Reason: err.Error()})
	}
	sockets, names, err := m.listeners.TakePreopened(id, a.Slot, int(a.Gen))
	if err != nil {
		fail("Cannot give a worker its sockets", events.AddressRefused, err)
		return
	}
	s := m.startOf(a)
	for _, l := range sockets {
		s.Sockets = append(s.Sockets, l.FD())
	}
	s.Names = names
	notify, name, err := m.notifyPlace().Listen()
	if err != nil {
		m.log.Error("Starting a worker without a notify socket: "+err.Error(), about(events.WorkerMuted)...)
	} else if s.Notify = name; sdnotify.Abstract(name) {
		m.once("notify", "No private directory for notify sockets: any local user can send to them. Set HANDOFF_RUNTIME_DIR to a directory of this user", "event", events.NotifyOpen)
	}
	started, pair, err := m.start(p, s)
	if err != nil {
		if notify != nil {
			sdnotify.Close(notify)
		}
		fail("Cannot start a worker", events.WorkerCrashed, err)
		return
	}
	w := &worker{process: started, id: a.ID, slot: a.Slot, gen: a.Gen, notify: notify, port: s.Port(), began: time.Now()}
	w.session = m.contract.Start(m.counterpart(w), pair)
	w.identify()
	m.workers[a.ID] = w
	if m.keep != nil {
		w.kept(func(name string, f syscall.Conn) { m.keep.StoreFile(name, f) }, func(name string, fd int) { m.keep.Store(name, fd) })
	}
	m.log.Info("Worker starts", w.attrs(events.WorkerStarted)...)
	m.attend(w)
	if m.cfg.Contract != BindContract && m.cfg.ReadyWhen == Listening {
		unheld.Watch(facts{m}, id, m.cfg.Fleet.ReadyTimeout)
	}
}

// startOf is how a worker is to be started, but for its descriptors.
func (m *Master) startOf(a fleet.Spawn) launch.Start {
	c := &m.cfg
	s := launch.Start{Gen: a.Gen, Worker: int(a.ID), Slot: a.Slot, Instance: c.Instance, Environ: c.Environ, SlotVariable: c.SlotVariable, Ports: c.Ports,
		Watchdog: c.Fleet.Watchdog, Conditions: c.Conditions, Stdout: c.Stdout, Channel: -1, Filter: m.contract.Plan().Filter}
	if c.Name != "" {
		s.Service = m.service()
	}
	if c.MaxRequests > 0 {
		s.MaxRequests = m.recycler.MaxRequests(int(a.ID))
	}
	if add := m.contract.Plan().Env; add != nil {
		s.ContractEnv = func(channel int) []string { return add(listeners.Worker(a.ID), channel) }
	}
	return s
}

// start starts a worker, with its end of the pair if the contract has one.
func (m *Master) start(p *launch.Program, s launch.Start) (started *process.Process, pair *cmsg.Conn, err error) {
	if err := m.keep.Room(len(m.workers)); err != nil {
		return nil, nil, err
	}
	if m.contract.Plan().Channel {
		ours, theirs, err := cmsg.Pair()
		if err != nil {
			return nil, nil, err
		}
		defer theirs.Close()
		pair, s.Channel = ours, int(theirs.Fd())
	}
	if started, err = process.Start(p.Spec(s)); err != nil && pair != nil {
		pair.Close()
	}
	return started, pair, err
}

// attend starts the goroutines that wait for events of a worker.
func (m *Master) attend(w *worker) {
	m.descendants.Started(descendants.Worker(w.id), w.process.PID())
	orphans, holdings := m.descendants.Orphans(outputGrace), m.descendants.Holdings()
	filtered := m.contract.Plan().Filter
	heard := make(chan struct{}) // closed when its session has read everything
	if w.notify != nil {
		go m.hearNotices(w.id, w.process.PID(), w.notify).Serve() // ends with the socket
	}
	go func() {
		defer close(heard)
		w.session.Serve()
	}()
	stdout, stderr := io.Writer(os.Stdout), io.Writer(os.Stderr)
	if m.cfg.Output != nil {
		stdout, stderr = m.cfg.Output(w.slot, w.process.PID(), int(w.gen))
	}
	if p := m.programs.Of(w.gen); p != nil && !m.cfg.Captured && !w.process.Adopted() {
		w.stderr = p.Starts.Writer(w.process.PID(), stderr)
		stderr = w.stderr
	}
	w.process.CopyOutput(stdout, stderr)
	go func() { // ends with the process
		if err := w.process.AwaitDeath(); err != nil {
			m.log.Error("Cannot watch a worker: "+err.Error(), w.attrs(events.WorkerUnwatched)...)
			return
		}
		m.mail.post(died{w.id})
		// Its last messages and output count (for example, an accepted connection).
		w.process.AwaitRead(outputGrace, heard, w.session.Busy)
		hidden := filtered
		select {
		case <-heard: // no process has its filter
			hidden = false
		default:
		}
		left := orphans()
		m.mail.post(ended{w.id, left, holdings(left), hidden})
	}()
}

// outputGrace is how long to wait for the last messages and output of a dead worker.
const outputGrace = 200 * time.Millisecond

// reportReady reports each worker that is steered to for the first time: after the kernel
// has applied the steering, and at least once if a master dies in between.
func (m *Master) reportReady() {
	m.reportUnserved()
	for _, id := range m.listeners.Targets() {
		w := m.workers[fleet.ID(id)]
		if w == nil || !w.unreported {
			continue
		}
		w.unreported = false
		m.history.saver.Changed()
		m.history.counters.Ready.Add(time.Since(w.began))
		m.log.Info("Worker serves", w.attrs(events.WorkerReady, "after", time.Since(w.began).Round(time.Millisecond))...)
	}
}

func (m *Master) signal(a fleet.Signal) {
	w := m.workers[a.ID]
	if w == nil {
		return
	}
	if a.Kill {
		m.log.Warn("Killing worker: "+a.Reason, w.attrs(events.WorkerKilled)...)
		m.kill(w)
		return
	}
	if p := m.programs.Of(w.gen); p != nil && m.fleet.Worker(w.id).ReadyAt().IsZero() {
		p.StderrTail = w.process.StderrTail(maxStderrLines) // why it is not ready, for the report of a start that has failed
	}
	m.log.Warn("Sending SIGTERM to worker: "+a.Reason, w.attrs(events.WorkerTerminated)...)
	m.report(events.SignalFailed, w.process.Signal(unix.SIGTERM))
	m.report(events.SignalFailed, w.session.Terminate())
	m.descendants.Terminate(descendants.Worker(w.id))
}
