package handoff

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Signal is what a [Watch] reports of a socket.
type Signal struct {
	Socket   *Socket
	Hup      bool // somebody has shut the socket down
	Readable bool // a connection came to an armed socket; the arming is used up
}

// Watch tells when something happens to listening sockets, without a wake-up
// for each connection: a socket reports its end only (EPOLLHUP, by shutdown(2)
// of any holder), and, when armed, the next connection once.
//
// Wait may run in a goroutine of its own, which tells the owner; everything
// else belongs to the owner.
type Watch struct {
	file    *os.File // the epoll instance, itself in Go's poller
	conn    syscall.RawConn
	sockets map[int32]*Socket
}

// NewWatch returns an empty watch. The caller closes it.
func NewWatch() (*Watch, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("cannot create an epoll instance: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // so that os.NewFile gives it to the poller
		unix.Close(fd)
		return nil, err
	}
	w := &Watch{file: os.NewFile(uintptr(fd), "watch"), sockets: map[int32]*Socket{}}
	if w.conn, err = w.file.SyscallConn(); err != nil {
		w.file.Close()
		return nil, err
	}
	return w, nil
}

// Close ends a Wait under way, which then returns os.ErrClosed.
func (w *Watch) Close() error { return w.file.Close() }

// Wait blocks until Collect has something to return.
func (w *Watch) Wait() error {
	ready := false
	err := w.conn.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 0)
		ready = n > 0 && err == nil
		return ready
	})
	if err != nil {
		return err
	}
	if !ready {
		return errors.New("cannot wait for the watch")
	}
	return nil
}

// Collect returns what has happened since the last call, without blocking.
func (w *Watch) Collect() []Signal {
	var (
		signals []Signal
		events  [64]unix.EpollEvent
	)
	w.control(func(fd int) error {
		for {
			n, err := unix.EpollWait(fd, events[:], 0)
			if err == unix.EINTR {
				continue
			}
			if n <= 0 {
				return nil
			}
			for _, e := range events[:n] {
				if s := w.sockets[e.Fd]; s != nil {
					signals = append(signals, Signal{
						Socket:   s,
						Hup:      e.Events&(unix.EPOLLHUP|unix.EPOLLERR) != 0,
						Readable: e.Events&unix.EPOLLIN != 0,
					})
				}
			}
		}
	})
	return signals
}

func (w *Watch) control(f func(fd int) error) error {
	var err error
	if cerr := w.conn.Control(func(fd uintptr) { err = f(int(fd)) }); cerr != nil {
		return cerr
	}
	return err
}

func (w *Watch) add(s *Socket) error {
	w.sockets[int32(s.fd)] = s
	return w.set(unix.EPOLL_CTL_ADD, s, 0)
}

// remove must come before the socket is closed: a duplicate in a worker would
// keep it in the epoll set.
func (w *Watch) remove(s *Socket) {
	delete(w.sockets, int32(s.fd))
	w.set(unix.EPOLL_CTL_DEL, s, 0)
}

// arm asks to be told of the next connection, or at once if one is queued.
func (w *Watch) arm(s *Socket) error {
	return w.set(unix.EPOLL_CTL_MOD, s, unix.EPOLLIN|unix.EPOLLONESHOT)
}

// disarm goes back to reporting the socket's end only. It is needed after an
// arming was used up too: EPOLLONESHOT silences EPOLLHUP as well.
func (w *Watch) disarm(s *Socket) error { return w.set(unix.EPOLL_CTL_MOD, s, 0) }

func (w *Watch) set(op int, s *Socket, events uint32) error {
	return w.control(func(fd int) error {
		// EPOLLET with no other event: EPOLLHUP and EPOLLERR, once each.
		return unix.EpollCtl(fd, op, s.fd, &unix.EpollEvent{Events: events | uint32(unix.EPOLLET&0xffffffff), Fd: int32(s.fd)})
	})
}
