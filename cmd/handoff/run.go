package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"handoff/handoff"
	"handoff/internal/admin"
	"handoff/internal/config"
	"handoff/internal/hooks"
	"handoff/internal/keeper"
	"handoff/internal/keeper/fdstore"
	"handoff/internal/logging"
	"handoff/internal/pidfile"
	"handoff/internal/seat"
	"handoff/internal/upgrade"
	"handoff/master"
	"handoff/master/fleet"
	"handoff/sdk/node"
)

func runCommand(code *int, asMaster bool) *cobra.Command {
	cfg := config.NewRun()
	c := &cobra.Command{
		Use:   "run [flags] [--] COMMAND [ARG...] | run [flags] APP.js [ARG...] | run [flags] [DIR]",
		Short: "Run a program and keep it running",
		Long: `Run N workers of a program, each on a listening socket that handoff holds.

A file ending in .js, .mjs, .cjs, .ts, .mts or .cts is run by node. No program needs a
change: in Node, server.listen(3000) gets a socket from handoff, as under its cluster module;
for any other program, bind and listen are answered by handoff (--contract).

Without a program, or with a directory, handoff.toml there says what to run and how: its keys are
these flags, with _ for -, and command. handoff init writes one, handoff check looks for mistakes.

Signals to handoff:
  USR2, HUP        reload: new workers start, take over when ready, old ones drain
  TERM, INT, QUIT  stop with drain; a second one stops at once
  TTIN, TTOU       one worker more, one fewer
  USR1             reopen --log-file

Each flag has an environment variable: --ready-timeout is HANDOFF_READY_TIMEOUT.
A duration is 500ms, 30s or 2m; a bare number is seconds.`,
		Example: `  handoff run server.js
  handoff run -n 4 --ready-when ready server.js --port 8080
  handoff run -n max-1 --balance sticky -- node --enable-source-maps dist/server.js
  handoff run -n 2 -- gunicorn app:app
  handoff run -- npm start
  handoff run --cwd /srv/current --env-file .env --pid-file /run/web.pid server.js`,
		RunE: func(c *cobra.Command, args []string) error {
			what, args, err := configure(c.Flags(), cfg, args, asMaster)
			if err != nil {
				return err
			}
			if cfg.Name != "" {
				if err := admin.CheckName(cfg.Name); err != nil {
					return fmt.Errorf("--name: %w", err)
				}
			}
			*code, err = supervise(cfg, what, args, asMaster)
			return err
		},
	}
	cfg.Flags(c.Flags())
	c.Flags().SortFlags = false
	c.Flags().SetInterspersed(false) // what follows the program is its own
	return c
}

