package master

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/bindintercept"
	"handoff/internal/cmsg"
	"handoff/internal/linux"
)

// process is a worker's process, as its parent sees it. It is identified by a
// pidfd; the pid is for people.
type process struct {
	pid     int
	pidfd   *linux.Pidfd
	adopted bool // its parent is the keeper, which reaps it
}

// tailMost is how much of a worker's stderr is remembered, in bytes.
const tailMost = 4 << 10

// started is a process with the ends that its master keeps. The loop owns
// them; pair and stderr are read by a goroutine each.
type started struct {
	process
	pair   *cmsg.Conn // Node's channel, or what the trampoline sends its filter over
	stderr *os.File
	stdout *os.File // nil: it is not captured
}

// start executes l with extra environment. The child is the leader of a process
// group of its own, so that Ctrl-C at a terminal does not reach it; stdin is
// /dev/null; stdout is ours, or a pipe where it is captured; stderr is a pipe, so
// that its last lines can be remembered. (A master that dies leaves the pipes' read
// ends to its keeper.)
// listen are the descriptors that it is given from 3 on; they stay the
// caller's. Then comes its end of the pair, see channelFD.
func start(l *launch, extra []string, contract Contract, conditions bindintercept.Conditions, captured bool, listen []int) (s *started, err error) {
	var toClose []*os.File
	defer func() {
		for _, f := range toClose {
			f.Close()
		}
	}()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	toClose = append(toClose, null)
	s = &started{}
	ends := s // s is nil where there is an error
	defer func() {
		if err != nil {
			ends.closeEnds()
		}
	}()
	var errWrite *os.File
	if s.stderr, errWrite, err = openOutput(); err != nil {
		return nil, err
	}
	toClose = append(toClose, errWrite)
	stdout := uintptr(1)
	if captured {
		var outWrite *os.File
		if s.stdout, outWrite, err = openOutput(); err != nil {
			return nil, err
		}
		toClose = append(toClose, outWrite)
		stdout = outWrite.Fd()
	}
	ours, theirs, err := cmsg.Pair()
	if err != nil {
		return nil, err
	}
	s.pair = ours
	toClose = append(toClose, theirs)
	pidfd := -1
	path, args := l.path, l.args
	files := []uintptr{null.Fd(), stdout, errWrite.Fd()}
	for _, fd := range listen {
		files = append(files, uintptr(fd))
	}
	// The child's /proc/self/exe is this very program, until it executes another:
	// also when the file has been replaced on disk.
	switch {
	case contract == BindContract:
		path, args = "/proc/self/exe", bindintercept.Args(channelFD(listen), len(listen), conditions, l.path, l.args)
	case len(listen) > 0 || !conditions.None(): // for LISTEN_PID; for them
		path, args = "/proc/self/exe", bindintercept.Args(-1, len(listen), conditions, l.path, l.args)
	}
	if contract != ActivationContract {
		files = append(files, theirs.Fd())
	}
	s.pid, err = syscall.ForkExec(path, args, &syscall.ProcAttr{
		Dir:   l.dir,
		Env:   append(append([]string(nil), l.env...), extra...),
		Files: files,
		Sys:   &syscall.SysProcAttr{Setpgid: true, PidFD: &pidfd},
	})
	if err != nil {
		return nil, fmt.Errorf("cannot run %s: %w", l.path, err)
	}
	if pidfd < 0 {
		err = errors.New("the kernel gives no pidfd (Linux 5.4 or later is needed)")
	} else {
		s.pidfd, err = linux.NewPidfd(s.pid, pidfd)
	}
	if err != nil {
		syscall.Kill(s.pid, syscall.SIGKILL)
		syscall.Wait4(s.pid, nil, 0, nil)
		return nil, fmt.Errorf("cannot run %s: %w", l.path, err)
	}
	return s, nil
}

// closeEnds closes what there is of a start that has failed.
func (s *started) closeEnds() {
	if s.pair != nil {
		s.pair.Close()
	}
	for _, f := range []*os.File{s.stderr, s.stdout} {
		if f != nil {
			f.Close()
		}
	}
}

// channelFD is the descriptor of the channel in a worker that is given these:
// the first after them.
func channelFD(listen []int) int { return 3 + len(listen) }

// awaitEnd blocks until the process is dead. It is not reaped: until then its
// pid, and its group's, cannot be used again.
func (p *process) awaitEnd() error { return p.pidfd.AwaitDeath(time.Time{}) }

// reap returns how a dead process ended.
func (p *process) reap() (unix.WaitStatus, error) {
	if p.adopted {
		defer p.pidfd.Close()
		return p.pidfd.Exit()
	}
	var status unix.WaitStatus
	for {
		pid, err := unix.Wait4(p.pid, &status, unix.WNOHANG, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, fmt.Errorf("cannot reap %d: %w", p.pid, err)
		case pid == 0:
			return 0, fmt.Errorf("cannot reap %d: it lives", p.pid)
		default:
			p.pidfd.Close()
			return status, nil
		}
	}
}

// reapPatience is how long the parent of an adopted process may take to reap it:
// then the kernel tells how it ended.
const reapPatience = 200 * time.Millisecond

// awaitReaped waits until the parent of an adopted process has reaped it.
func (p *process) awaitReaped() { p.pidfd.AwaitReaped(reapPatience) }

// signal sends a signal to the process, through its pidfd.
func (p *process) signal(sig unix.Signal) error {
	if err := p.pidfd.Signal(sig); err != unix.ESRCH {
		return err
	}
	return nil // it is dead, and that will be noticed
}

// killGroup kills the process and what it has spawned in its group.
func (p *process) killGroup() error {
	err := p.pidfd.SignalGroup(unix.SIGKILL)
	if (err == unix.EINVAL || err == unix.ENOSYS) && !p.adopted {
		// The pid is not reaped yet, so the number still means this group.
		err = unix.Kill(-p.pid, unix.SIGKILL)
	}
	// It may have left its group.
	if serr := p.signal(unix.SIGKILL); serr != nil || err == unix.ESRCH {
		return serr
	}
	return err
}
