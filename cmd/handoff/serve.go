package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"handoff/internal/admin"
	"handoff/internal/cmsg"
	"handoff/internal/config"
	"handoff/internal/events"
	"handoff/internal/hooks"
	"handoff/internal/keeper"
	"handoff/internal/keeper/fdstore"
	"handoff/internal/linux"
	"handoff/internal/logging"
	"handoff/internal/service"
	"handoff/internal/trust"
	"handoff/internal/upgrade"
	"handoff/master"
	"handoff/master/snapshot"
)

// serving is a master before its start, and what runs beside it.
type serving struct {
	cfg  *config.Run
	what service.Program // the last result
	from launched
	args []string // of the command line, to be reread

	log       *logging.Log
	up        *upgrade.Upgrader
	hooks     *hooks.Runner
	files     *watcher
	output    *output
	effective *effective
	fixed     *service.Fixed
}

// serve runs the master, until it ends.
func serve(cfg *config.Run, what service.Program, said []string, plan plan) (code int, err error) {
	// Dropped from the first line of the log to the last: a closed stderr ends nothing. It is
	// not ignored, since workers would inherit that.
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE)
	s := &serving{cfg: cfg, what: what, from: launchedBy(), args: os.Args[2:], effective: &effective{}, fixed: service.NewFixed(cfg)}
	if s.log, err = openLog(cfg, what, s.from.follows()); err != nil {
		return 0, failed{err}
	}
	defer s.log.Flush()
	if err := linux.LeaveTerminal(); err != nil {
		s.log.Warn(err.Error()+"; workers can open it, and type into it", "event", events.ClusterStarting)
	}
	conf := master.Config{Contract: master.Contract(cfg.ContractOf(what.Command())), Listen: plan.listens}
	for _, step := range []func(*master.Config) error{s.takeOver, s.settings, s.listeners, s.beside} {
		if err := step(&conf); err != nil {
			return 0, failed{err}
		}
	}
	shrinkHeap()
	if s.from.restarts == 0 && len(conf.Store) == 0 && !s.up.Candidate() {
		s.log.Info("Starting "+strings.Join(said, " "), "event", events.ClusterStarting, "pid", s.from.pid,
			"workers", conf.Fleet.Slots, "version", version)
	}
	return master.Run(conf), nil
}

// launched has the keeper's variables of a start.
type launched struct {
	pid      int // the keeper's, for people
	restarts int // of masters that died
	reason   string
	failed   string // why a new binary is not the master; "": there is none
}

// launchedBy reads the variables, and removes them: a candidate of this process must not
// use them.
func launchedBy() (l launched) {
	l.pid, _ = strconv.Atoi(os.Getenv(keeper.EnvKeeper))
	l.restarts, _ = strconv.Atoi(os.Getenv(keeper.EnvRestarts))
	l.reason, l.failed = os.Getenv(keeper.EnvReason), os.Getenv(keeper.EnvUpgradeFailed)
	if fd, err := strconv.Atoi(os.Getenv(keeper.EnvBinary)); err == nil && fd > 2 {
		unix.Close(fd)
	}
	for _, name := range []string{keeper.EnvBinary, keeper.EnvRestarts, keeper.EnvReason, keeper.EnvUpgradeFailed} {
		os.Unsetenv(name)
	}
	return l
}

// follows reports whether another master was there before. What has become wrong around the
// service since (a log that cannot be opened, a full disk) is reported then: it must not be
// without a master for it.
func (l launched) follows() bool { return l.reason != "" }

// openLog opens the log of a configuration; stderr in its place, if there must be one.
func openLog(cfg *config.Run, what service.Program, must bool) (*logging.Log, error) {
	format, level := cfg.Log, cfg.Level()
	if rackmanLog(cfg) {
		format, level = "text", slog.LevelError+1 // the error is complete
	}
	path, name := what.Path(cfg.LogFile), string(what.Name)
	log, err := logging.New(format, level, path, name)
	if err != nil {
		err = fmt.Errorf("cannot open the log file: %w", err)
	}
	if err != nil && must {
		log = logging.Instead(format, level, path, name)
		log.Error("Logging to stderr: "+err.Error()+" (USR1 opens it again)", "event", events.LogReopened)
		return log, nil
	}
	return log, err
}

