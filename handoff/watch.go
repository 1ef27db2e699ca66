package handoff

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Watch is where groups are opened, and tells what happens to their sockets, without a
// wake-up for each connection: a socket reports its end (EPOLLHUP, by shutdown(2) of
// any holder), and, when armed, the next connection once.
//
// A Watch and its groups belong to one goroutine, their owner: it calls Collect when
// Wait has returned in another goroutine, and at Deadline. Or it has no loop of its
// own, and leaves that to Run.
type Watch struct {
	file     *os.File // the epoll instance, itself in Go's poller
	conn     syscall.RawConn
	wake     int // an eventfd, for accepted
	sockets  map[int32]*Socket
	groups   []*Group
	accepted struct {
		sync.Mutex
		list   []Accepted // not collected yet
		closed bool
	}
}

// NewWatch returns an empty watch. The caller closes it.
func NewWatch() (*Watch, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("cannot create an epoll instance: %w", err)
	}
	w := &Watch{wake: -1, sockets: map[int32]*Socket{}}
	if err = unix.SetNonblock(fd, true); err == nil { // so that os.NewFile gives it to the poller
		w.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	}
	if err == nil {
		err = unix.EpollCtl(fd, unix.EPOLL_CTL_ADD, w.wake, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(w.wake)})
	}
	w.file = os.NewFile(uintptr(fd), "watch")
	if err == nil {
		w.conn, err = w.file.SyscallConn()
	}
	if err != nil {
		w.file.Close()
		if w.wake >= 0 {
			unix.Close(w.wake)
		}
		return nil, fmt.Errorf("cannot make a watch: %w", err)
	}
	return w, nil
}

// Close gives every group up, and ends a Wait under way, which then returns
// an error.
func (w *Watch) Close() error {
	for _, g := range slices.Clone(w.groups) {
		g.Close()
	}
	w.accepted.Lock()
	defer w.accepted.Unlock()
	if w.accepted.closed {
		return os.ErrClosed
	}
	w.accepted.closed = true
	for _, a := range w.accepted.list {
		closeAll(a.FDs)
	}
	unix.Close(w.wake)
	return w.file.Close()
}

// Wait blocks until Collect has something to do.
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

// Deadline is when Collect wants to be called at the latest; zero: when Wait returns.
func (w *Watch) Deadline() (next time.Time) {
	for _, g := range w.groups {
		if !g.next.IsZero() && (next.IsZero() || g.next.Before(next)) {
			next = g.next
		}
	}
	return next
}

// Run is the loop of an owner that has none: it hands each event to handle, and calls
// each function that comes by calls, in the caller's goroutine, so that they may use the
// watch and its groups. It returns when calls is closed; the watch is closed then.
func (w *Watch) Run(calls <-chan func(), handle func(Event)) {
	signals := make(chan struct{})
	go func() { // ends when the watch is closed, and closes signals
		defer close(signals)
		for w.Wait() == nil {
			signals <- struct{}{}
		}
	}()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		if d := w.Deadline(); d.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(d))
		}
		select {
		case f, ok := <-calls:
			if !ok {
				w.Close()
				for range signals {
				}
				return
			}
			f()
			continue
		case <-signals:
		case <-timer.C:
		}
		for _, e := range w.Collect(time.Now()) {
			handle(e)
		}
	}
}

// repairEvery is how often, at most, and only while connections come, the sockets of
// a group are looked at for what no signal tells.
const repairEvery = time.Second

// signal is what epoll has of a socket.
type signal struct {
	socket *Socket
	hup    bool // somebody has shut it down
}

// Collect takes in what has happened since the last call, repairs what is to be
// repaired, keeps the balance, and returns what the owner is to know. It does not
// block.
func (w *Watch) Collect(now time.Time) (events []Event) {
	signals := w.poll()
	// Who has shut down has left the kernel's group, and the last of it has moved
	// into that place: all of it is to be known, in its order, before the first one
	// listens again.
	for _, s := range signals {
		if s.hup {
			s.socket.group.fell(s.socket)
		}
	}
	for _, s := range signals {
		g := s.socket.group
		switch {
		case s.socket.closed:
		case s.hup:
			events = append(events, g.repair(s.socket)...)
		case s.socket.Held():
			g.arrived(now)
			if now.Sub(g.repaired) > repairEvery {
				g.repaired = now
				for _, o := range g.Sockets() {
					if o.Held() {
						events = append(events, g.repair(o)...)
					}
				}
			}
		case s.socket.Pending() > 0:
			events = append(events, Queued{g, s.socket})
		default:
			g.arrange(s.socket)
		}
	}
	for _, a := range w.takeAccepted() {
		a.Socket.accepting = false
		if !a.Socket.closed {
			a.Group.arrange(a.Socket)
		}
		events = append(events, a)
	}
	for _, g := range w.groups {
		if err := g.tick(now); err != nil {
			events = append(events, Failed{g, err})
		}
	}
	return events
}

// Accepting tells whether a [Socket.Accept] is under way, or has ended and was not
// collected yet.
func (w *Watch) Accepting() bool {
	for _, s := range w.sockets {
		if s.accepting {
			return true
		}
	}
	return false
}

func (w *Watch) poll() (signals []signal) {
	var events [64]unix.EpollEvent
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
					signals = append(signals, signal{s, e.Events&(unix.EPOLLHUP|unix.EPOLLERR) != 0})
				} else if int(e.Fd) == w.wake {
					unix.Read(w.wake, make([]byte, 8))
				}
			}
		}
	})
	return signals
}

// tell has Collect return an event; from any goroutine.
func (w *Watch) tell(a Accepted) {
	w.accepted.Lock()
	defer w.accepted.Unlock()
	if w.accepted.closed {
		closeAll(a.FDs)
		return
	}
	w.accepted.list = append(w.accepted.list, a)
	unix.Write(w.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // any number but zero
}

func (w *Watch) takeAccepted() (list []Accepted) {
	w.accepted.Lock()
	defer w.accepted.Unlock()
	list, w.accepted.list = w.accepted.list, nil
	return list
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

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
