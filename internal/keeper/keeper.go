// Package keeper is the process whose pid the user knows. It starts the master,
// holds a duplicate of every descriptor that must survive it, forwards signals,
// reaps, and starts the master again when it dies. It does nothing else.
//
// It speaks the service manager's side of systemd's notify protocol
// (sd_notify(3)) with the master:
//
//	keeper → master   NOTIFY_SOCKET, and signals as real-time ones (SignalBase)
//	master → keeper   X_GIVE=1 + socket           the store, please: each name with its descriptor;
//	                                              with FDNAME=n that one alone
//	                  READY=1                     it heeds signals from now on
//	                  FDSTORE=1 FDNAME=n + fd     keep this; what had the name is closed
//	                  FDSTOREREMOVE=1 FDNAME=n    close it
//	                  X_CANDIDATE=1               I may become the master (an upgrade)
//	                  STOPPING=1                  my exit is meant: exit with my code
//	                  X_LEAVING=1                 I make room for the candidate
//	                  X_TOOK=SIGUSR2,SIGHUP       I have taken note of these signals
//	                  X_BEGIN=1 … X_END=1         what is not stored again between the two is dropped
//	                  X_UP=1 and more             the rest is for the service manager above
//
// Only the master, and a candidate that is its child, are believed, by the
// credentials that the kernel attaches.
package keeper

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/cmsg"
	"handoff/internal/linux"
)

// Config is what a keeper needs to know.
type Config struct {
	Path     string       // of the binary as it was called, absolute: what an upgrade starts
	Args     []string     // of the master, after the program's name
	Passed   []cmsg.Named // by a service manager; they are in the store from the start
	Kept     []cmsg.Named // what a keeper before had, as the service manager or that one's master gives it
	Upstream string       // NOTIFY_SOCKET of a service manager; "" is none
	Stores   bool         // it keeps descriptors for this service
	Calm     func()       // is called when there is nothing to do for a while; may be nil
	Stderr   io.Writer    // for the little that it has to say
}

// Names and variables that keeper and master agree on.
const (
	// PassedPrefix begins the names of sockets that a service manager has passed.
	PassedPrefix = "passed-"
	// EnvKeeper is the keeper's pid, in the environment of a master.
	EnvKeeper = "HANDOFF_KEEPER"
	// EnvInstance tells this keeper's processes from others'.
	EnvInstance = "HANDOFF_INSTANCE"
	// EnvRestarts counts the masters that have died, and EnvReason says how the
	// last one did.
	EnvRestarts = "HANDOFF_RESTARTS"
	EnvReason   = "HANDOFF_REASON"
	// EnvUpstream is where the service manager above listens, for a master whose
	// keeper has died.
	EnvUpstream = "HANDOFF_UPSTREAM"
	// SignalBase is what is added to a signal's number on its way to the master, as
	// a real-time signal: so the master knows what comes from the keeper. A
	// service manager that signals a whole control group, or killall, means the
	// keeper, which passes it on; the master's own copy would be a second one.
	SignalBase = 34 // SIGRTMIN: 32 and 33 are the C library's

	// EnvBinary is the descriptor that the binary was executed by, to close.
	EnvBinary = "HANDOFF_BINARY_FD"
)

const (
	storeMost     = 1 << 16 // descriptors
	readMost      = 256     // notices at once
	candidateMost = 30 * time.Second
	helpless      = 10 * time.Second // without a master that can stop
	givePatience  = 2 * time.Second
	backoffMost   = 2 * time.Second
	backoffFirst  = 50 * time.Millisecond
	calm          = time.Second // of life, after which a death is the first again
)

// Keeper is the state, which belongs to Run's goroutine.
type keeper struct {
	cfg      Config
	instance string
	notify   *cmsg.Conn
	name     string       // of notify
	store    []cmsg.Named // in the order in which they came
	master   int          // pid; 0: none
	pidfd    int
	exe      *os.File // the binary of the last master that was ready
	ready    bool
	above    above
	others   []candidate
	leaving  bool // the master makes room for a candidate
	stopping bool
	restarts int
	reason   string
	began    time.Time
	again    *time.Timer
	wait     time.Duration
	pending  []os.Signal     // came while no master could take them
	sent     []os.Signal     // were sent to the master, which has not said that it took them
	stale    map[string]bool // names that X_BEGIN found and nobody has stored since; nil: no X_BEGIN
	alone    *time.Timer     // a stop that no master heeds
	stopAt   time.Time       // when it was asked for; zero: it was not, or was taken note of
	killing  bool            // the next time it is SIGKILL
}

// candidate is a process that may become the master, until then.
type candidate struct {
	pid   int
	pidfd int
	until time.Time
}

