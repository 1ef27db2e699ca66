package keeper

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/keeper/fdstore"
	"handoff/internal/linux"
)

// master is the process that supervises the workers.
type master struct {
	pid      int // 0: none
	pidfd    int // -1: none
	began    time.Time
	ready    bool // it handles signals
	stopping bool // its exit is intended
	leaving  bool // it leaves for a candidate
	upgrade  fdstore.Upgrade
}

// start starts a master: the binary of the last master that was ready, even if another
// one is on disk.
func (k *keeper) start() error {
	if err := k.listen(); err != nil {
		return err
	}
	path, extra := "/proc/self/exe", ""
	files := []uintptr{0, 1, 2}
	if k.binaries.current != nil {
		extra = "3"
		path = "/proc/self/fd/" + extra
		files = append(files, k.binaries.current.Fd())
	}
	env := environ("NOTIFY_SOCKET="+k.socket.address, EnvKeeper+"="+strconv.Itoa(os.Getpid()), EnvInstance+"="+k.instance,
		EnvRestarts+"="+strconv.Itoa(k.restarts), EnvReason+"="+k.reason, EnvUpgradeFailed+"="+k.binaries.upgradeFailed(), EnvBinary+"="+extra, EnvUpstream+"="+k.manager.socket,
		"LISTEN_PID=", "LISTEN_FDS=", "LISTEN_FDNAMES=")
	args := append([]string{k.cfg.Path}, k.cfg.Args...)
	pidfd := -1
	pid, err := syscall.ForkExec(path, args, &syscall.ProcAttr{
		Env: env, Files: files, Sys: &syscall.SysProcAttr{PidFD: &pidfd, Setpgid: true},
	})
	if err != nil {
		return err
	}
	k.master = master{pid: pid, pidfd: pidfd, began: time.Now()}
	return nil
}

// environ is this process's environment with these variables set; one without a value is
// removed.
func environ(set ...string) []string {
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return slices.ContainsFunc(set, func(s string) bool { return strings.HasPrefix(s, name+"=") })
	})
	return append(env, slices.DeleteFunc(set, func(s string) bool { return strings.HasSuffix(s, "=") })...)
}

// becomes makes a ready process the master.
func (k *keeper) becomes(pid int, upgrade fdstore.Upgrade) {
	if pid != k.master.pid {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			return // already dead
		}
		if k.master.pidfd >= 0 {
			unix.Close(k.master.pidfd)
		}
		k.master, k.startAt = master{pid: pid, pidfd: fd, began: time.Now()}, time.Time{}
		k.forget(pid)
		k.signals.unsend() // left by the previous master
	}
	k.master.ready, k.master.upgrade = true, upgrade
	if k.cfg.Calm != nil {
		defer k.cfg.Calm()
	}
	k.manager.Store(fdstore.Master, k.master.pidfd)
	if f, err := linux.OpenImage(pid); err == nil {
		k.binaries.ready(f)
	}
	k.stopAt = time.Time{} // it has its time
	for _, s := range k.signals.take() {
		k.forward(s, time.Now())
	}
}

// reap reaps every dead child. ended reports that the master's exit was intended.
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
		if pid == k.master.pid {
			k.read() // what it sent last: another child's death may have begun this
		}
		if pid != k.master.pid {
			if k.isCandidate(pid) {
				k.binaries.ended(status)
			}
			continue // an orphan, a worker without a master, the previous master
		}
		// One that was never ready, and was not killed, has printed the reason: another
		// would fail, too.
		if k.master.stopping || k.binaries.current == nil && !status.Signaled() {
			code, ended = exitCode(status), true
		} else {
			k.died(status, time.Now())
		}
		unix.Close(k.master.pidfd)
		k.master = master{pidfd: -1}
	}
}

// died schedules the next master, unless a candidate takes over.
func (k *keeper) died(status unix.WaitStatus, now time.Time) {
	if k.master.leaving {
		k.wait = 0
		k.binaries.left = true
	} else {
		k.restarts++
		k.reason = linux.Ended(status)
		if k.binaries.died(status, now.Sub(k.master.began), k.waits.Trial) {
			k.say("%s: using the previous binary again", k.binaries.failed)
			k.wait = 0
		}
	}
	k.signals.unsend()    // the next master gets the signals that this one may not have handled
	if k.signals.stop() { // also if each master dies right after it is ready
		k.stopAt = k.stopAsked.Add(k.waits.Stop)
	}
	if now.Sub(k.master.began) >= k.waits.Stable {
		k.wait = 0
	}
	k.startAt = now.Add(k.wait)
	k.wait = min(max(2*k.wait, k.waits.BackoffFirst), k.waits.BackoffMax)
}

// restart starts the next master, unless a candidate takes over.
func (k *keeper) restart(now time.Time) {
	k.startAt = time.Time{}
	if k.master.pid != 0 {
		return
	}
	if k.awaitCandidates(now) {
		k.startAt = now.Add(k.waits.BackoffFirst)
		return
	}
	if err := k.start(); err != nil {
		k.sayOnce(fmt.Sprintf("cannot restart the master: %v; the workers keep serving, and it is tried again", err), now)
		k.startAt = now.Add(k.waits.BackoffMax)
	}
}

func exitCode(s unix.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}

// end ends the previous keeper's master, whose changes would not be stored. It owns the
// descriptor.
func end(pidfd int, timeout time.Duration) {
	master, err := linux.NewPidfd(0, pidfd)
	if err != nil {
		return
	}
	defer master.Close()
	master.Signal(unix.SIGKILL)
	master.AwaitDeath(time.Now().Add(timeout))
}
