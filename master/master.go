package master

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"handoff/handoff"
	"handoff/internal/api"
	"handoff/internal/bindintercept"
	"handoff/internal/cmsg"
	"handoff/internal/events"
	"handoff/internal/keeper/fdstore"
	"handoff/internal/linux"
	"handoff/internal/sdnotify"
	"handoff/master/contract"
	"handoff/master/fleet"
	"handoff/master/listeners"
	"handoff/master/process"
	"handoff/master/recycle"
	"handoff/master/reload"
	"handoff/master/snapshot"
)

// ReadyWhen is what counts as ready.
type ReadyWhen string

// The notices of readiness.
const (
	Listening ReadyWhen = "listening" // the program listens on its first address
	Started   ReadyWhen = "started"   // it has booted
	Ready     ReadyWhen = "ready"     // it says so: process.send({cmd:'ready'}) or process.send('ready')
)

// Contract is how a worker gets its sockets.
type Contract string

// The contracts.
const (
	NodeContract Contract = "node" // the master is the primary of Node's cluster module
	BindContract Contract = "bind" // bind(2) and listen(2) are answered by the master
	// ActivationContract gives sockets at the start, and nothing else.
	ActivationContract Contract = "activation"
)

// Live is what may change while a master runs: at a reload.
type Live struct {
	Fleet    fleet.Config
	MaxSlots int // that there may be, scaled by hand
	// Balance is of all addresses. Between Shared and others it is not changed.
	Balance handoff.Balance
	Command process.Command
	// DrainSignal is what drain is under the bind contract.
	DrainSignal  unix.Signal
	DrainMessage string // that Node programs get in a drain; "": none
	SlotVariable string // another name for WORKER_ID in their environment; "": none
	Ports        []int  // of the slots, for PORT and port; nil: none
	// Hold tells whether a TCP address that a worker binds is to be held, under
	// the bind contract.
	Hold       func(netip.AddrPort) bool
	ReadyWhen  ReadyWhen
	QuietGrace time.Duration // in which a worker may take note of what it has accepted; part of quiet
	// Conditions are what each worker starts under; of CPUs, slot i has the i-th,
	// over and over.
	Conditions  bindintercept.Conditions
	MaxMemory   int64         // of a worker's process group, resident, in bytes; 0: any
	MaxRequests int           // that a worker serves, where it says so; 0: any number
	StallKill   time.Duration // after which a worker that stalls is replaced; 0: never
	// BeforeReload and BeforeReady may refuse a reload, or a worker that is ready;
	// nil: nobody does.
	BeforeReload Veto
	BeforeReady  Veto
	// Environ adds to the environment of each worker; nil adds nothing.
	Environ func(env []string) []string
	// Program is what the next master is to know of all this, see GiveProgram: what
	// it has changed to since is put into effect by a reload, not by a crash.
	Program []byte
}

