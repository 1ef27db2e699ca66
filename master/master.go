package master

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"handoff/handoff"
	"handoff/internal/api"
	"handoff/internal/events"
	"handoff/internal/keeper/fdstore"
	"handoff/internal/linux"
	"handoff/internal/sdnotify"
	"handoff/master/descendants"
	"handoff/master/fleet"
	"handoff/master/health"
	"handoff/master/launch"
	"handoff/master/listeners"
	"handoff/master/readiness"
	"handoff/master/recycle"
	"handoff/master/reload"
	"handoff/master/sequence"
	"handoff/master/snapshot"
	"handoff/master/takeover"
)

// Master is the loop and what it owns. The rooms know nothing of each other.
type Master struct {
	cfg         Config
	log         *slog.Logger
	fleet       *fleet.Fleet
	reloads     *reload.Machine
	recycler    *recycle.Recycler
	listeners   *listeners.Table
	descendants *descendants.Tracker
	takeover    *takeover.Room
	workforce
	keep    *fdstore.Client // nil: no keeper
	manager *sdnotify.Manager
	clients clients
	inbox
	history  history
	contract workerContract
}

// clients are the clients of the master.
type clients struct {
	admin    *net.TCPListener // of --admin; nil: none
	upgrades []chan<- error   // callers that wait for the running upgrade
}

// history is what has happened, for the status and the next master.
type history struct {
	began        time.Time
	counters     api.Counters
	restarts     map[int]int           // of slots, by crashes
	reported     fleet.Gen             // the last generation that was reported to serve
	lastError    string                // printable
	failedChange *api.ChangeStatus     // the last scale or restart that failed; nil: none
	keeper       int                   // pid of the previous master's keeper; 0: none
	output       []api.OutputStatus    // output that is lost
	warned       map[string]bool       // warnings already logged
	verified     time.Time             // when it was last looked which sockets are open
	verifyAt     time.Time             // when it is looked again; zero: nothing has served yet
	saver        snapshot.Saver        // writes the record for the next master
	clock        snapshot.Clock        // of its times
	file         *snapshot.WorkersFile // who the workers are, if keeper and master are both killed; nil: none
	end          ending
}

// ending is the reason why the loop ends.
type ending struct {
	done     *fleet.Done // no worker is left
	hurried  os.Signal   // the second signal to stop
	replaced bool        // another master takes over: only this process ends
}

// Run supervises until it is stopped, or the first generation cannot start. It returns
// the exit code.
func Run(cfg Config) int {
	m, err := newMaster(cfg)
	if err != nil {
		cfg.Log.Error("Cannot start: "+err.Error(), "event", events.ClusterFailed)
		return 1
	}
	store := snapshot.DescriptorsOf(cfg.Store)
	adminFD := store.Take(fdstore.Admin)
	first, adopted := m.inherit(store)
	if !adopted {
		if err := m.openListens(); err != nil {
			cfg.Log.Error("Cannot start: "+err.Error(), "event", events.ClusterFailed)
			m.listeners.Close()
			m.keep.Stopping()
			return 1
		}
	}
	m.keepProgram()
	stop := watchSignals(cfg.SignalBase, m.mail.post)
	defer stop() // at the very end: a signal to an exiting process would change its exit code
	m.keep.Ready()
	go m.mail.post(asked{func(m *Master) { m.keep.Runs() }}) // ends when the loop takes it, or ends
	if cfg.Losses != nil {
		cfg.Losses(func(to string, err error, lines int) bool { return m.mail.offer(outputLost{to, err, lines}) })
	}
	go watchKeeper(cfg.PID, m.mail.post) // ends with the keeper, or this process
	go func() {                          // ends when the table is closed
		for m.listeners.Wait() == nil {
			m.mail.post(socketActivity{})
		}
	}()
	control := func(bool) {}
	if cfg.Control != nil {
		control = cfg.Control(Control{m.mail.post, m.mail.quit, &m.history.end.replaced})
	}
	admin := m.serveAdmin(adminFD)
	m.steps.Resume(first)
	if adopted {
		m.step(nil)
	} else {
		m.step(fleet.Reload{})
	}
	m.loop()
	return m.finish(func() {
		control(m.history.end.replaced)
		admin()
	})
}