// supervise checks everything that can be checked, and becomes the keeper, or
// the master.
func supervise(cfg *config.Run, what program, args []string, asMaster bool) (code int, err error) {
	dir, command := string(what.Dir), what.command()
	name := string(what.Name)
	slots, err := cfg.Slots()
	if err != nil {
		return 0, err
	}
	contract := cfg.ContractOf(command)
	var listens []master.Listen
	parsed, err := cfg.Listens(dir)
	if err != nil {
		return 0, err
	}
	for _, l := range parsed {
		listens = append(listens, master.Listen(l))
	}
	passed, err := handoff.Passed(os.Getenv)
	if err != nil {
		return 0, failed{err}
	}
	if _, err := publicOf(cfg, what, nil); err != nil {
		return 0, err
	}
	if !asMaster {
		kept, passed := split(keeper.KeptPrefix, passed)
		return keep(cfg, what, kept, passed)
	}
	given := *cfg
	if cfg.LogFile != "" && !filepath.IsAbs(cfg.LogFile) {
		cfg.LogFile = filepath.Join(string(what.Here), cfg.LogFile)
	}
	format, level := cfg.Log, cfg.Level()
	if rackmanLog(cfg) {
		format, level = "text", slog.LevelError+1 // its words say it all
	}
	log, err := logging.New(format, level, cfg.LogFile, name)
	if err != nil {
		return 0, failed{fmt.Errorf("cannot open the log file: %w", err)}
	}
	pid, _ := strconv.Atoi(os.Getenv(keeper.EnvKeeper))
	restarts, _ := strconv.Atoi(os.Getenv(keeper.EnvRestarts))
	reason := os.Getenv(keeper.EnvReason)
	if fd, err := strconv.Atoi(os.Getenv(keeper.EnvBinary)); err == nil && fd > 2 {
		unix.Close(fd)
	}
	for _, name := range []string{keeper.EnvBinary, keeper.EnvRestarts, keeper.EnvReason} {
		os.Unsetenv(name) // a candidate of this one's would take them for its own
	}
	up, err := upgrade.New(cfg.UpgradeTimeout)
	if err != nil {
		return 0, failed{err}
	}
	if up.Candidate() {
		err = stepUp(up)
	} else {
		err = up.Settle()
	}
	if err != nil {
		return 0, failed{err}
	}
	all, err := fdstore.TakeAll(os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		return 0, failed{err}
	}
	store, passed := sift(all)
	live, err := settings(cfg, what, log.Logger)
	if err != nil {
		return 0, failed{err}
	}
	effective := &effective{}
	effective.set(cfg, what)
	hooking := hooks.New(hooksOf(cfg, what), log.Logger)
	heard := []func([]byte){hooking.Event}
	if rackmanLog(cfg) {
		heard = append(heard, apart(rackmanLines(os.Stdout, os.Stderr, pid, term.IsTerminal(int(os.Stdout.Fd())))))
	}
	var tell func([]byte, bool)
	if cfg.Embedded {
		log.Told = &logging.Told{}
		tell = func(line []byte, wait bool) {
			if wait {
				log.Told.Say(line)
				return
			}
			log.Told.Write(line)
		}
		heard = append(heard, func(line []byte) { log.Told.Write(line) })
	}
	log.Events.Heard = func(line []byte) {
		for _, f := range heard {
			f(line)
		}
	}
	live.BeforeReload, live.BeforeReady = vetoes(cfg, hooking)
	output, err := captureOf(cfg, what, log)
	if err != nil {
		return 0, failed{err}
	}
	public, err := publicOf(cfg, what, log.Logger)
	if err != nil {
		return 0, failed{err}
	}
	files := &watcher{log: log.Logger, cfg: watchConfig(cfg, what)}
	lean()
	if restarts == 0 && len(store) == 0 && !up.Candidate() {
		log.Info("handoff runs "+strings.Join(args, " "), "event", "cluster.starting", "pid", pid,
			"workers", slots, "version", version)
	}
	defer log.Flush()
	reopen := log.Reopen
	conf := master.Config{
		Name: name, Version: version, PID: pid, Control: watched(files, control(name, log, effective)),
		Live:          live,
		Reread:        reread(log, files, hooking, effective, &given, os.Args[2:]),
		Contract:      master.Contract(contract),
		Listen:        listens,
		Passed:        passed,
		Store:         store,
		Keeper:        os.Getenv("NOTIFY_SOCKET"),
		Instance:      os.Getenv(keeper.EnvInstance),
		SignalBase:    keeper.SignalBase,
		Restarts:      restarts,
		Reason:        reason,
		ReplaceKeeper: replaceKeeper,
		KeptAbove:     keptAbove(),
		UpWatchdog:    upWatchdog(pid),
		Upgrade:       up.Start,
		Changed:       upgrade.Changed,
		Upgraded:      up.Candidate(),
		NoSteering:    cfg.NoSteering,
		Scratch:       cfg.Scratch,
		Admin:         public,
		AdminAddr:     adminAddr(cfg.Admin),
		Calm:          dropText,
		Log:           log.Logger,
		Stderr:        os.Stderr,
		Tell:          tell,
	}
	if output != nil {
		conf.Output = output.worker
		reopen = func() error { return errors.Join(log.Reopen(), output.Reopen()) }
	}
	if conf.Reopen = reopen; cfg.Death != "" {
		conf.Changed = nil // workers would not outlive it
		conf.Upgrade = func([]byte) error {
			return errors.New("cannot upgrade: with --pdeathsig workers end with their master")
		}
	}
	conf.Finish = func() { hooking.Close(cfg.HookTimeout) }
	return master.Run(conf), nil
}