// takeOver ends the previous master, if there is one, and fetches the keeper's store.
func (s *serving) takeOver(conf *master.Config) (err error) {
	if s.up, err = upgrade.New(s.cfg.UpgradeTimeout); err != nil {
		return err
	}
	if s.up.Candidate() {
		err = stepUp(s.up)
	} else {
		err = s.up.Settle()
	}
	if err != nil {
		return err
	}
	conf.Keeper = os.Getenv("NOTIFY_SOCKET")
	if dir, err := admin.Dir(); err == nil { // else control reports it
		conf.RuntimeDir = dir
	}
	all, err := fdstore.TakeAll(conf.Keeper)
	if err != nil {
		return err
	}
	if s.from.failed != "" { // from scratch nobody's workers would be left: the keeper tries the other binary again
		if err := checkState(all); err != nil {
			return err
		}
	}
	conf.Store, conf.Inherited = partition(all)
	conf.PID, conf.Restarts, conf.Reason = s.from.pid, s.from.restarts, s.from.reason
	conf.Instance, conf.SignalBase = os.Getenv(keeper.EnvInstance), keeper.SignalBase
	conf.ReplaceKeeper, conf.ManagerStores, conf.UpWatchdog = replaceKeeper, managerStores(), upWatchdog(s.from.pid)
	conf.Upgrade, conf.Changed, conf.Upgraded, conf.UpgradeFailed = s.up.Start, s.changed, s.up.Candidate(), s.from.failed
	if s.cfg.Death != "" { // workers would not outlive it
		conf.Changed = nil
		conf.Upgrade = func([]byte) error {
			return errors.New("cannot upgrade: with --pdeathsig workers end with their master")
		}
	}
	return nil
}

// changed reports whether another binary is on disk that a reload upgrades to. As root,
// handoff runs none by itself that another user has put there.
func (s *serving) changed() bool {
	if !upgrade.Changed() {
		return false
	}
	if os.Geteuid() != 0 || s.cfg.TrustConfig {
		return true
	}
	err := trust.Replaceable(os.Args[0])
	if err != nil {
		s.log.Error("Not upgraded to the binary on disk: "+err.Error()+", and handoff runs as root; `handoff upgrade` as root uses it", "event", events.UpgradeFailed, "reason", err.Error())
	}
	return err == nil
}

// settings is the configuration of the workers.
func (s *serving) settings(conf *master.Config) (err error) {
	conf.Name, conf.Version, conf.Log = string(s.what.Name), version, s.log.Logger
	conf.Identity = s.what.Identity()
	conf.NoSteering, conf.DryRun, conf.Calm = s.cfg.NoSteering, s.cfg.DryRun, dropText
	conf.Live, err = s.live(s.cfg, s.what)
	s.effective.set(service.Effective(s.cfg, s.what))
	conf.Reread = s.reread
	return err
}

func (s *serving) live(cfg *config.Run, what service.Program) (master.Live, error) {
	live, err := service.Live(cfg, what, service.ThisWorld(s.log.Logger))
	if err == nil {
		err = cfg.MakeCgroup()
	}
	return live, err
}

// reread rereads arguments, environment and file. Without a file nothing can have
// changed.
func (s *serving) reread() (live master.Live, later []string, err error) {
	cfg, what, err := reconfigure(s.args, s.what)
	if err != nil {
		return live, nil, err
	}
	later = s.fixed.Keep(cfg)
	if live, err = s.live(cfg, what); err != nil {
		return live, nil, err
	}
	s.fixed.Took(cfg)
	s.what = what
	if !rackmanLog(s.cfg) {
		s.log.SetLevel(cfg.Level())
	}
	s.files.set(service.Watch(cfg, what))
	s.hooks.Set(service.Hooks(cfg, what, os.Environ()))
	s.effective.set(service.Effective(cfg, what))
	live.BeforeReload, live.BeforeReady = service.Vetoes(cfg, s.hooks.Ask)
	live.Health = service.Health(cfg, s.hooks.Check)
	return live, later, nil
}

