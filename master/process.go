package master

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"handoff/handoff"
	"handoff/internal/seat"
)

// process is a worker's process, as its parent sees it. It is identified by a
// pidfd; the pid is for people.
type process struct {
	pid     int
	pidfd   *os.File
	adopted bool // its parent is the keeper, which reaps it
}

// tailMost is how much of a worker's stderr is remembered, in bytes.
const tailMost = 4 << 10

// started is a process with the ends that its master keeps. The loop owns
// them; pair and stderr are read by a goroutine each.
type started struct {
	process
	pair   *handoff.Conn // Node's channel, or what the trampoline sends its filter over
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
func start(l *launch, extra []string, contract Contract, conditions seat.Conditions, captured bool, listen []int) (s *started, err error) {
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
	ours, theirs, err := handoff.Pair()
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
		path, args = "/proc/self/exe", seat.Args(channelFD(listen), len(listen), conditions, l.path, l.args)
	case len(listen) > 0 || !conditions.None(): // for LISTEN_PID; for them
		path, args = "/proc/self/exe", seat.Args(-1, len(listen), conditions, l.path, l.args)
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
	if err == nil && pidfd < 0 {
		err = errors.New("the kernel gives no pidfd (Linux 5.4 or later is needed)")
		syscall.Kill(s.pid, syscall.SIGKILL)
		syscall.Wait4(s.pid, nil, 0, nil)
	}
	if err == nil {
		err = unix.SetNonblock(pidfd, true) // into Go's poller
	}
	if err != nil {
		return nil, fmt.Errorf("cannot run %s: %w", l.path, err)
	}
	s.pidfd = newPidfd(pidfd)
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

func newPidfd(fd int) *os.File { return os.NewFile(uintptr(fd), "pidfd") }

// awaitEnd blocks until the process is dead. It is not reaped: until then its
// pid, and its group's, cannot be used again.
func (p *process) awaitEnd() error {
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0 || err != nil && err != unix.EINTR
	})
}

// reap returns how a dead process ended.
func (p *process) reap() (unix.WaitStatus, error) {
	if p.adopted {
		defer p.pidfd.Close()
		return p.exitInfo()
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

// awaitReaped waits until the parent of an adopted process has reaped it
// (POLLHUP, Linux 6.9), for a moment: then the kernel tells how it ended.
func (p *process) awaitReaped() {
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return
	}
	raw.Control(func(fd uintptr) {
		unix.Poll([]unix.PollFd{{Fd: int32(fd)}}, int(reapPatience.Milliseconds()))
	})
}

const reapPatience = 200 * time.Millisecond

// pidfdInfo is struct pidfd_info of linux/pidfd.h, in its first size.
type pidfdInfo struct {
	mask, cgroup uint64
	ids          [11]uint32
	exit         int32
}

const (
	pidfdGetInfo  = 0xc040ff0b // _IOWR(0xFF, 11, struct pidfd_info)
	pidfdInfoExit = 1 << 3     // Linux 6.15
)

var errUnknownEnd = errors.New("ended, the kernel does not tell how")

// exitInfo asks the kernel how a process ended that somebody else has reaped.
func (p *process) exitInfo() (status unix.WaitStatus, err error) {
	info := pidfdInfo{mask: pidfdInfoExit}
	err = p.control(func(fd int) error {
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), pidfdGetInfo, uintptr(unsafe.Pointer(&info))); e != 0 {
			return e
		}
		return nil
	})
	if err != nil || info.mask&pidfdInfoExit == 0 {
		return 0, errUnknownEnd
	}
	return unix.WaitStatus(info.exit), nil
}

// signal sends a signal to the process, through its pidfd.
func (p *process) signal(sig unix.Signal) error {
	err := p.control(func(fd int) error { return unix.PidfdSendSignal(fd, sig, nil, 0) })
	if err == unix.ESRCH {
		return nil // it is dead, and that will be noticed
	}
	return err
}

// killGroup kills the process and what it has spawned in its group.
func (p *process) killGroup() error {
	const group = 1 << 2 // PIDFD_SIGNAL_PROCESS_GROUP, Linux 6.9
	err := p.control(func(fd int) error { return unix.PidfdSendSignal(fd, unix.SIGKILL, nil, group) })
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

func (p *process) control(f func(fd int) error) error {
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := raw.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil {
		return err
	}
	return ferr
}

// how puts a wait status in words.
func how(status unix.WaitStatus) string {
	switch {
	case status.Signaled():
		s := "killed by " + unix.SignalName(status.Signal())
		if status.CoreDump() {
			s += " (core dumped)"
		}
		return s
	default:
		return fmt.Sprintf("exited with code %d", status.ExitStatus())
	}
}