// settings is what of a configuration may change while a master runs.
func settings(cfg *config.Run, what program, log *slog.Logger) (live master.Live, err error) {
	slots, err := cfg.Slots()
	if err != nil {
		return live, err
	}
	signal, err := cfg.Signal()
	if err != nil {
		return live, err
	}
	ports, err := cfg.PortNumbers()
	if err != nil {
		return live, err
	}
	program, err := json.Marshal(what)
	if err != nil {
		return live, err
	}
	conditions, err := cfg.Conditions()
	if err != nil {
		return live, err
	}
	if err := cfg.MakeCgroup(); err != nil {
		return live, err
	}
	memory, err := cfg.MemoryMost()
	if err != nil {
		return live, err
	}
	hold, err := cfg.Holds()
	if err != nil {
		return live, err
	}
	return master.Live{
		Fleet: fleet.Config{
			Slots: slots, ReadyTimeout: cfg.ReadyTimeout, ReadyDelay: cfg.ReadyDelayOf(what.command()), QuietTimeout: cfg.QuietTimeout,
			DrainTimeout: cfg.DrainTimeout, KillGrace: cfg.KillGrace, DrainedGrace: drainedGrace,
			Respawn: cfg.Respawn, Backoff: cfg.Backoff, Stable: cfg.Backoff, MaxFailures: cfg.MaxFailures,
			Strategy: map[string]fleet.Strategy{"all": fleet.All, "slot": fleet.Slot}[cfg.Strategy],
			Surge:    cfg.Surge, Canary: cfg.Canary, Watchdog: cfg.Watchdog, DrainSpread: cfg.DrainSpread,
			MaxAge: cfg.MaxAge, ReloadEvery: cfg.ReloadEvery, Patient: cfg.Embedded,
		},
		Command: master.Command{
			Args: what.command(), Script: what.Script, Dir: string(what.Dir), Env: workerEnviron(cfg), EnvFile: cfg.EnvFile, Set: cfg.Env,
		},
		DrainSignal: signal, DrainMessage: cfg.DrainMessage, SlotVariable: cfg.SlotVariable, Ports: ports, Hold: hold, ReadyWhen: master.ReadyWhen(cfg.ReadyWhen), QuietGrace: min(quietGrace, cfg.QuietTimeout),
		Environ: environ(cfg, what.command(), log), Program: program,
		SlotsMost: cfg.SlotsMost(), Balance: map[string]handoff.Balance{"even": handoff.Even, "sticky": handoff.Sticky, "shared": handoff.Shared}[cfg.Balance],
		Conditions: conditions, MemoryMost: memory, MaxRequests: cfg.MaxRequests, StallKill: cfg.StallKill,
	}, nil
}

// workerEnviron is handoff's own environment, and what a login gives the user of
// --user.
func workerEnviron(cfg *config.Run) []string {
	env := os.Environ()
	for _, kv := range cfg.Start.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		env = append(slices.DeleteFunc(env, func(old string) bool { return strings.HasPrefix(old, name+"=") }), kv)
	}
	return env
}

// fixed are the keys that a running handoff cannot change, as they are.
func fixed(cfg *config.Run) map[string]string {
	return map[string]string{
		"contract": cfg.Contract, "balance": fixedBalance(cfg), "listen": fmt.Sprint(cfg.Listen), "name": cfg.Name, "pid_file": cfg.PIDFile,
		"admin": cfg.Admin, "admin_token_file": cfg.AdminToken,
		"capture": fmt.Sprint(cfg.LogPrefix, cfg.Capture, cfg.CaptureDir), "pdeathsig": cfg.Death,
		"log": cfg.Log, "log_file": cfg.LogFile, "upgrade_timeout": cfg.UpgradeTimeout.String(),
	}
}

// fixedBalance tells the kinds of sockets apart: what is not shared can change.
func fixedBalance(cfg *config.Run) string {
	if cfg.Balance == "shared" {
		return cfg.Balance
	}
	return ""
}

// publicOf is what serves --admin; nil: nothing does.
func publicOf(cfg *config.Run, what program, log *slog.Logger) (func(net.Listener, master.Control) func(), error) {
	if cfg.Admin == "" {
		return nil, nil
	}
	if err := admin.CheckAddr(cfg.Admin, cfg.AdminToken != ""); err != nil {
		return nil, fmt.Errorf("--admin: %w", err)
	}
	p := admin.Public{Addr: cfg.Admin}
	if path := cfg.AdminToken; path != "" {
		if !filepath.IsAbs(path) {
			path = filepath.Join(string(what.Here), path)
		}
		var err error
		if p.Token, err = admin.ReadToken(path); err != nil {
			return nil, fmt.Errorf("--admin-token-file: %w", err)
		}
	}
	return func(l net.Listener, c master.Control) func() { return p.Serve(l, c, log) }, nil
}