// Config is what a master needs to know.
type Config struct {
	Name    string // of the service, for people
	Version string // of handoff
	PID     int    // that people know
	// Control is called when the master runs, with how to speak to it, and what
	// it returns when the master ends: follows tells that another takes over.
	Control func(Control) (stop func(follows bool))
	Live
	Contract Contract
	// Listen is given to every worker at its start, under any contract, by systemd's
	// protocol (sd_listen_fds(3)).
	Listen []listeners.Listen
	// Passed are sockets that a service manager has passed; Run owns them.
	Passed []cmsg.Named
	// Keeper is the address of the keeper's notify socket, "" for none; Instance
	// tells its processes from others. Store is what it has kept of a master
	// before, which has died for Reason, as Restarts others have; Run owns it.
	Keeper   string
	Instance string
	// RuntimeDir is where the workers' notify sockets are made, absolute; "": where
	// there is room.
	RuntimeDir string
	// SignalBase is what the keeper adds to the numbers of signals that it passes
	// on. Others are left alone while there is a keeper.
	SignalBase int
	Store      []cmsg.Named
	Restarts   int
	Reason     string
	// ReplaceKeeper starts a new keeper with what the one before had, which ends this
	// process when it takes over, and returns if it does not. KeptAbove: a service
	// manager keeps it all, and starts a new keeper itself.
	ReplaceKeeper func(named []cmsg.Named, program []byte) error
	KeptAbove     bool
	// Upgrade starts the binary that is on disk now with the state, and returns
	// nil when that can take over: this master ends then. Changed tells whether it
	// is another one. Upgraded tells that this master has taken over so.
	Upgrade  func(state []byte) error
	Changed  func() bool
	Upgraded bool
	// UpWatchdog is how often a service manager above wants a sign of life; 0:
	// never.
	UpWatchdog time.Duration
	// Reread reads the configuration again. later names what has changed and
	// needs a new handoff.
	Reread     func() (live Live, later []string, err error)
	Scratch    bool // every address is one of loopback's where nobody else is: the program is only tried
	NoSteering bool // as if the kernel refused the steering program
	// Admin serves a listener, which it owns, and returns how to stop; nil: there
	// is none. AdminAddr is where it listens: the keeper has the socket, so that
	// nobody is refused between two masters.
	Admin     func(net.Listener, Control) (stop func())
	AdminAddr string
	// WorkerEvents records a message of a Node worker, a line of JSON, from any
	// goroutine; it may block if wait is set: the worker waits then. May be nil.
	WorkerEvents func(line []byte, wait bool)
	// Finish is called at the end of everything, when all has been logged; may be nil.
	Finish func()
	// Calm is called when a generation serves and little is to do; may be nil.
	Calm   func()
	Log    *slog.Logger
	Reopen func() error // SIGUSR1
	Stderr io.Writer    // where the workers' stderr goes
	// Output returns where the output of a worker goes, each from one goroutine; nil:
	// it has handoff's own stdout.
	Output func(slot, pid, generation int) (stdout, stderr io.Writer)
}

// Master is the loop and what it owns. The rooms know nothing of each other.
type Master struct {
	cfg       Config
	log       *slog.Logger
	fleet     *fleet.Fleet
	reloads   *reload.Machine
	recycler  *recycle.Recycler
	listeners *listeners.Table
	workers   map[fleet.ID]*worker
	gens      map[fleet.Gen]*generation
	keep      *fdstore.Client // nil: no keeper
	saver     snapshot.Saver
	manager   *sdnotify.Manager
	clients   clients
	steps     steps
	mail      mailbox
	history   history
	end       ending
	contract  workerContract
}

// clients are who speaks to the master.
type clients struct {
	admin    *net.TCPListener // of --admin; nil: none
	upgrades []chan<- error   // who waits for the upgrade that is under way
}

// history is what has happened, for people, and the next master.
type history struct {
	began     time.Time
	counters  api.Counters
	restarts  map[int]int     // of slots, by crashes
	reported  fleet.Gen       // the last generation that was reported to serve
	lastError string          // printable
	keeper    int             // pid of the keeper of the master before; 0: there was none
	warned    map[string]bool // what is said once
}

// ending is how the loop ends.
type ending struct {
	done     *fleet.Done // nobody is left
	hurried  os.Signal   // the second signal to stop
	replaced bool        // another master takes over: this one ends, and nothing with it
}

// worker is a live process, as the loop knows it.
type worker struct {
	process   *process.Process
	id        fleet.ID
	slot      int
	gen       fleet.Gen
	session   contract.Session // what its contract says to it
	notify    *cmsg.Conn
	state     sdnotify.State // what it says about itself
	drainedAt time.Time      // zero: it was not told to
	began     time.Time
	dead      bool // its process is; the rest of it may not be
	port      int  // of its slot; 0: it has none
	requests  int  // that it says it has served
	judging   bool // somebody outside is asked whether it may serve
}

// stopCopying leaves what is in the pipes of the workers' output to the next master.
func (m *Master) stopCopying() {
	var all []*process.Process
	for _, w := range m.workers {
		all = append(all, w.process)
	}
	process.StopCopying(maxStuck, all...)
}

// maxStuck is how long a reader of handoff's own output may hold up an upgrade.
const maxStuck = 200 * time.Millisecond

// generation is what the workers of one are started from.
type generation struct {
	launch *process.Launch
	err    error       // why there is no launch
	words  []string    // last lines of the stderr of the worker that failed last
	drain  unix.Signal // that its programs know; 0: as configured now
}

