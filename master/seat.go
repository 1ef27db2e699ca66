package master

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"handoff/internal/bindintercept"
	"handoff/internal/cmsg"
	"handoff/internal/events"
	"handoff/internal/keeper/fdstore"
	"handoff/internal/linux"
	"handoff/master/fleet"
	"handoff/master/listeners"
)

// attendSeat takes the notification descriptor from a worker's trampoline and
// posts the calls that stop at it, until no process of the worker is left.
func attendSeat(id fleet.ID, pair *cmsg.Conn, keep func(fd, board int) error, post func(event)) {
	fd, refused, err := bindintercept.ReadFilter(pair)
	if err != nil {
		return // it died before
	}
	if refused != 0 {
		post(seated{id: id, fd: -1, board: -1, kept: true, errno: refused})
		return
	}
	board, err := bindintercept.NewPendingCalls()
	if err != nil {
		unix.Close(fd)
		post(seated{id: id, fd: -1, board: -1, kept: true, errno: unix.ENOMEM})
		return
	}
	kerr := keep(fd, board)
	post(seated{id: id, fd: fd, board: board, kept: kerr == nil})
	attendCalls(id, fd, board, post)
}

// attendCalls takes a notification descriptor and its board over, and posts the
// calls.
func attendCalls(id fleet.ID, fd, board int, post func(event)) {
	l, err := bindintercept.NewListener(fd, board)
	if err != nil {
		post(seated{id: id, fd: -1, board: -1, kept: true, errno: unix.EBADF})
		return
	}
	defer l.Close()
	blind := 0
	for {
		call, err := l.Receive(func(pid int, err error) {
			if blind++; blind <= badMost {
				post(garbled{id, "a bind or listen that may not be looked at (its socket is not held): " + err.Error()})
			}
		})
		if err != nil {
			return
		}
		post(called{id, call})
	}
}

// seated: the worker has its filter, or runs without.
func (m *Master) seated(w *worker, e seated) {
	errno := e.errno
	w.seat, w.board = e.fd, e.board
	if !e.kept {
		m.keep.Store(fdstore.WorkerName(int(w.id), fdstore.Filter), w.seat)
		m.keep.Store(fdstore.WorkerName(int(w.id), fdstore.Calls), w.board)
	}
	if errno != 0 {
		m.once("seat", "The kernel refuses a seccomp notification filter ("+errno.Error()+
			"): the program's own sockets are not held. Give it sockets with --listen ADDR, if it takes them as systemd passes them (LISTEN_FDS)", w.attrs(events.WorkerUnseated)...)
	}
	if m.cfg.ReadyWhen == Started {
		m.ready(w)
	}
}

// called answers a worker that stands in bind or listen.
func (m *Master) called(w *worker, c *bindintercept.Call) {
	switch {
	case w.dead || m.fleet.Stopping():
		c.Continue()
	case c.Listen:
		m.listens(w, c)
	default:
		m.binds(w, c)
	}
}

// maxLooks is how many descriptors and processes of a worker are looked at: it must
// not be able to keep its master busy with them.
const maxLooks = 4096

// binds puts a held socket in the place of the program's own. A port 0 is
// another matter: who binds it may be about to connect. The kernel chooses a
// port, and listen makes it a held address; from the next worker on the
// address is known, and given at once.
func (m *Master) binds(w *worker, c *bindintercept.Call) {
	id := listeners.Worker(w.id)
	if l := m.listeners.LeaseOf(id, c.Inode); l != nil { // by the master before, which did not come to the answer
		m.binder(w, c)
		l.OwnFlags()
		m.log.Debug("A bind that the master before had not answered", w.attrs(events.WorkerSeated, "address", l.Address().Name())...)
		c.Answer(0)
		return
	}
	want := listeners.TCP(c.Addr, c.V6Only)
	if want.Port == 0 {
		want.Index = w.ports
	}
	a := m.listeners.Find(want)
	if !m.cfg.Hold(c.Addr) || want.Port == 0 && (a == nil || a.LeaseOf(id) != nil) || m.listeners.Count(id) >= maxLeases {
		c.Continue()
		return
	}
	if a == nil {
		var err error
		if a, err = m.listeners.Open(want); err != nil {
			m.refuse(w, c, err)
			return
		}
	}
	l, err := a.Retake(id, w.slot, func(inode uint64) bool { return linux.HasSocket(w.process.PID(), inode, maxLooks) }, c.ReusePort)
	if err != nil {
		m.refuse(w, c, err)
		return
	}
	if err := c.Give(l.FD()); err != nil {
		m.log.Error(err.Error(), w.attrs(events.AddressRefused, "address", a.Name())...)
		c.Continue()
		return
	}
	m.binder(w, c)
	l.OwnFlags()
	if want.Port == 0 {
		w.ports++
	}
	c.Answer(0)
}