// Run supervises the master until it ends as it means to, and returns its exit
// code. It takes over the process's signals and children.
func Run(cfg Config) int {
	k := &keeper{cfg: cfg, pidfd: -1, instance: random(), again: time.NewTimer(time.Hour), alone: time.NewTimer(time.Hour),
		above: above{cfg.Upstream, cfg.Stores, map[string]int{}}}
	k.again.Stop()
	k.alone.Stop()
	k.store = k.above.split(cfg.Kept)
	if len(cfg.Kept) > 0 {
		k.exe, k.reason = openSelf(), "its keeper had died"
		k.above.say("MAINPID=" + strconv.Itoa(os.Getpid()))
	}
	for i, n := range k.store {
		if n.Name == MasterName {
			end(n.FD)
			k.store = slices.Delete(k.store, i, i+1)
			break
		}
	}
	for i, p := range cfg.Passed {
		p.Name = PassedPrefix + strconv.Itoa(i) + "-" + strings.Map(printable, p.Name)
		k.store = append(k.store, p)
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		k.say("cannot become a subreaper: %v", err)
		return 1
	}
	if err := k.listen(); err != nil {
		k.say("cannot start: %v", err)
		return 1
	}
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, unix.SIGCHLD, unix.SIGUSR2, unix.SIGHUP, unix.SIGTERM, unix.SIGINT, unix.SIGQUIT, unix.SIGTTIN, unix.SIGTTOU, unix.SIGUSR1)
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE) // dropped: a closed stderr ends nothing
	heard := make(chan struct{}, 1)
	go k.hear(heard) // ends with the process
	if err := k.start(); err != nil {
		k.say("cannot start the master: %v", err)
		return 1
	}
	for {
		select {
		case s := <-signals:
			if s != unix.SIGCHLD {
				k.forward(s)
				continue
			}
			k.read()
			if code, ended := k.reap(); ended {
				k.above.dropAll()
				return code
			}
		case <-heard:
			k.read()
		case <-k.again.C:
			k.restart()
		case <-k.alone.C:
			if k.stopAlone() {
				k.above.dropAll()
				return 1
			}
		}
	}
}

func random() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

func printable(r rune) rune {
	if r <= ' ' || r > '~' || r == ':' {
		return '_'
	}
	return r
}

func (k *keeper) say(format string, args ...any) {
	fmt.Fprintf(k.cfg.Stderr, "handoff: keeper: "+format+"\n", args...)
}

// listen opens the socket for the master's notices.
func (k *keeper) listen() error {
	k.name = "@handoff/keeper/" + k.instance
	c, err := cmsg.Listen(k.name)
	if err != nil {
		return err
	}
	k.notify = c
	raw, err := c.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<20) })
	}
	return err
}

// hear waits for notices, and leaves them to the owner.
func (k *keeper) hear(heard chan<- struct{}) {
	raw, err := k.notify.SyscallConn()
	if err != nil {
		return
	}
	for {
		err := raw.Read(func(fd uintptr) bool {
			n, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
			return n > 0
		})
		if err != nil {
			return
		}
		heard <- struct{}{}
	}
}

// read takes every notice that has come.
func (k *keeper) read() {
	buf := make([]byte, 4096)
	for range readMost {
		m, err := k.notify.ReceiveNow(buf)
		if err != nil {
			return
		}
		// Somebody outside of this pid namespace has pid 0; another user is no
		// master of ours.
		pid := 0
		if m.Sender != nil && int(m.Sender.Uid) == os.Geteuid() {
			pid = int(m.Sender.Pid)
		}
		k.notice(pid, string(buf[:m.N]), m.FDs)
	}
}

