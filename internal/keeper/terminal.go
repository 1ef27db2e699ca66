package keeper

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is the controlling terminal that the service was started at. SIGHUP is an
// order to reload while it lives, and to stop, with drain, when it closes: from the
// kernel, which tells the session's leader and who is in the foreground, and from the
// shell, which tells its jobs. They often do both.
type terminal struct {
	file    *os.File      // nil: there is none
	closes  chan struct{} // closed by watch, when the terminal has closed; nil: that is known
	closed  time.Time     // zero: it lives
	asked   time.Time     // when the last SIGHUP came that may have been for its end; zero: none did
	stopped time.Time     // when the last stop was passed on; zero: none was
}

const (
	// hangupLead is how long before its terminal closes a program may be told so:
	// screen(1) sends the signal first.
	hangupLead = time.Second
	// hangupSpan is how long after that a SIGHUP is still for it. A service that nobody
	// has told has been detached (disown): it has no controlling terminal any more, and
	// SIGHUP is an order to reload again.
	hangupSpan = 10 * time.Second
	// sameStop is how long after a stop another one may be for the same reason: an
	// embedded handoff is told of the terminal, and of its parent's end.
	sameStop = time.Second
)

// newTerminal watches a terminal until it closes, or is let go of by end; nil: there is
// none.
func newTerminal(file *os.File) terminal {
	t := terminal{file: file}
	if file != nil {
		t.closes = make(chan struct{})
		go t.watch() // ends with the terminal, or its file
	}
	return t
}

func (t *terminal) end() {
	if t.file != nil {
		t.file.Close()
	}
}

// watch waits for its end. Nothing is read: what is typed there is the shell's.
func (t *terminal) watch() {
	raw, err := t.file.SyscallConn()
	if err != nil {
		return
	}
	if raw.Read(hungUp) == nil {
		close(t.closes)
	}
}

// hungUp reports whether a terminal has closed.
func hungUp(fd uintptr) bool {
	p := []unix.PollFd{{Fd: int32(fd)}}
	n, err := unix.Poll(p, 0)
	return n > 0 && err == nil && p[0].Revents&unix.POLLHUP != 0
}

// lives looks whether it does, now: a signal may be quicker than watch.
func (t *terminal) lives(now time.Time) bool {
	if t.closed.IsZero() {
		if raw, err := t.file.SyscallConn(); err == nil {
			raw.Control(func(fd uintptr) {
				if hungUp(fd) {
					t.closed = now
				}
			})
		}
	}
	return t.closed.IsZero()
}

// foreground reports whether the kernel would tell this process of its end.
func (t *terminal) foreground() (yes bool) {
	sid, _ := unix.Getsid(0)
	if sid == os.Getpid() {
		return true
	}
	if raw, err := t.file.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) {
			group, err := unix.IoctlGetInt(int(fd), unix.TIOCGPGRP)
			yes = err == nil && group == unix.Getpgrp()
		})
	}
	return yes
}

// means tells what a signal orders, 0: nothing. Of several that say that the terminal
// closes one is a stop, since a second stop kills; and so is none after a stop.
func (t *terminal) means(s unix.Signal, now time.Time) unix.Signal {
	switch {
	case t.file == nil:
	case isStop(s):
		if !t.closed.IsZero() && !t.stopped.IsZero() && now.Sub(t.stopped) < sameStop {
			return 0
		}
		t.stopped = now
	case s == unix.SIGHUP && t.lives(now):
		if t.foreground() {
			t.asked = now
		}
	case s == unix.SIGHUP && now.Sub(t.closed) < hangupSpan:
		return t.stop(now)
	}
	return s
}

// hasClosed notes its end, and tells what a signal that came before it has ordered, 0:
// nothing more.
func (t *terminal) hasClosed(now time.Time) unix.Signal {
	t.closes = nil
	t.lives(now)
	if t.asked.IsZero() || now.Sub(t.asked) > hangupLead {
		return 0
	}
	return t.stop(now)
}

func (t *terminal) stop(now time.Time) unix.Signal {
	if !t.stopped.IsZero() {
		return 0
	}
	t.stopped = now
	return unix.SIGTERM
}