// binder notes which process of the worker has bound a held address. When it is
// one alone, and not the leader, the leader is a launcher (npm, a shell), which
// may not pass a signal on: then the drain is the binder's.
func (m *Master) binder(w *worker, c *bindintercept.Call) {
	switch {
	case w.binder != nil && w.binder.PID() == c.Process.PID(), w.severalBind:
		return
	case w.binder != nil || c.Process.PID() == w.process.PID():
		w.severalBind = true // the leader, or several: who leads will know
		w.dropBinder()
		return
	}
	fd, err := c.Process.Duplicate()
	if err != nil {
		return
	}
	if p, err := linux.NewPidfd(c.Process.PID(), fd); err == nil {
		w.binder = p
		m.keep.Store(fdstore.WorkerName(int(w.id), fdstore.Binder), fd)
	}
}

func (w *worker) dropBinder() {
	if w.binder != nil {
		w.binder.Close()
		w.binder = nil
	}
}

func (m *Master) refuse(w *worker, c *bindintercept.Call, err error) {
	if w.refused++; w.refused <= badMost {
		m.log.Error("Cannot give a worker its socket: "+err.Error(), w.attrs(events.AddressRefused)...)
	}
	c.Answer(unix.Errno(errno(err)))
}

// listens is the notice that a program accepts. A held socket listens already,
// with the largest backlog, so there is nothing to execute.
func (m *Master) listens(w *worker, c *bindintercept.Call) {
	if l := m.listeners.LeaseOf(listeners.Worker(w.id), c.Inode); l != nil {
		l.Listening()
		c.Answer(0)
		m.accepts(w)
		return
	}
	if c.Addr.Port() == 0 || !m.cfg.Hold(c.Addr) {
		c.Continue()
		return
	}
	m.adopt(w, c)
}

// adopt makes a held address of a port that the kernel has chosen for a
// program.
func (m *Master) adopt(w *worker, c *bindintercept.Call) {
	want := listeners.TCP(netip.AddrPortFrom(c.Addr.Addr(), 0), c.V6Only)
	want.Index = w.ports
	l, err := m.chosen(w, c, want)
	if err != nil {
		m.refuse(w, c, err)
		return
	}
	w.ports++
	m.binder(w, c)
	l.OwnFlags()
	l.Listening()
	c.Answer(0)
	m.accepts(w)
}

// chosen returns a lease of a socket whose port the kernel has chosen: of a new
// address, which is made of that very socket, or, where another worker of the
// same time was first, of the one that exists; then the program's port changes
// between its bind and its listen, and a held socket takes the place of its own.
func (m *Master) chosen(w *worker, c *bindintercept.Call, want listeners.Endpoint) (*listeners.Lease, error) {
	id := listeners.Worker(w.id)
	if a := m.listeners.Find(want); a != nil {
		if a.LeaseOf(id) != nil {
			return nil, unix.EADDRINUSE
		}
		l, err := a.Take(id, w.slot)
		if err == nil {
			err = c.Give(l.FD())
		}
		return l, err
	}
	fd, err := c.Socket()
	if err != nil {
		return nil, err
	}
	a, err := m.listeners.Adopt(want, fd)
	if err != nil {
		return nil, err
	}
	l, err := a.Take(id, w.slot)
	if err == nil && l.Inode() != c.Inode {
		err = c.Give(l.FD()) // was MPTCP
	}
	return l, err
}

// accepts: a worker listens on one address more.
func (m *Master) accepts(w *worker) {
	m.resteer()
	if m.cfg.ReadyWhen == Listening {
		m.ready(w)
	}
}
