package keeper

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/keeper/fdstore"
	"handoff/internal/linux"
)

// candidate is a process that may become the master.
type candidate struct {
	pid   int
	pidfd int
	until time.Time
}

// consider accepts a process as a candidate if it is a child of the master, the master
// has announced an upgrade (older masters do not announce it), and it runs the binary
// that an upgrade starts. Workers are children of the master, too, and may have its user.
func (k *keeper) consider(pid int) {
	if pid <= 0 || k.isCandidate(pid) || parent(pid) != k.master.pid || k.master.upgrade == fdstore.NotAwaited || !runs(pid, k.cfg.Path) {
		return
	}
	if fd, err := unix.PidfdOpen(pid, 0); err == nil {
		k.binaries.candidate = ""
		k.candidates = append(k.candidates, candidate{pid, fd, time.Now().Add(k.waits.Candidate)})
	}
}

// runs reports whether a process runs the binary at a path. It is true if the process
// cannot be inspected: a program without privileges can be.
func runs(pid int, path string) bool {
	is, err := os.Stat("/proc/" + strconv.Itoa(pid) + "/exe")
	if err != nil {
		return errors.Is(err, os.ErrPermission)
	}
	want, err := os.Stat(path)
	return err == nil && os.SameFile(is, want)
}

func (k *keeper) isCandidate(pid int) bool {
	return slices.ContainsFunc(k.candidates, func(c candidate) bool { return c.pid == pid })
}

// forget removes a process from the candidates.
func (k *keeper) forget(pid int) {
	k.candidates = slices.DeleteFunc(k.candidates, func(c candidate) bool {
		if c.pid == pid {
			unix.Close(c.pidfd)
		}
		return c.pid == pid
	})
}

// forgetDead removes dead candidates: their pids may be reused.
func (k *keeper) forgetDead() {
	k.candidates = slices.DeleteFunc(k.candidates, func(c candidate) bool {
		n, _ := unix.Poll([]unix.PollFd{{Fd: int32(c.pidfd), Events: unix.POLLIN}}, 0)
		if n > 0 {
			var status unix.WaitStatus
			if pid, _ := unix.Wait4(c.pid, &status, unix.WNOHANG, nil); pid == c.pid { // of a master that has left: nobody else asks
				k.binaries.ended(status)
			}
			unix.Close(c.pidfd)
		}
		return n > 0
	})
}

// awaitCandidates reports whether a candidate is about to send READY=1, or to die; one
// that takes too long is killed.
func (k *keeper) awaitCandidates(now time.Time) bool {
	k.forgetDead()
	for _, c := range k.candidates {
		if now.After(c.until) {
			k.killCandidate(c, fmt.Sprintf("it was not ready within %v", k.waits.Candidate))
		}
	}
	return len(k.candidates) > 0
}

// killCandidate kills a candidate that keeps the service without a master.
func (k *keeper) killCandidate(c candidate, why string) {
	k.binaries.candidate = cmp.Or(k.binaries.candidate, why)
	unix.PidfdSendSignal(c.pidfd, unix.SIGKILL, nil, 0)
}

func parent(pid int) int {
	s, err := linux.ReadStat(pid)
	if err != nil {
		return -1
	}
	return s.Parent
}
