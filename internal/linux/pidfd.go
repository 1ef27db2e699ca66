package linux

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Pidfd identifies a process by a descriptor, for as long as that is open. The pid is for
// people, and may be reused after the process has been reaped.
//
//	alive ──► dead (AwaitDeath returns) ──► reaped (AwaitReaped returns, Exit knows how)
//
// Any method may be called from any goroutine. Close ends the waits.
type Pidfd struct {
	pid  int
	file *os.File
}

// OpenPidfd opens a process of this pid namespace. The caller closes it. The error
// of a process that does not exist is ESRCH.
func OpenPidfd(pid int) (*Pidfd, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, err
	}
	return NewPidfd(pid, fd)
}

// CheckPidfd tells why processes cannot be known by descriptor, which handoff cannot do
// without; nil: they can.
func CheckPidfd() error {
	p, err := OpenPidfd(os.Getpid())
	if err == nil {
		err = p.Signal(0)
		p.Close()
	}
	if err != nil {
		return fmt.Errorf("pidfd_open or pidfd_send_signal is refused (%w): handoff cannot watch its workers without them; it needs Linux 5.9 or later, and a container's seccomp profile must allow them", err)
	}
	return nil
}

// OpenThread opens the process that a thread belongs to.
func OpenThread(tid int) (*Pidfd, error) {
	p, err := OpenPidfd(tid)
	if err != unix.EINVAL && err != unix.ENOENT {
		return p, err
	}
	pid, err := ThreadGroup(tid) // not the leader
	if err != nil {
		return nil, err
	}
	return OpenPidfd(pid)
}

// NewPidfd takes ownership of a pidfd from clone(2), or from another process. On error it
// is closed.
func NewPidfd(pid, fd int) (*Pidfd, error) {
	if err := unix.SetNonblock(fd, true); err != nil { // into Go's poller
		unix.Close(fd)
		return nil, err
	}
	return &Pidfd{pid: pid, file: os.NewFile(uintptr(fd), "pidfd")}, nil
}

// PIDOf is the number of the process that a pidfd is of; 0 if it has been reaped.
func PIDOf(fd int) int {
	pid, err := field("/proc/self/fdinfo/"+strconv.Itoa(fd), "Pid:", 10)
	if err != nil || pid < 0 {
		return 0
	}
	return pid
}

// PID is the number of the process when it was opened.
func (p *Pidfd) PID() int { return p.pid }

// Close closes the descriptor. The process continues.
func (p *Pidfd) Close() error { return p.file.Close() }

// SyscallConn is the descriptor, for passing it on.
func (p *Pidfd) SyscallConn() (syscall.RawConn, error) { return p.file.SyscallConn() }

// FD is the descriptor, which p still owns; -1 when it is closed.
func (p *Pidfd) FD() int {
	fd := -1
	p.control(func(n int) error { fd = n; return nil })
	return fd
}

// Duplicate returns another descriptor of the same process, which the caller closes, or
// passes to NewPidfd.
func (p *Pidfd) Duplicate() (fd int, err error) {
	err = p.control(func(n int) error {
		fd, err = unix.FcntlInt(uintptr(n), unix.F_DUPFD_CLOEXEC, 3)
		return err
	})
	if err != nil {
		return -1, err
	}
	return fd, nil
}

// Signal sends a signal. The error for a reaped process is ESRCH; for a dead one there is
// none. Signal 0 only checks whether a signal could be sent.
func (p *Pidfd) Signal(s unix.Signal) error {
	return p.control(func(fd int) error { return unix.PidfdSendSignal(fd, s, nil, 0) })
}

// TrySignal is Signal, except that a process that has been reaped is no error: that it
// has ended is noticed by other means.
func (p *Pidfd) TrySignal(s unix.Signal) error {
	if err := p.Signal(s); err != unix.ESRCH {
		return err
	}
	return nil
}

// SignalGroup sends a signal to the process group that the process leads. Before
// Linux 6.9 the error is EINVAL.
func (p *Pidfd) SignalGroup(s unix.Signal) error {
	const group = 1 << 2 // PIDFD_SIGNAL_PROCESS_GROUP
	return p.control(func(fd int) error { return unix.PidfdSendSignal(fd, s, nil, group) })
}