// Run supervises until it is told to stop by a signal, or the first generation
// cannot start. It returns the exit code.
func Run(cfg Config) int {
	m := &Master{
		cfg: cfg, log: cfg.Log, fleet: fleet.New(cfg.Fleet),
		workers: map[fleet.ID]*worker{}, gens: map[fleet.Gen]*generation{},
		mail:    newMailbox(),
		history: history{began: time.Now(), restarts: map[int]int{}, warned: map[string]bool{}},
		reloads: &reload.Machine{Hook: cfg.BeforeReload != nil}, recycler: recycle.New(cfg.recycle()),
	}
	m.steps.hold() // until everything is taken over
	m.manager = sdnotify.NewManager(func(text string) { m.keep.TellManager(text) }, cfg.UpWatchdog, time.Now())
	var err error
	if m.listeners, err = listeners.New(listeners.Config{Store: socketStore{m}, Balance: cfg.Balance, NoProgram: cfg.NoSteering,
		Private: cfg.Scratch, Grace: m.grace(), StallTimeout: cfg.StallKill}); err != nil {
		cfg.Log.Error("Cannot start: "+err.Error(), "event", events.ClusterFailed)
		return 1
	}
	var kerr error
	if m.keep, kerr = fdstore.Dial(cfg.Keeper, m.keeperMute); kerr != nil {
		m.log.Error(kerr.Error()+"; if this master dies, everything does", "event", events.KeeperMute)
	}
	if perr := m.listeners.Pass(cfg.Passed); perr != nil {
		m.log.Warn(perr.Error(), "event", events.AddressPassed)
	}
	m.contract = m.newContract(0)
	store := snapshot.DescriptorsOf(cfg.Store)
	adminFD := store.Take(fdstore.Admin)
	first, ordered, adopted := m.inherit(store)
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
	m.keep.Ready()
	go watchKeeper(cfg.PID, m.mail.post) // ends with the keeper, or this process
	go func() {                          // ends when the table is closed
		for m.listeners.Wait() == nil {
			m.mail.post(stirred{})
		}
	}()
	control := func(bool) {}
	if cfg.Control != nil {
		control = cfg.Control(Control{m.mail.post, m.mail.quit, &m.end.replaced})
	}
	admin := m.serveAdmin(adminFD)
	m.steps.release(func() {
		for _, a := range first {
			m.do(a)
		}
		for _, a := range ordered {
			m.carryOut(a)
		}
	})
	if adopted {
		m.step(nil)
	} else {
		m.step(fleet.Reload{})
	}
	m.loop()
	defer stop() // at the very end: a signal to who ends would change its code
	if m.end.replaced {
		m.stopCopying()
		m.keep.Leaving()
		m.keep.Flush()
		close(m.mail.quit)
		control(m.end.replaced)
		admin()
		return 0
	}
	m.keep.Stopping()
	close(m.mail.quit)
	control(m.end.replaced)
	admin()
	m.listeners.Close()
	if cfg.Finish != nil {
		cfg.Finish()
	}
	return m.exitCode()
}

func (m *Master) exitCode() int {
	switch {
	case m.end.hurried != nil:
		return 128 + int(m.end.hurried.(unix.Signal))
	case m.end.done.Failed:
		return 1
	}
	return 0
}

func (m *Master) loop() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for m.end.done == nil && !m.end.replaced {
		m.heed()
		e := m.another()
		if e == nil {
			if m.saver.Due() {
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
			m.heed()
		}
		m.tick(time.Now())
	}
}