// listeners connects the recipients of events: hooks, RackMan's output, the program that
// has started this one.
func (s *serving) listeners(conf *master.Config) error {
	s.hooks = hooks.New(service.Hooks(s.cfg, s.what, os.Environ()), s.log.Logger)
	conf.BeforeReload, conf.BeforeReady = service.Vetoes(s.cfg, s.hooks.Ask)
	conf.Health = service.Health(s.cfg, s.hooks.Check)
	heard, said := []func([]byte){s.hooks.Event}, func(time.Duration) {}
	if rackmanLog(s.cfg) {
		hear, end := apart(rackmanLines(os.Stdout, os.Stderr, s.from.pid, term.IsTerminal(int(os.Stdout.Fd()))))
		heard, said = append(heard, hear), end
	}
	conf.Finish = func() {
		s.output.Drain(slowReader)
		s.hooks.Close(s.cfg.HookTimeout)
		said(sayTimeout)
	}
	if s.cfg.Embedded {
		queue := &logging.WorkerEvents{}
		s.log.WorkerEvents = queue
		conf.WorkerEvents = func(line []byte, wait bool) {
			if wait {
				queue.WriteWait(line)
				return
			}
			queue.Write(line)
		}
		heard = append(heard, func(line []byte) { queue.Write(line) })
	}
	s.log.Events.Heard = func(line []byte) {
		for _, f := range heard {
			f(line)
		}
	}
	return nil
}

// beside has what runs in goroutines of its own: captured output, watched files, the
// sockets of the control API.
func (s *serving) beside(conf *master.Config) (err error) {
	if s.output, err = outputOf(service.Capture(s.cfg, s.what), s.log); err != nil && !s.from.follows() {
		return err // else the lines that cannot be written are counted, and each is tried
	}
	conf.Stdout, conf.Output, conf.Losses = s.output.stdout, s.output.worker, s.output.losses
	conf.Captured = s.log.Output != nil
	conf.Reopen = func() error { return errors.Join(s.log.Reopen(), s.output.Reopen()) }
	if conf.Admin, err = publicOf(s.cfg, s.what, s.log.Logger); err != nil {
		if !s.from.follows() {
			return err
		}
		s.log.Error(err.Error()+"; the address is not served until handoff is restarted", "event", events.AdminFailed, "address", s.cfg.Admin)
	}
	conf.AdminAddr = adminAddr(s.cfg.Admin)
	conf.AdminListen = admin.Public{Addr: conf.AdminAddr}.Listen
	s.files = &watcher{log: s.log.Logger, cfg: service.Watch(s.cfg, s.what)}
	conf.Control = s.control
	return nil
}

// control opens the control socket, and watches files, while the master runs. A service
// without a control socket still serves.
func (s *serving) control(c master.Control) (stop func(follows bool)) {
	s.files.c = &c
	s.files.set(s.files.cfg)
	l, err := admin.Listen(string(s.what.Name))
	if err != nil {
		s.log.Warn(err.Error()+"; `handoff status` will not find this one. Set HANDOFF_RUNTIME_DIR to a directory of this user", "event", events.ControlMissing)
		return func(bool) { s.files.end() }
	}
	end := admin.Serve(l, c, admin.About{Events: s.log.Events, Output: s.log.Output, WorkerEvents: s.log.WorkerEvents, Config: s.effective.get, Log: s.log.Logger})
	unregister := func() {}
	if s.cfg.Embedded {
		if unregister, err = admin.Register(string(s.what.Name)); err != nil {
			s.log.Warn(err.Error()+"; `handoff ls` will not list this one", "event", events.ControlMissing)
		}
	}
	return func(follows bool) {
		s.files.end()
		if !follows {
			unregister()
		}
		end(follows)
	}
}

// checkState checks whether this binary can read the state in the keeper's store.
func checkState(all []cmsg.Named) error {
	for _, n := range all {
		if n.Name == fdstore.State {
			return snapshot.Check(n.FD)
		}
	}
	return nil
}

// stepUp checks whether this new binary can read the state, and ends the previous master.
func stepUp(up *upgrade.Upgrader) error {
	if err := fdstore.Announce(os.Getenv("NOTIFY_SOCKET")); err != nil {
		return err
	}
	state, err := up.State()
	if err != nil {
		return err
	}
	if err := master.CheckRecord(state); err != nil {
		return err
	}
	return up.Take(takeTimeout)
}

// sayTimeout is how long to wait for the reader of RackMan's last lines.
const sayTimeout = time.Second

// takeTimeout is how long the previous master may take to exit.
const takeTimeout = 10 * time.Second