// newMaster creates the rooms. No step is made before the state of a previous master is
// known.
func newMaster(cfg Config) (*Master, error) {
	m := &Master{
		cfg: cfg, log: cfg.Log, fleet: fleet.New(cfg.Fleet),
		workforce: workforce{workers: map[fleet.ID]*worker{}, programs: launch.New(), readiness: readiness.New(nil), health: health.New(cfg.healthConfig())},
		inbox:     inbox{mail: newMailbox()},
		history:   history{began: time.Now(), restarts: map[int]int{}, warned: map[string]bool{}, clock: snapshot.NewClock(snapshot.Record{})},
		reloads:   &reload.Machine{Hook: cfg.BeforeReload != nil}, recycler: recycle.New(cfg.recycle()),
	}
	m.descendants = descendants.New(descendants.Config{Keeper: cfg.PID, Instance: cfg.Instance, Died: func() { m.mail.post(descendantDied{}) }})
	m.takeover = takeover.New(takeover.Config{Post: func(what any) { m.mail.post(fromTakeover{what}) },
		Store: func(name string, fd int) { m.keep.Store(name, fd) }, Remove: func(name string) { m.keep.Remove(name) }})
	m.steps.Pause()
	m.manager = sdnotify.NewManager(func(text string) { m.keep.NotifyManager(text) }, cfg.UpWatchdog, time.Now())
	var err error
	if m.listeners, err = listeners.New(listeners.Config{Store: socketStore{m}, Save: m.save, Balance: cfg.Balance, NoProgram: cfg.NoSteering,
		Private: cfg.DryRun, User: cfg.workerUser(), Allowed: cfg.Allow, Grace: m.grace(), StallTimeout: cfg.StallKill}); err != nil {
		return nil, err
	}
	if m.keep, err = fdstore.Dial(cfg.Keeper, m.keeperMute, cfg.Store...); err != nil {
		m.log.Error(err.Error()+"; if this master dies, nobody supervises the workers", "event", events.KeeperMute)
	}
	if err := m.listeners.Pass(cfg.Inherited); err != nil {
		m.log.Warn(err.Error(), "event", events.AddressPassed)
	}
	m.contract = m.newContract(0)
	m.history.file = m.workersFile()
	return m, nil
}

// finish ends the service, or leaves it to the next master, and returns the exit code.
// clients ends the clients of this one.
func (m *Master) finish(clients func()) int {
	if m.history.end.replaced {
		m.stopCopying()
		m.keep.Leaving()
		m.keep.Flush()
		close(m.mail.quit)
		clients()
		return 0
	}
	if !m.history.end.done.Failed {
		m.log.Info("Stopped", "event", events.ClusterStopped)
	}
	m.keep.Stopping()
	close(m.mail.quit)
	clients()
	m.listeners.Close()
	m.history.file.Remove()
	if m.cfg.Finish != nil {
		m.cfg.Finish()
	}
	return m.exitCode()
}

func (m *Master) exitCode() int {
	switch {
	case m.history.end.hurried != nil:
		return 128 + int(m.history.end.hurried.(unix.Signal))
	case m.history.end.done.Failed:
		return 1
	}
	return 0
}

func (m *Master) loop() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for !m.over() {
		m.handleListenerNotices()
		e := m.another()
		if e == nil {
			if m.history.saver.Due(time.Now()) {
				m.save()
			}
			if next := m.deadline(); next.IsZero() {
				timer.Stop()
			} else {
				timer.Reset(time.Until(next))
			}
			select {
			case e = <-m.mail.events:
			case <-timer.C:
			}
		}
		if e != nil {
			m.handle(e)
		}
		if m.history.end.replaced {
			return // the record is written: the next master would not know later decisions
		}
		m.handleListenerNotices()
		m.tick(time.Now())
	}
}

// another returns a pending event, if the record can wait for it.
func (m *Master) another() event {
	if !m.history.saver.Wait(time.Now()) {
		return nil
	}
	select {
	case e := <-m.mail.events:
		return e
	default:
		return nil
	}
}