// another is an event that waits already, if the record can wait for it.
func (m *Master) another() event {
	if !m.saver.Wait(time.Now()) {
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
	next := earlier(earlier(m.fleet.Deadline(), m.listeners.Deadline()), m.recycler.Deadline())
	next = earlier(next, m.manager.Deadline())
	next = earlier(next, m.keep.Deadline())
	return earlier(next, m.contract.Deadline())
}

// tick does what time has brought.
func (m *Master) tick(now time.Time) {
	m.listeners.Tick(now)
	m.heed()
	m.manager.Tick(now)
	if m.recycler.Tick(now) {
		m.sampleMemory()
	}
	m.tickKeeper(now)
	m.contract.Tick(now)
	if !m.fleet.Deadline().IsZero() && !now.Before(m.fleet.Deadline()) {
		m.step(nil)
	}
}

// complete tells whether every slot serves and nobody starts.
func (m *Master) complete() bool {
	serving := 0
	for _, w := range m.fleet.Workers() {
		switch w.Phase {
		case fleet.Starting:
			return false
		case fleet.Serving:
			serving++
		}
	}
	return serving >= m.fleet.Slots()
}

// step takes an event to the fleet and does what it answers; what comes of an action is
// queued, see steps.
func (m *Master) step(e fleet.Event) {
	m.saver.Changed()
	m.steps.do(func() {
		for again := true; again; {
			actions, _ := m.fleet.Step(time.Now(), e)
			again = false
			if slices.ContainsFunc(actions, func(a fleet.Action) bool { _, ok := a.(fleet.Prepare); return ok }) {
				m.save() // a master that comes after this one knows what was asked for
			}
			for _, a := range actions {
				if steer, ok := a.(fleet.Steer); ok { // the last one, which is answered
					e, again = m.steer(steer.IDs), true
				} else {
					m.do(a)
				}
			}
		}
	})
}

func (m *Master) handle(e event) {
	switch e.(type) {
	case stirred:
	default:
		m.saver.Changed()
	}
	switch e := e.(type) {
	case signalled:
		if m.keep != nil && !e.kept {
			m.log.Warn("A signal for the keeper has come to its master, which leaves it alone", "event", events.SignalStray,
				"signal", linux.SignalName(e.signal.(unix.Signal)), "keeper", m.cfg.PID, "pid", os.Getpid())
			break
		}
		m.signalled(e.signal)
	case stirred:
		// tick takes it in
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
	case died:
		m.died(e.id)
	case ended:
		m.ended(e.id)
	default:
		panic(fmt.Sprintf("master: unknown event %T", e))
	}
}

func (m *Master) signalled(s os.Signal) {
	m.saver.Heed(s.(unix.Signal))
	switch s {
	case unix.SIGUSR2:
		m.order(reload.Order{Upgrade: true})
	case unix.SIGHUP:
		m.order(reload.Order{})
	case unix.SIGTERM, unix.SIGINT, unix.SIGQUIT:
		if m.fleet.Stopping() {
			m.end.hurried = s
			m.log.Warn("Stopping at once, workers are killed", "event", events.ClusterShutdown, "signal", linux.SignalName(s.(unix.Signal)))
			m.step(fleet.Stop{Now: true})
			return
		}
		m.log.Info("Stopping, workers drain", "event", events.ClusterShutdown, "signal", linux.SignalName(s.(unix.Signal)),
			"workers", len(m.workers), "within", m.cfg.Fleet.DrainTimeout+m.cfg.Fleet.KillGrace)
		m.step(fleet.Stop{})
	case unix.SIGTTIN:
		m.scale(+1)
	case unix.SIGTTOU:
		m.scale(-1)
	case unix.SIGUSR1:
		if err := m.cfg.Reopen(); err != nil {
			m.log.Error("Cannot reopen the log file: "+err.Error(), "event", events.LogReopened)
			return
		}
		m.log.Info("Log file reopened", "event", events.LogReopened)
	}
}

// keepProgram has the keeper hold what the next master is to know.
func (m *Master) keepProgram() {
	if m.cfg.Program == nil {
		return
	}
	f, err := snapshot.File(m.cfg.Program)
	if err != nil {
		m.report(events.RecordFailed, err)
		return
	}
	defer f.Close()
	m.keep.StoreFile(fdstore.Program, f)
}

func (m *Master) scale(by int) {
	n := m.fleet.Slots() + by
	if n < 1 || n > m.cfg.MaxSlots {
		m.log.Warn(fmt.Sprintf("Not scaled: allowed are 1 to %d workers", m.cfg.MaxSlots), "event", events.ClusterScaled, "workers", n-by, "least", 1, "most", m.cfg.MaxSlots)
		return
	}
	m.scaleTo(n)
}

func (m *Master) scaleTo(n int) {
	m.log.Info("Number of workers changes", "event", events.ClusterScaled, "workers", n)
	m.step(fleet.SetSlots{N: n})
}

// notified is what a worker says by sd_notify(3).
func (m *Master) notified(w *worker, n sdnotify.Notice) {
	if n.State != nil {
		w.state = *n.State
		m.log.Debug("Worker's status", w.attrs(events.WorkerStatus, "status", w.state.Status, "reloading", w.state.Reloading)...)
	}
	if n.Stores {
		m.log.Warn("A worker wants its descriptors stored; handoff keeps no store for workers, they are closed", w.attrs(events.WorkerStatus)...)
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
		m.step(fleet.Hung{ID: w.id, Reason: "its watchdog says so"})
	}
	if n.Ready && m.cfg.ReadyWhen != Started {
		m.ready(w) // also where listening is waited for
	}
	if n.Stopping && m.fleet.Stays(w.id) {
		m.leaving(w) // one that drains says nothing new
	}
}

// isDraining tells whether a worker has been told to drain.
func (m *Master) isDraining(id fleet.ID) bool {
	return slices.ContainsFunc(m.fleet.Workers(), func(w fleet.Worker) bool { return w.ID == id && w.Phase == fleet.Draining })
}

func (m *Master) leaving(w *worker) {
	m.history.counters.CountRestart("asked")
	m.log.Info("Worker asks to be replaced", w.attrs(events.WorkerLeaving)...)
	m.step(fleet.Leave{ID: w.id})
}

// died steers away from a dead worker at once.
func (m *Master) died(id fleet.ID) {
	w := m.workers[id]
	if w == nil {
		return
	}
	w.dead = true
	w.session.Died()
	m.listeners.ReleaseAll(listeners.Worker(id), time.Now())
	m.resteer()
}

func (m *Master) ended(id fleet.ID) {
	w := m.workers[id]
	if w == nil {
		return
	}
	delete(m.workers, id)
	m.listeners.ForgetQuiet(listeners.Worker(id))
	if m.cfg.Contract != NodeContract && !w.process.Adopted() {
		w.process.SignalGroup(unix.SIGTERM) // what it has left behind in its group goes too
	}
	w.session.End()
	if w.notify != nil {
		sdnotify.Close(w.notify)
	}
	for _, what := range fdstore.OfWorker() {
		m.keep.Remove(fdstore.WorkerName(int(id), what))
	}
	status, err := w.process.Reap()
	reason, ended := linux.Ended(status), []any(nil)
	switch {
	case err != nil:
		reason = err.Error()
	case status.Signaled():
		ended = []any{"killed_by", linux.SignalName(status.Signal())}
	default:
		ended = []any{"code", status.ExitStatus()}
	}
	phase := fleet.Starting
	for _, fw := range m.fleet.Workers() {
		if fw.ID == id {
			phase = fw.Phase
			m.measureEnd(w, phase, fw.Leaving)
			if fw.Leaving && status.ExitStatus() == 0 {
				phase = fleet.Draining
			}
		}
	}
	if words := w.process.StderrTail(wordsMost); phase < fleet.Quieting {
		m.gens[w.gen].words = words
		m.history.restarts[w.slot]++
		m.history.lastError = sdnotify.Printable(fmt.Sprintf("slot %d, generation %d %s", w.slot, w.gen, reason))
		m.log.Error("Worker crashed: "+reason, append(w.attrs(events.WorkerCrashed, append(ended, "after", time.Since(w.began).Round(time.Millisecond))...), wordsAttr(words)...)...)
	} else {
		m.log.Info("Worker is gone: "+reason, w.attrs(events.WorkerShutdown, ended...)...)
	}
	m.step(fleet.Exited{ID: id, Reason: reason})
	if m.cfg.Calm != nil && len(m.workers) == m.fleet.Slots() {
		m.cfg.Calm()
	}
}

const wordsMost = 20 // lines of stderr in a report: the message of a Node error stands above its stack

// once logs a warning the first time.
func (m *Master) once(key, msg string, attrs ...any) {
	if !m.history.warned[key] {
		m.history.warned[key] = true
		m.log.Warn(msg, attrs...)
	}
}

// report logs an error that the master can do nothing about; nil is none.
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

// attrs names a worker in a log line.
func (w *worker) attrs(name string, more ...any) []any {
	about := []any{"event", name, "slot", w.slot, "pid", w.process.PID(), "generation", int(w.gen), "worker", int(w.id)}
	if w.port > 0 {
		about = append(about, "port", w.port)
	}
	return append(about, more...)
}