// adminAddr is an address as a listener has it.
func adminAddr(addr string) string {
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return addr
	}
	return a.String()
}

// reread returns what reads arguments, environment and file again. Without a file
// there is nothing that can have changed.
func reread(log *logging.Log, files *watcher, hooking *hooks.Runner, effective *effective, before *config.Run, args []string) func() (master.Live, []string, error) {
	parse := func() (*config.Run, program, error) {
		cfg := config.NewRun()
		flags := pflag.NewFlagSet("run", pflag.ContinueOnError)
		flags.SetInterspersed(false)
		cfg.Flags(flags)
		if len(args) > 0 && args[0] == "run" {
			args = args[1:]
		}
		if err := flags.Parse(args); err != nil {
			return nil, program{}, err
		}
		what, err := reconfigure(flags, cfg, flags.Args())
		return cfg, what, err
	}
	said := map[string]string{}
	old := *before // log_file is made absolute, and the like
	return func() (live master.Live, later []string, err error) {
		cfg, what, err := parse()
		if err != nil {
			return live, nil, err
		}
		was := fixed(&old)
		for _, key := range slices.Sorted(maps.Keys(was)) {
			if now := fixed(cfg)[key]; now != was[key] && said[key] != now {
				said[key] = now
				later = append(later, key)
			}
		}
		cfg.Contract, cfg.Death = before.Contract, before.Death
		if fixedBalance(cfg) != fixedBalance(before) {
			cfg.Balance = before.Balance
		}
		if live, err = settings(cfg, what, log.Logger); err != nil {
			return live, nil, err
		}
		before.Balance = cfg.Balance
		if !rackmanLog(before) {
			log.SetLevel(cfg.Level())
		}
		files.set(watchConfig(cfg, what))
		hooking.Set(hooksOf(cfg, what))
		effective.set(cfg, what)
		live.BeforeReload, live.BeforeReady = vetoes(cfg, hooking)
		return live, later, nil
	}
}

const (
	quietGrace   = 100 * time.Millisecond // for a program to take note of what it has accepted
	drainedGrace = 2 * time.Second        // for the exit, after the last connection has ended
)

// environ returns what is added to a worker's environment: what the Go SDK, or
// any program, may want to know of the drain, and the drain preload for Node.
func environ(cfg *config.Run, command []string, log *slog.Logger) func([]string) []string {
	load := preload(cfg, command, log)
	return func(env []string) []string {
		env = append(slices.Clone(env), "HANDOFF_DRAIN_SIGNAL="+drainSignal(cfg), "HANDOFF_KEEPALIVE_LINGER="+linger(cfg).String())
		if self, err := os.Executable(); err == nil && cfg.ContractOf(command) != "node" {
			env = append(env, node.NotifyVariable+"="+self)
		}
		if load != nil {
			env = load(env)
		}
		return env
	}
}

// drainSignal is the name of the drain signal, as kill(1) has it.
func drainSignal(cfg *config.Run) string {
	s, _ := cfg.Signal() // it was checked
	return strings.TrimPrefix(unix.SignalName(s), "SIG")
}

// linger is how long idle connections may stay in a drain. At the drain timeout
// they would be cut, so that it is at most three quarters of that.
func linger(cfg *config.Run) time.Duration {
	if cfg.DrainTimeout <= 0 {
		return cfg.Linger
	}
	return min(cfg.Linger, cfg.DrainTimeout*3/4)
}

