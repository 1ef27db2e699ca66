package bindintercept

import (
	"io"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Listener receives the intercepted calls of one worker and its descendants. One
// goroutine may Receive; any may answer calls.
type Listener struct {
	file    *os.File
	raw     syscall.RawConn
	pending *pendingCalls
	left    []int // entries of calls that a previous listener has received
	names   *Names
	bound   bound // the goroutine's that receives
	begun   begun // likewise
}

// NewListener takes ownership of a notification descriptor, and its file of
// [NewPendingCalls]: calls that a previous listener has received and not answered are
// received again. Close closes both descriptors; on error they are closed here.
func NewListener(fd, pendingFD int) (*Listener, error) {
	if err := unix.SetNonblock(fd, true); err != nil { // into Go's poller
		unix.Close(fd)
		unix.Close(pendingFD)
		return nil, err
	}
	l := &Listener{file: os.NewFile(uintptr(fd), "seccomp")}
	var err error
	if l.raw, err = l.file.SyscallConn(); err == nil {
		l.pending, l.left, err = mapPendingCalls(pendingFD)
	}
	if err != nil {
		l.file.Close()
		unix.Close(pendingFD)
		return nil, err
	}
	return l, nil
}

// Close ends a Receive. Waiting calls then fail with ENOSYS in the program. It may be
// called again.
func (l *Listener) Close() error {
	err := l.file.Close()
	l.pending.close()
	return err
}

// Descriptors passes the notification descriptor and the file of pending calls to f, for
// storing duplicates; nothing after Close.
func (l *Listener) Descriptors(each func(filter, pending int)) {
	l.raw.Control(func(fd uintptr) {
		l.pending.mu.Lock()
		defer l.pending.mu.Unlock()
		if !l.pending.closed {
			each(int(fd), l.pending.fd)
		}
	})
}

// Concern has calls for these names reported, besides those of the worker's own sockets.
// It is called before Receive.
func (l *Listener) Concern(n *Names) { l.names = n }

// Receive returns the next call of one of the kinds. Others are let through here. It returns
// io.EOF when no process has the filter any more, or the listener is closed. hidden is called
// for a call of a process that may not be inspected, before it goes its way.
func (l *Listener) Receive(hidden func(r Request, err error)) (*Call, error) {
	for {
		n, entry, err := l.next()
		if err != nil {
			l.bound.clear()
			return nil, err
		}
		c := &Call{Request: Request{PID: int(n.pid), Listen: n.nr == unix.SYS_LISTEN, FD: int(int32(n.args[0]))}, l: l, id: n.id, entry: entry}
		l.begun.ended(c)
		ok, err := c.inspect(&n)
		if err != nil && l.valid(n.id) {
			hidden(c.Request, err)
		}
		if ok && l.valid(n.id) {
			l.bound.note(c)
			l.begun.note(c)
			return c, nil
		}
		if c.gone {
			c.Answer(unix.ENOENT)
			continue
		}
		c.Continue()
	}
}

// inspect reads what the call is about; ok reports whether it is to be reported.
func (c *Call) inspect(n *notification) (ok bool, err error) {
	op, names := namesOf(n.nr, n.args)
	switch {
	case n.nr == unix.SYS_CONNECT:
		c.Kind, c.Op = Unix, Connect
		return c.lookConnect(n.args[1], n.args[2])
	case names == nil:
		return c.look(n.args[1], n.args[2])
	}
	if c.Kind, c.Op = Unix, op; n.nr == unix.SYS_RENAMEAT2 {
		c.Flags = uint32(n.args[4])
	}
	return c.lookNames(names)
}

func (l *Listener) next() (n notification, entry int, err error) {
	for len(l.left) > 0 {
		entry, l.left = l.left[0], l.left[1:]
		if n = l.pending.calls[entry]; l.valid(n.id) {
			return n, entry, nil
		}
		l.pending.clear(entry)
	}
	entry = <-l.pending.free // each call is answered by a loop that runs as long as this
	for {
		done := false
		err := l.raw.Read(func(fd uintptr) bool {
			p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			k, err := unix.Poll(p, 0)
			if err == unix.EINTR || k == 0 {
				return false
			}
			done = p[0].Revents&unix.POLLIN == 0 // POLLHUP: no process is left
			return true
		})
		if err != nil || done {
			return n, entry, io.EOF
		}
		l.pending.calls[entry] = notification{}
		// The call may have been taken back between poll and here, by a KILL:
		// this then waits for the next one, or for the end.
		switch errno := l.ioctl(ioctlRecv, unsafe.Pointer(&l.pending.calls[entry])); errno {
		case 0:
			return l.pending.calls[entry], entry, nil
		case unix.ENOENT, unix.EINTR:
		default:
			return n, entry, io.EOF
		}
	}
}

func (l *Listener) ioctl(request uintptr, p unsafe.Pointer) unix.Errno {
	var errno unix.Errno
	err := l.raw.Control(func(fd uintptr) {
		_, _, errno = unix.Syscall(unix.SYS_IOCTL, fd, request, uintptr(p))
	})
	if err != nil {
		return unix.EBADF
	}
	return errno
}

// valid reports whether the call still waits: only then was what has been read
// about its process about that process.
func (l *Listener) valid(id uint64) bool { return l.ioctl(ioctlIDValid, unsafe.Pointer(&id)) == 0 }

// notification is struct seccomp_notif.
type notification struct {
	id    uint64
	pid   uint32
	flags uint32
	nr    int32
	arch  uint32
	ip    uint64
	args  [6]uint64
}

type response struct {
	id    uint64
	val   int64
	errno int32
	flags uint32
}

type addFD struct {
	id         uint64
	flags      uint32
	srcfd      uint32
	newfd      uint32
	newfdFlags uint32
}