func (m *Master) deadline() time.Time {
	return earliest(m.fleet.Deadline(), m.listeners.Deadline(), m.recycler.Deadline(), m.manager.Deadline(), m.readiness.Deadline(),
		m.keep.Deadline(), m.descendants.Deadline(), m.takeover.Deadline(), m.history.saver.Deadline(), m.contract.Deadline(), m.history.verifyAt, m.health.Deadline())
}

// tick handles the timers.
func (m *Master) tick(now time.Time) {
	m.listeners.Tick(now)
	m.handleListenerNotices()
	m.manager.Tick(now)
	if m.recycler.Tick(now) {
		m.sampleMemory()
	}
	m.tickKeeper(now)
	m.contract.Tick(now)
	m.descendants.Tick(now)
	m.tookOver(m.takeover.Tick(now))
	m.lookAtDescendants(now)
	m.reportDescendants()
	if next := m.history.verifyAt; !next.IsZero() && !now.Before(next) {
		m.verify(now, 0)
	}
	if next := m.readiness.Deadline(); !next.IsZero() && !now.Before(next) {
		m.judge()
	}
	m.check(now)
	if !m.fleet.Deadline().IsZero() && !now.Before(m.fleet.Deadline()) {
		m.step(nil)
	}
}

// step passes an event to the fleet and carries out its actions. Their consequences are
// queued, see sequence.Steps.
func (m *Master) step(e fleet.Event) {
	m.history.saver.Changed()
	m.recheck(time.Now())
	m.steps.Do(func() { sequence.Step(effects{m}, m.fleet, e) })
}

func (m *Master) handle(e event) {
	switch e.(type) {
	case socketActivity:
	default:
		m.history.saver.Changed()
	}
	switch e := e.(type) {
	case signalled:
		if m.keep != nil && !e.kept {
			m.log.Warn("Ignored a signal to the master; send it to the keeper", "event", events.SignalStray,
				"signal", linux.SignalName(e.signal.(unix.Signal)), "keeper", m.cfg.PID, "pid", os.Getpid())
			break
		}
		m.signalled(e.signal)
	case socketActivity:
		// handled by tick
	case fromSession:
		e.session.Handle(e.what)
	case notified:
		if w := m.workers[e.id]; w != nil {
			m.notified(w, e.notice)
		}
	case drainAsked:
		e.answer <- m.isDraining(e.id)
	case memorySampled:
		for _, v := range m.recycler.Sampled(e.resident) {
			m.recycle(v)
		}
	case reloadJudged:
		m.order(reload.Judged{Refused: errorText(e.err)})
	case readyJudged:
		if w := m.workers[e.id]; w != nil {
			m.readyJudged(w, e.err)
		}
	case healthChecked:
		m.checked(e)
	case keeperDied:
		m.keeperDied()
	case upgradeAsked:
		m.clients.upgrades = append(m.clients.upgrades, e.to)
		m.order(reload.UpgradeOrder{})
	case upgraded:
		if e.err != nil {
			m.keep.Upgrading(false)
		}
		m.order(reload.UpgradeEnded{Failed: errorText(e.err)})
	case asked:
		e.f(m)
	case fromTakeover:
		m.tookOver(m.takeover.Handle(e.what))
	case outputLost:
		m.outputLost(e)
	case died:
		m.died(e.id)
	case ended:
		m.ended(e)
	case descendantDied:
		m.descendants.Refresh()
	default:
		panic(fmt.Sprintf("master: unknown event %T", e))
	}
}

// once logs a warning the first time.
func (m *Master) once(key, msg string, attrs ...any) {
	if !m.history.warned[key] {
		m.history.warned[key] = true
		m.log.Warn(msg, attrs...)
	}
}

// report logs an error that the master can only report; nil: none.
func (m *Master) report(name string, err error) {
	if err == nil {
		return
	}
	if errors.Is(err, handoff.ErrNoSteering) {
		m.once("steer", "Cannot steer: "+err.Error(), "event", events.AddressHash)
		return
	}
	m.log.Error(err.Error(), "event", name)
}