// keep becomes the keeper, until the master ends as it means to.
func keep(cfg *config.Run, what program, kept, passed []handoff.Named) (code int, err error) {
	if cfg.PIDFile != "" && !filepath.IsAbs(cfg.PIDFile) {
		cfg.PIDFile = filepath.Join(string(what.Here), cfg.PIDFile)
	}
	if cfg.PIDFile != "" {
		remove, err := pidfile.Write(cfg.PIDFile)
		if err != nil {
			return 0, failed{err}
		}
		defer remove()
	}
	path, err := binary()
	if err != nil {
		return 0, failed{err}
	}
	// Masters start where there is always something, and know where this was.
	if err := what.pass(); err != nil {
		return 0, failed{err}
	}
	if err := os.Chdir("/"); err != nil {
		return 0, failed{err}
	}
	os.Unsetenv(envReplaces)
	if cfg.Embedded {
		if err := endWithParent(); err != nil {
			return 0, failed{err}
		}
	}
	lean()
	return keeper.Run(keeper.Config{Path: path, Args: append([]string{masterWord}, os.Args[1:]...),
		Kept: kept, Passed: passed, Upstream: os.Getenv("NOTIFY_SOCKET"), Stores: keptAbove(), Calm: dropText, Stderr: os.Stderr}), nil
}

// envParent is the pid of the process that an embedded handoff ends with.
const envParent = "HANDOFF_PARENT"

// endWithParent has the kernel send a SIGTERM at the end of the process that has
// started this one: workers drain then. (The signal is for the thread that asks; the
// main one, which calls this, stays.)
func endWithParent() error {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGTERM), 0, 0, 0); err != nil {
		return fmt.Errorf("cannot end with the parent: %w", err)
	}
	if parent := os.Getenv(envParent); parent != "" && parent != strconv.Itoa(os.Getppid()) {
		return errors.New("the process that has started this has ended")
	}
	return nil
}

// upWatchdog is how often a service manager wants a sign of life of the keeper,
// which is the process that it knows.
func upWatchdog(keeper int) time.Duration {
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if pid := os.Getenv("WATCHDOG_PID"); err != nil || usec <= 0 || pid != "" && pid != strconv.Itoa(keeper) {
		return 0
	}
	return time.Duration(usec) * time.Microsecond
}

// stepUp is what a new binary does: it looks whether it understands the state, and
// lets the master before go.
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
	return up.Take(takePatience)
}

// takePatience is how long the master before may take to exit.
const takePatience = 10 * time.Second

// binary is the path that this program was called by, absolute: through its
// symlinks, so that an upgrade follows them.
func binary() (string, error) {
	path, err := exec.LookPath(os.Args[0])
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		path, err = os.Executable()
	}
	if err != nil {
		return "", fmt.Errorf("cannot find handoff's own binary: %w", err)
	}
	return path, nil
}

// sift tells what the keeper has kept from the sockets of a service manager.
func sift(all []handoff.Named) (store, passed []handoff.Named) {
	passed, store = split(keeper.PassedPrefix, all)
	for i := range passed {
		_, passed[i].Name, _ = strings.Cut(passed[i].Name, "-") // after its number
	}
	return store, passed
}

// split takes those with a prefix in their names, which it takes off.
func split(prefix string, all []handoff.Named) (with, without []handoff.Named) {
	for _, n := range all {
		if rest, ok := strings.CutPrefix(n.Name, prefix); ok {
			n.Name = rest
			with = append(with, n)
		} else {
			without = append(without, n)
		}
	}
	return with, without
}

// keptAbove tells whether a service manager keeps descriptors for this service
// (FDSTORE of systemd 254; for older ones the unit says so).
func keptAbove() bool {
	n, err := strconv.Atoi(os.Getenv("FDSTORE"))
	return err == nil && n > 0
}

