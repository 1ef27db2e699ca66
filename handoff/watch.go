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

// Watch opens groups and reports the events of their sockets, without a wake-up for each
// connection: a socket reports a shutdown(2) by any holder (EPOLLHUP), and, if it is
// armed, the next connection once.
//
// A Watch and its groups belong to one goroutine, their owner. It calls Collect when Wait
// has returned in another goroutine, and at Deadline. An owner without a loop of its own
// uses Run.
type Watch struct {
	// Grown is called while a socket of a group is replaced: the new one has joined, and
	// the old one has not left yet. Who keeps the [State] of the group for another process
	// writes it down now: later, that process would not know the new one, and take it for a
	// stranger's. May be nil.
	Grown func(*Group)

	file     *os.File // the epoll instance, itself in Go's poller
	conn     syscall.RawConn
	wake     int // an eventfd, for accepted
	sockets  map[int32]*Socket
	groups   []*Group
	events   []Event // that Collect returns next
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
	if err = unix.SetNonblock(fd, true); err == nil { // so that os.NewFile adds it to the poller
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
		return nil, fmt.Errorf("cannot create a watch: %w", err)
	}
	return w, nil
}

// Close closes every group and ends a pending Wait, which then returns an error.
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

// Deadline is when Collect must be called at the latest; zero: when Wait returns.
func (w *Watch) Deadline() (next time.Time) {
	for _, g := range w.groups {
		for _, at := range []time.Time{g.next, g.renewAt()} {
			if !at.IsZero() && (next.IsZero() || at.Before(next)) {
				next = at
			}
		}
	}
	return next
}

// Run is a loop for an owner that has none. It passes each event to handle and calls each
// function received from calls, in the caller's goroutine, so that they may use the watch
// and its groups. It returns when calls is closed, and closes the watch.
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

// repairEvery is the minimum interval at which the sockets of a group are checked for
// changes that cause no event. It happens only while connections arrive.
const repairEvery = time.Second

// signal is an epoll event of a socket.
type signal struct {
	socket *Socket
	hup    bool // a holder has shut it down
}

// Collect processes what has happened since the last call: it repairs sockets, keeps the
// balance, and returns the events for the owner. It does not block.
func (w *Watch) Collect(now time.Time) (events []Event) {
	signals := w.poll()
	events, w.events = w.events, nil
	// A socket that was shut down has left the kernel's group, and the last one has moved
	// into its place. All of these must be noted, in order, before the first one listens
	// again.
	for _, s := range signals {
		if s.hup {
			s.socket.group.noteShutdown(s.socket)
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
			if now.Sub(g.checked) > repairEvery {
				g.checked = now
				g.noteStrangers()
				if err := g.reattach(); err != nil {
					events = append(events, Failed{g, err})
				}
				for _, o := range g.Sockets() {
					if o.Held() {
						events = append(events, g.repair(o)...)
					}
				}
			}
		case s.socket.Pending() > 0:
			g.noteStrangers() // perhaps that is why, or another program
			if err := g.reattach(); err != nil {
				events = append(events, Failed{g, err})
			}
			if !s.socket.dropProbes() {
				events = append(events, Queued{g, s.socket})
			}
		default:
			g.arrange(s.socket)
		}
	}
	for _, a := range w.takeAccepted() {
		a.Socket.accepting = false
		if !a.Socket.closed {
			a.Group.arrange(a.Socket)
		}
		if a.Socket.dropping {
			a.Socket.dropping = false
			for _, fd := range a.FDs {
				unix.Close(fd)
			}
			continue
		}
		events = append(events, a)
	}
	for _, g := range w.groups {
		if err := g.tick(now); err != nil {
			events = append(events, Failed{g, err})
		}
		g.renewParked(now)
	}
	return events
}

// Accepting reports whether a [Socket.Accept] is running, or its result was not collected
// yet.
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

// post makes Collect return an event. Any goroutine may call it.
func (w *Watch) post(a Accepted) {
	w.accepted.Lock()
	defer w.accepted.Unlock()
	if w.accepted.closed {
		closeAll(a.FDs)
		return
	}
	w.accepted.list = append(w.accepted.list, a)
	unix.Write(w.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // any number but zero
}

// later makes Collect return an event. Only the owner calls it.
func (w *Watch) later(e Event) {
	w.events = append(w.events, e)
	w.wakeUp()
}

func (w *Watch) wakeUp() { unix.Write(w.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }

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

// arm reports the next connection once, or immediately if one is queued.
func (w *Watch) arm(s *Socket) error {
	return w.set(unix.EPOLL_CTL_MOD, s, unix.EPOLLIN|unix.EPOLLONESHOT)
}

// disarm reports only a shutdown. It is needed after the armed event, too: EPOLLONESHOT
// also disables EPOLLHUP.
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