// notice heeds one notice. The descriptors are its own.
func (k *keeper) notice(pid int, text string, fds []int) {
	said := map[string]string{}
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(strings.TrimRight(line, "\n"), "="); ok {
			said[key] = value
		}
	}
	k.sift()
	known := slices.ContainsFunc(k.others, func(c candidate) bool { return c.pid == pid })
	if said["X_CANDIDATE"] == "1" && pid > 0 && !known && child(pid, k.master) {
		if fd, err := unix.PidfdOpen(pid, 0); err == nil {
			k.others = append(k.others, candidate{pid, fd, time.Now().Add(candidateMost)})
		}
	}
	if pid <= 0 || pid != k.master && !slices.ContainsFunc(k.others, func(c candidate) bool { return c.pid == pid }) {
		closeAll(fds)
		return
	}
	if rest, ok := strings.CutPrefix(text, "X_UP=1\n"); ok { // none of it is for the keeper
		closeAll(fds)
		k.above.say(rest)
		return
	}

	if said["X_BEGIN"] == "1" {
		k.stale = map[string]bool{}
		for _, n := range k.store {
			k.stale[n.Name] = !strings.HasPrefix(n.Name, PassedPrefix)
		}
	}
	name := said["FDNAME"]
	if said["FDSTOREREMOVE"] == "1" {
		k.drop(name)
	}
	if said["FDSTORE"] == "1" && len(fds) == 1 && name != "" && len(name) < 256 && len(k.store) < storeMost {
		k.keep(cmsg.Named{Name: strings.Map(printable, name), FD: fds[0]})
		delete(k.stale, name)
		fds = nil
	}
	if said["X_END"] == "1" {
		for name, stale := range k.stale {
			if stale {
				k.drop(name)
			}
		}
		k.stale = nil
	}
	if said["X_GIVE"] == "1" && len(fds) == 1 {
		k.give(fds[0], name)
		fds = nil
	}
	closeAll(fds)
	if pid == k.master {
		k.stopping = k.stopping || said["STOPPING"] == "1"
		k.leaving = k.leaving || said["X_LEAVING"] == "1"
	}
	took := strings.Split(said["X_TOOK"], ",")
	k.sent = slices.DeleteFunc(k.sent, func(s os.Signal) bool { return slices.Contains(took, linux.SignalName(s.(unix.Signal))) })
	if !stopAmong(k.sent) && !stopAmong(k.pending) {
		k.stopAt = time.Time{}
	}
	if said["READY"] == "1" {
		k.becomes(pid)
	}
}

func isStop(s os.Signal) bool { return s == unix.SIGTERM || s == unix.SIGINT || s == unix.SIGQUIT }

func stopAmong(signals []os.Signal) bool { return slices.ContainsFunc(signals, isStop) }

// sift forgets candidates that are dead.
func (k *keeper) sift() {
	k.others = slices.DeleteFunc(k.others, func(c candidate) bool {
		n, _ := unix.Poll([]unix.PollFd{{Fd: int32(c.pidfd), Events: unix.POLLIN}}, 0)
		if n > 0 {
			unix.Close(c.pidfd)
		}
		return n > 0
	})
}

// give writes the store to a socket, which it takes over: a name and a newline
// for each, with the descriptor. only is the name of the one that is wanted; "" is
// all.
func (k *keeper) give(fd int, only string) {
	c, err := cmsg.Open(fd)
	if err != nil {
		return
	}
	defer c.Close()
	c.SetWriteDeadline(time.Now().Add(givePatience))
	for _, n := range k.store {
		if only != "" && n.Name != only {
			continue
		}
		if err := c.Write([]byte(n.Name+"\n"), n.FD); err != nil {
			k.say("cannot give the new master what is kept: %v", err)
			return
		}
	}
	c.Write([]byte("\n"))
}

// keep adds to the store, in the place of what has the name.
func (k *keeper) keep(n cmsg.Named) {
	k.above.store(n.Name, n.FD)
	for i := range k.store {
		if k.store[i].Name == n.Name {
			unix.Close(k.store[i].FD)
			k.store[i].FD = n.FD
			return
		}
	}
	k.store = append(k.store, n)
}

func (k *keeper) drop(name string) {
	k.above.drop(name)
	for i := range k.store {
		if k.store[i].Name == name {
			unix.Close(k.store[i].FD)
			k.store = append(k.store[:i], k.store[i+1:]...)
			return
		}
	}
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// becomes makes a process that says that it is ready the master.
func (k *keeper) becomes(pid int) {
	if pid != k.master {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			return // it is dead already
		}
		if k.pidfd >= 0 {
			unix.Close(k.pidfd)
		}
		k.master, k.pidfd, k.began, k.stopping, k.leaving = pid, fd, time.Now(), false, false
		k.again.Stop()
		k.others = slices.DeleteFunc(k.others, func(c candidate) bool {
			if c.pid == pid {
				unix.Close(c.pidfd)
			}
			return c.pid == pid
		})
		// The one before has left them to this one.
		k.pending = append(k.sent, k.pending...)
		k.sent = nil
	}
	k.ready = true
	if k.cfg.Calm != nil {
		defer k.cfg.Calm()
	}
	k.alone.Stop()
	k.above.store(MasterName, k.pidfd)
	// What runs now is what is started again, whatever is on disk then.
	if f, err := linux.OpenImage(pid); err == nil {
		if k.exe != nil {
			k.exe.Close()
		}
		k.exe = f
	}
	pending := k.pending
	k.pending = nil
	for _, s := range pending {
		k.forward(s)
	}
}

