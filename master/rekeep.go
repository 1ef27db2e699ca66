package master

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"handoff/handoff"
	"handoff/master/fleet"
)

// keeperDied goes on without the process that everybody knows. Under a service
// manager that keeps descriptors this master ends, so that nothing changes that
// is not kept, and is started again with them. Else it starts a new keeper, gives
// it all that the old one had, and is followed by a master of that one's: so there
// is one way to adopt, that of the master that was killed.
func (m *Master) keeperDied() {
	m.log.Error("The keeper has died: workers serve on", "event", "keeper.died", "keeper", m.cfg.PID, "pid", os.Getpid())
	m.lastError = "the keeper has died"
	m.keep.end()
	m.keep = keep{log: m.log, mute: m.keep.mute}
	m.addrs.keep = m.keep
	if m.upgrading { // it fails, since its candidate has no keeper either; then
		m.orphan = true
		return
	}
	m.rekeep()
}

func (m *Master) rekeep() {
	m.orphan = false
	var err error
	switch {
	case m.fleet.Stopping():
		return // and ends as it was told to
	case m.cfg.KeptAbove:
		m.log.Warn("The service manager has what is needed: it starts handoff again", "event", "keeper.awaited")
		m.drainEvents()
		m.replaced = true
		return
	case m.cfg.Tell != nil: // the program above takes it for the end
		m.log.Error("The keeper has died, and with it the way to the program that has started this: stopping", "event", "cluster.shutdown", "workers", len(m.workers))
		m.step(fleet.Stop{})
		return
	case m.cfg.Rekeep == nil:
		err = errors.New("there is no way to")
	default:
		m.drainEvents()
		var named []handoff.Named
		if named, err = m.kept(); err == nil {
			err = m.cfg.Rekeep(named, m.cfg.Program) // ends this process, if it can
		}
		for _, n := range named {
			unix.Close(n.FD)
		}
	}
	m.log.Error("Cannot start a new keeper: "+err.Error()+"; this master serves on, and takes signals by its own pid. Nobody holds what it has if it dies: restart handoff when it suits you",
		"event", "keeper.missing", "pid", os.Getpid(), "reason", err.Error())
}

// kept returns duplicates of all that the keeper has: the caller closes them.
func (m *Master) kept() (named []handoff.Named, err error) {
	add := func(name string, fd int) {
		dup, derr := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		if derr != nil {
			err = errors.Join(err, derr)
			return
		}
		named = append(named, handoff.Named{Name: name, FD: dup})
	}
	file := func(name string, f syscall.Conn) {
		raw, ferr := f.SyscallConn()
		if ferr == nil {
			ferr = raw.Control(func(fd uintptr) { add(name, int(fd)) })
		}
		if !errors.Is(ferr, os.ErrClosed) { // a worker may have closed its stderr
			err = errors.Join(err, ferr)
		}
	}
	state, err := m.stateFile()
	if err != nil {
		return nil, err
	}
	defer state.Close()
	file(stateName, state)
	if m.cfg.Program != nil {
		program, err := memfd(m.cfg.Program)
		if err != nil {
			return named, err
		}
		defer program.Close()
		file(programName, program)
	}
	if m.admin != nil {
		file(adminName, m.admin)
	}
	for _, w := range m.workers {
		if w.dead {
			continue // the next one starts another
		}
		file(workerName(w.id, keptPID), w.pidfd)
		file(workerName(w.id, keptStderr), w.stderr)
		if w.stdout != nil {
			file(workerName(w.id, keptStdout), w.stdout)
		}
		if w.pair != nil {
			add(workerName(w.id, keptPair), w.pair.FD())
		}
		if w.notify != nil {
			file(workerName(w.id, keptNotify), w.notify)
		}
		if is(w.seat, "anon_inode:seccomp") && is(w.board, "/memfd:handoff-calls") {
			add(workerName(w.id, keptSeat), w.seat)
			add(workerName(w.id, keptBoard), w.board)
		}
		if w.binder != nil {
			file(workerName(w.id, keptBinder), w.binder.pidfd)
		}
	}
	for _, a := range m.addrs.list {
		if a.shared != nil {
			add(sharedName(a.key), a.shared.fd)
		}
		if a.group != nil {
			for _, s := range a.group.Sockets() {
				add(socketName(s.Inode()), s.FD())
			}
		}
	}
	return named, err
}

// is tells whether a descriptor is of a kind: the number of one whose worker has
// just gone may be another's.
func is(fd int, kind string) bool {
	if fd < 0 {
		return false
	}
	to, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	return err == nil && strings.HasPrefix(to, kind)
}