// Getfd duplicates a descriptor of the process (pidfd_getfd(2)). It requires permission
// to trace it. The caller closes the duplicate, which is close-on-exec.
func (p *Pidfd) Getfd(n int) (fd int, err error) {
	err = p.control(func(pidfd int) error {
		fd, err = unix.PidfdGetfd(pidfd, n, 0)
		return err
	})
	if err != nil {
		return -1, err
	}
	return fd, nil
}

// Dead reports whether the process has ended, reaped or not.
func (p *Pidfd) Dead() bool {
	dead := false
	err := p.control(func(fd int) error { dead = readable(fd); return nil })
	return dead || err != nil
}

// AwaitDeath blocks until the process is dead. Until it is reaped, its pid and its
// group's cannot be reused. The error is os.ErrDeadlineExceeded after until (zero: no
// limit), os.ErrClosed after Close. One goroutine may wait at a time.
func (p *Pidfd) AwaitDeath(until time.Time) error {
	err := p.file.SetReadDeadline(until)
	if err == nil {
		var raw syscall.RawConn
		if raw, err = p.file.SyscallConn(); err == nil {
			err = raw.Read(func(fd uintptr) bool { return readable(int(fd)) })
		}
	}
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return os.ErrClosed // whose poller's error has a type of its own
	}
	return err
}

func readable(fd int) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return n > 0 || err != nil && err != unix.EINTR
}

// AwaitReaped waits until the parent of a dead process has reaped it, which the kernel
// reports since Linux 6.9 (POLLHUP), at most so long. It blocks a thread.
func (p *Pidfd) AwaitReaped(most time.Duration) {
	p.control(func(fd int) error {
		for until := time.Now().Add(most); ; {
			_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd)}}, int(max(time.Until(until), 0).Milliseconds()))
			if err != unix.EINTR {
				return err
			}
		}
	})
}

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

// ErrUnknownExit means that the kernel does not report how a process ended: it is older
// than 6.15, or the process was not reaped.
var ErrUnknownExit = errors.New("ended; the kernel does not report how")

// Exit returns the exit status of a process that another process has reaped
// (PIDFD_GET_INFO).
func (p *Pidfd) Exit() (unix.WaitStatus, error) {
	info := pidfdInfo{mask: pidfdInfoExit}
	err := p.control(func(fd int) error {
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), pidfdGetInfo, uintptr(unsafe.Pointer(&info))); e != 0 {
			return e
		}
		return nil
	})
	if err != nil || info.mask&pidfdInfoExit == 0 {
		return 0, ErrUnknownExit
	}
	return unix.WaitStatus(info.exit), nil
}

func (p *Pidfd) control(f func(fd int) error) error {
	raw, err := p.file.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := raw.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil {
		return err
	}
	return ferr
}

// Ended is the text of a wait status: "exited with code 1", "killed by SIGSEGV (core
// dumped)".
func Ended(status unix.WaitStatus) string {
	if !status.Signaled() {
		return fmt.Sprintf("exited with code %d", status.ExitStatus())
	}
	s := "killed by " + SignalName(status.Signal())
	if status.CoreDump() {
		s += " (core dumped)"
	}
	return s
}

// The first and the last real-time signal that programs have: 32 and 33 are the C
// library's own (signal(7)).
const (
	sigRTMin = 34
	sigRTMax = 64
)

// SignalName is the name of a signal: "SIGTERM", and as in kill -l, "SIGRTMIN+1" and
// "SIGRTMAX-1", counted from the nearer end.
func SignalName(s unix.Signal) string {
	if name := unix.SignalName(s); name != "" {
		return name
	}
	switch from, to := int(s)-sigRTMin, sigRTMax-int(s); {
	case from < 0 || to < 0:
		return fmt.Sprintf("signal %d", int(s))
	case from == 0:
		return "SIGRTMIN"
	case to == 0:
		return "SIGRTMAX"
	case from <= to:
		return fmt.Sprintf("SIGRTMIN+%d", from)
	default:
		return fmt.Sprintf("SIGRTMAX-%d", to)
	}
}