// replaceKeeper starts a new keeper with what the one before had. That one ends this
// process when it takes over; if it does not, replaceKeeper returns why, and this one may
// go on.
func replaceKeeper(named []handoff.Named, program []byte) error {
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return err
	}
	defer unix.Close(self)
	files, names := []uintptr{0, 1, 2}, []string{}
	for _, n := range append(named, handoff.Named{Name: keeper.MasterName, FD: self}) {
		files, names = append(files, uintptr(n.FD)), append(names, keeper.KeptPrefix+n.Name)
	}
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool {
		return strings.HasPrefix(kv, "NOTIFY_SOCKET=") || strings.HasPrefix(kv, "LISTEN_") || strings.HasPrefix(kv, envProgram+"=")
	})
	env = append(env, envProgram+"="+string(program), envReplaces+"=1", "NOTIFY_SOCKET="+os.Getenv(keeper.EnvUpstream), "LISTEN_FDS="+strconv.Itoa(len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	pidfd := -1
	pid, err := syscall.ForkExec("/proc/self/exe", seat.Args(-1, len(names), seat.Conditions{}, "/proc/self/exe", append(os.Args[:1:1], os.Args[2:]...)), &syscall.ProcAttr{
		Env: env, Files: files, Sys: &syscall.SysProcAttr{PidFD: &pidfd, Setpgid: true},
	})
	if err != nil {
		return err
	}
	defer unix.Close(pidfd)
	unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(keeperPatience.Milliseconds()))
	unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
	var status unix.WaitStatus
	unix.Wait4(pid, &status, 0, nil)
	return fmt.Errorf("process %d ended: code %d", pid, status.ExitStatus())
}

// keeperPatience is how long a new keeper may take to take over.
const keeperPatience = 10 * time.Second

// control opens the control socket. A service without one still serves.
func control(name string, log *logging.Log, effective *effective) func(master.Control) func(bool) {
	return func(c master.Control) func(bool) {
		l, err := admin.Listen(name)
		if err != nil {
			log.Warn(err.Error()+"; `handoff status` will not find this one. Set HANDOFF_RUNTIME_DIR to a folder of this user", "event", "control.missing")
			return func(bool) {}
		}
		return admin.Serve(l, c, admin.About{Events: log.Events, Output: log.Output, Told: log.Told, Config: effective.get, Log: log.Logger})
	}
}

// watched watches files while the master runs.
func watched(files *watcher, control func(master.Control) func(bool)) func(master.Control) func(bool) {
	return func(c master.Control) func(bool) {
		files.c = &c
		files.set(files.cfg)
		stop := control(c)
		return func(follows bool) {
			files.end()
			stop(follows)
		}
	}
}

// preload returns what adds the drain preload to a worker's environment. The file
// is looked for at each start: whoever deletes it deletes it for one moment.
func preload(cfg *config.Run, command []string, log *slog.Logger) func([]string) []string {
	if cfg.NoPreload {
		return nil
	}
	warned := false
	drain := node.Drain{Linger: linger(cfg), Websocket: cfg.WebsocketClose, Spread: cfg.DrainSpread}
	if s := drainSignal(cfg); s != "TERM" {
		drain.Emit = s
	}
	return func(env []string) []string {
		path, err := node.Install()
		if err != nil {
			if !warned {
				log.Warn(err.Error()+"; keep-alive clients may lose a request at a reload. Set HANDOFF_STATE_DIR to a folder that can be written to", "event", "preload.missing")
				warned = true
			}
			return env
		}
		if cfg.ContractOf(command) != "node" {
			drain.SayReady = cfg.ReadyWhen == "ready"
			return node.EnvironBehind(env, path, drainSignal(cfg), drain)
		}
		return node.Environ(env, command, path, drain)
	}
}

// lean keeps the master small: it allocates little, so that collecting often
// costs nothing.
func lean() {
	debug.SetGCPercent(20)
	debug.FreeOSMemory()
	dropText()
	os.WriteFile("/proc/self/comm", []byte("handoff"), 0) // it was executed as /proc/self/exe
}

// dropText lets go of the pages of the binary that the start has touched, and what
// follows does not need: code of the command line, of TLS, tables. What is needed
// comes back from the page cache. Only what cannot have been written to is dropped
// (madvise(2), MADV_DONTNEED).
func dropText() {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	maps, _ := os.ReadFile("/proc/self/maps")
	for line := range strings.Lines(string(maps)) {
		f := strings.Fields(line) // 00400000-00869000 r-xp 00000000 fd:01 123 /bin/handoff
		if len(f) < 6 || f[5] != exe || f[1] != "r-xp" && f[1] != "r--p" {
			continue
		}
		from, to, _ := strings.Cut(f[0], "-")
		start, err1 := strconv.ParseUint(from, 16, 64)
		end, err2 := strconv.ParseUint(to, 16, 64)
		if err1 == nil && err2 == nil && start < end {
			unix.Syscall(unix.SYS_MADVISE, uintptr(start), uintptr(end-start), unix.MADV_DONTNEED)
		}
	}
}