// forward passes a signal on, or keeps it until a master can take it.
func (k *keeper) forward(s os.Signal) {
	stop := isStop(s)
	if stop && k.stopAt.IsZero() {
		k.stopAt = time.Now()
	}
	if stop && k.exe == nil && k.pidfd >= 0 { // nothing serves yet
		k.stopping = true
		unix.PidfdSendSignal(k.pidfd, s.(unix.Signal), nil, 0) // it dies, or is about to be ready
	}
	if !k.ready || unix.PidfdSendSignal(k.pidfd, SignalBase+s.(unix.Signal), nil, 0) != nil {
		if again := slices.Contains(k.pending, s); !again {
			k.pending = append(k.pending, s)
		} else if stop {
			k.alone.Reset(0)
			return
		}
		if stop && k.exe != nil {
			k.alone.Reset(helpless)
		}
		return
	}
	if !slices.Contains(k.sent, s) { // one that is pending twice comes once
		k.sent = append(k.sent, s)
	}
}

// stopAlone stops the workers where no master can be had that would: children,
// by now, of this process. First they get SIGTERM, then SIGKILL. It tells whether
// that was it.
func (k *keeper) stopAlone() (done bool) {
	k.say("no master starts that could stop the workers: they are signalled")
	s := unix.SIGTERM
	if k.killing {
		s = unix.SIGKILL
	}
	for _, pid := range linux.Children(os.Getpid()) { // not reaped before it is read here
		unix.Kill(-pid, s)
		unix.Kill(pid, s)
	}
	done, k.killing = k.killing, true
	k.alone.Reset(helpless)
	return done
}

// start starts a master.
func (k *keeper) start() error {
	path, extra := "/proc/self/exe", ""
	files := []uintptr{0, 1, 2}
	if k.exe != nil {
		extra = "3"
		path = "/proc/self/fd/" + extra
		files = append(files, k.exe.Fd())
	}
	env := environ("NOTIFY_SOCKET="+k.name, EnvKeeper+"="+strconv.Itoa(os.Getpid()), EnvInstance+"="+k.instance,
		EnvRestarts+"="+strconv.Itoa(k.restarts), EnvReason+"="+k.reason, EnvBinary+"="+extra, EnvUpstream+"="+k.above.socket,
		"LISTEN_PID=", "LISTEN_FDS=", "LISTEN_FDNAMES=")
	args := append([]string{k.cfg.Path}, k.cfg.Args...)
	pidfd := -1
	pid, err := syscall.ForkExec(path, args, &syscall.ProcAttr{
		Env: env, Files: files, Sys: &syscall.SysProcAttr{PidFD: &pidfd, Setpgid: true},
	})
	if err != nil {
		return err
	}
	k.master, k.pidfd, k.ready, k.stopping, k.began = pid, pidfd, false, false, time.Now()
	return nil
}

// environ is this process's environment with these in it.
func environ(set ...string) []string {
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return slices.ContainsFunc(set, func(s string) bool { return strings.HasPrefix(s, name+"=") })
	})
	return append(env, slices.DeleteFunc(set, func(s string) bool { return strings.HasSuffix(s, "=") })...)
}

// reap takes every dead child. ended tells that the master's end was meant.
func (k *keeper) reap() (code int, ended bool) {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if pid <= 0 {
			return code, ended
		}
		if pid != k.master {
			continue // a stranger, a worker whose master has gone, the master of before
		}
		unix.Close(k.pidfd)
		k.master, k.pidfd, k.ready = 0, -1, false
		// One that has never been ready, and was not killed, has said why: no
		// other would fare better.
		if k.stopping || k.exe == nil && !status.Signaled() {
			code, ended = exitCode(status), true
			continue
		}
		k.died(status)
	}
}

// died starts the next master, soon, unless a candidate is about to be it.
func (k *keeper) died(status unix.WaitStatus) {
	if k.leaving {
		k.wait = 0
	} else {
		k.restarts++
		k.reason = linux.Ended(status)
	}
	k.leaving = false
	// What it was told and may not have done, the next one is told.
	k.pending = append(k.sent, k.pending...)
	k.sent = nil
	if stopAmong(k.pending) { // also where each master says that it is ready, and dies of it
		k.alone.Reset(max(time.Until(k.stopAt.Add(helpless)), 0))
	}
	if time.Since(k.began) >= calm {
		k.wait = 0
	}
	k.again.Reset(k.wait)
	k.wait = min(max(2*k.wait, backoffFirst), backoffMost)
}

func (k *keeper) restart() {
	if k.master != 0 {
		return
	}
	k.sift()
	for _, c := range k.others { // it says READY=1 soon, or dies
		if time.Now().After(c.until) {
			unix.PidfdSendSignal(c.pidfd, unix.SIGKILL, nil, 0)
		}
	}
	if len(k.others) > 0 {
		k.again.Reset(backoffFirst)
		return
	}
	if err := k.start(); err != nil {
		k.say("cannot start the master again: %v; the workers serve on", err)
		k.again.Reset(backoffMost)
	}
}

func exitCode(s unix.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}

// child tells whether a process is a child of another.
func child(pid, parent int) bool {
	s, err := linux.ReadStat(pid)
	return err == nil && s.Parent == parent
}
