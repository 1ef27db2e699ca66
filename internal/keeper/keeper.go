// Package keeper is the process whose pid the user knows. It starts the master, holds a
// duplicate of every descriptor that must survive it ([fdstore] has the dialogue),
// forwards signals, reaps, and starts the master again when it dies. It does nothing
// else.
//
//	keeper → master   NOTIFY_SOCKET, and signals as real-time ones (SignalBase)
//	master → keeper   what fdstore says
//
// Only messages of the master, and of a candidate that is its child, are accepted, by the
// credentials that the kernel attaches.
package keeper

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/cmsg"
	"handoff/internal/keeper/fdstore"
	"handoff/internal/linux"
	"handoff/internal/sdnotify"
)

// Config configures a keeper.
type Config struct {
	Path     string       // of the binary as it was called, absolute: what an upgrade starts
	Args     []string     // of the master, after the program's name
	Passed   []cmsg.Named // by a service manager; they are in the store from the start
	Kept     []cmsg.Named // the store of a previous keeper, from the service manager or that keeper's master
	Upstream string       // NOTIFY_SOCKET of a service manager; "" is none
	Stores   bool         // it keeps descriptors for this service
	Calm     func()       // is called when there is nothing to do for a while; may be nil
	Waits    Waits
	Dir      string    // for its socket, absolute
	Terminal *os.File  // the controlling terminal, non-blocking; nil: there is none
	Stderr   io.Writer // for its few messages
}

// Names and variables that keeper and master agree on.
const (
	// EnvKeeper is the keeper's pid, in the environment of a master.
	EnvKeeper = "HANDOFF_KEEPER"
	// EnvInstance identifies this keeper's processes.
	EnvInstance = "HANDOFF_INSTANCE"
	// EnvRestarts counts the masters that have died, and EnvReason says how the
	// last one did.
	EnvRestarts = "HANDOFF_RESTARTS"
	EnvReason   = "HANDOFF_REASON"
	// EnvUpgradeFailed is why a master is started after an upgrade, and not by it: the
	// new binary did not take over, or died after it had.
	EnvUpgradeFailed = "HANDOFF_UPGRADE_FAILED"
	// EnvUpstream is the service manager's notify socket, for a master whose keeper has
	// died.
	EnvUpstream = "HANDOFF_UPSTREAM"
	// SignalBase is added to the number of a signal that is forwarded to the master, as a
	// real-time signal, so that the master knows that it comes from the keeper. A service
	// manager or killall that signals a whole control group signals the master, too; that
	// copy must not count.
	SignalBase = 34 // SIGRTMIN: 32 and 33 are the C library's

	// EnvBinary is the descriptor that the binary was executed by, to close.
	EnvBinary = "HANDOFF_BINARY_FD"
)

// keeper is the state, which belongs to run's goroutine.
type keeper struct {
	cfg        Config
	waits      Waits
	instance   string
	socket     *socket
	store      fdstore.Server
	closers    closers
	manager    manager
	master     master
	binaries   binaries
	candidates []candidate
	signals    pending
	terminal   terminal
	restarts   int    // masters that have died
	reason     string // how the last one did
	wait       time.Duration
	startAt    time.Time // when the next master is started; zero: there is one
	stopAsked  time.Time // when a stop was ordered that no master has handled yet; zero: none
	stopAt     time.Time // when the next measure is due; zero: never
	stops      stopping
	before     []identity // children that this process had before it was a keeper
	said       struct {   // by sayOnce
		text string
		at   time.Time
	}
}

// closers close descriptors so that nobody who has made one can block the keeper, nor
// those that handoff itself has made: these must be closed before a [fdstore.Client.Flush]
// ends.
type closers struct{ store, workers, strangers cmsg.Closer }

func (c *closers) close(name string, fd int) {
	if fdstore.OfAnyWorker(name) {
		c.workers.Close(fd)
	} else {
		c.store.Close(fd)
	}
}

func (c *closers) stop() {
	c.store.Stop()
	c.workers.Stop()
	c.strangers.Stop()
}

// Run supervises the master until it ends intentionally, and returns its exit code. It
// takes over the process's signals and children.
func Run(cfg Config) int {
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, unix.SIGCHLD, unix.SIGUSR2, unix.SIGTERM, unix.SIGINT, unix.SIGQUIT, unix.SIGTTIN, unix.SIGTTOU, unix.SIGUSR1)
	if !signal.Ignored(unix.SIGHUP) { // nohup(1): it stays ignored
		signal.Notify(signals, unix.SIGHUP)
	}
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE) // dropped: a closed stderr ends nothing
	return newKeeper(cfg).run(signals)
}

func newKeeper(cfg Config) *keeper {
	k := &keeper{cfg: cfg, waits: cfg.Waits.orDefaults(), instance: random(), master: master{pidfd: -1},
		manager: manager{socket: cfg.Upstream, stores: cfg.Stores, numbers: map[string]int{}}}
	k.closers.strangers.Foreign = true
	k.manager.deaf = func() {
		k.say("the service manager does not read %s: what it is told waits, the service goes on", k.manager.socket)
	}
	k.store = fdstore.Server{Mirror: &k.manager, GiveTimeout: k.waits.Give, Close: k.closers.close}
	return k
}

func random() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

func (k *keeper) say(format string, args ...any) {
	fmt.Fprintf(k.cfg.Stderr, "handoff: keeper: "+format+"\n", args...)
}

// sayOnce is say for what may go wrong many times a second: the same is said once a minute.
func (k *keeper) sayOnce(text string, now time.Time) {
	if text == k.said.text && now.Sub(k.said.at) < time.Minute {
		return
	}
	k.said.text, k.said.at = text, now
	k.say("%s", text)
}

func (k *keeper) run(signals <-chan os.Signal) (code int) {
	k.before = children()
	k.inherit()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		k.say("cannot become a subreaper: %v", err)
		return 1
	}
	if err := k.listen(); err != nil {
		k.say("cannot start: %v", err)
		return 1
	}
	if sdnotify.Abstract(k.socket.address) {
		k.say("no private directory for its socket: any local user can send to it. Set HANDOFF_RUNTIME_DIR to a directory of this user")
	}
	defer func() {
		k.socket.close()
		k.closers.stop()
	}()
	if err := k.start(); err != nil {
		k.say("cannot start the master: %v", err)
		return 1
	}
	k.terminal = newTerminal(k.cfg.Terminal)
	defer k.terminal.end()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if next := k.deadline(); next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(next))
		}
		ended := false
		select {
		case s := <-signals:
			if s != unix.SIGCHLD {
				k.handle(s.(unix.Signal), time.Now())
				continue
			}
			code, ended = k.reap()
		case <-k.socket.readable:
			k.read()
		case <-k.terminal.closes:
			k.order(unix.SIGHUP, k.terminal.hasClosed(time.Now()), time.Now())
		case <-timer.C:
			code, ended = k.tick(time.Now())
		}
		if ended {
			k.manager.removeAll()
			k.manager.flush()
			return code
		}
	}
}

// inherit takes over the store of a previous keeper, and the sockets of a service
// manager.
func (k *keeper) inherit() {
	k.store.Adopt(k.manager.split(k.cfg.Kept)...)
	if len(k.cfg.Kept) > 0 {
		if f, err := linux.OpenImage(os.Getpid()); err == nil { // an upgrade may replace it
			k.binaries.ready(f)
		}
		k.reason = "its keeper died"
		k.manager.say("MAINPID=" + strconv.Itoa(os.Getpid()))
	}
	if pidfd := k.store.Take(fdstore.Master); pidfd >= 0 {
		end(pidfd, k.waits.End)
	}
	for i, p := range k.cfg.Passed {
		p.Name = fdstore.PassedPrefix + strconv.Itoa(i) + "-" + fdstore.CleanName(p.Name)
		k.store.Adopt(p)
	}
}

// deadline is when tick must be called; zero: never.
func (k *keeper) deadline() (first time.Time) {
	for _, at := range [...]time.Time{k.startAt, k.stopAt, k.binaries.runsBy} {
		if first.IsZero() || !at.IsZero() && at.Before(first) {
			first = at
		}
	}
	return first
}

// tick handles the timers, and reports whether the keeper must end.
func (k *keeper) tick(now time.Time) (code int, ended bool) {
	if !k.stopAt.IsZero() && !now.Before(k.stopAt) {
		k.read() // the keeper may have been stopped (Ctrl-Z), and the master has handled it
		if k.signals.stop() && k.stop(now) {
			return 1, true
		}
	}
	if late := k.binaries.runsBy; !late.IsZero() && !now.Before(late) {
		if k.read(); !k.binaries.runsBy.IsZero() {
			k.say("the new binary's master does nothing: killing it")
			k.binaries.runsBy, k.binaries.hung = time.Time{}, true
			unix.PidfdSendSignal(k.master.pidfd, unix.SIGKILL, nil, 0)
		}
	}
	if !k.startAt.IsZero() && !now.Before(k.startAt) {
		k.restart(now)
	}
	return 0, false
}

// notice handles a message, and owns its descriptors.
func (k *keeper) notice(pid int, text string, fds []int) {
	m := fdstore.Parse(text)
	k.forgetDead()
	if m.Candidate {
		k.consider(pid)
	}
	if pid <= 0 || pid != k.master.pid && !k.isCandidate(pid) {
		k.closers.strangers.CloseAll(fds)
		return
	}
	if m.ForManager {
		k.closers.store.CloseAll(fds)
		k.manager.say(m.Manager)
		return
	}
	if err := k.store.Handle(m, fds); err != nil {
		k.sayOnce(err.Error(), time.Now())
	}
	if pid == k.master.pid {
		k.master.stopping = k.master.stopping || m.Stopping
		k.master.leaving = k.master.leaving || m.Leaving
		if m.Upgrade != fdstore.Unsaid {
			k.master.upgrade = m.Upgrade
		}
		if m.Runs {
			k.binaries.runsBy = time.Time{}
		}
	}
	k.signals.took(m.Took)
	if !k.signals.stop() {
		k.stopAsked, k.stopAt, k.stops = time.Time{}, time.Time{}, asked
	}
	if m.Ready {
		k.becomes(pid, m.Upgrade)
		if m.Promises {
			k.binaries.promise(time.Now().Add(k.waits.Candidate))
		}
	}
}
