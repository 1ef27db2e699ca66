package handoff

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// noteShutdown notes a socket that no longer listens: it has left the group, and the last socket
// has moved into its place. (A holder that calls shutdown and then listen causes no
// event, and the recorded order is wrong until the next repair; no program does so by
// accident.)
func (g *Group) noteShutdown(s *Socket) {
	if g.cfg.Datagram {
		return // it stays in its place
	}
	if !s.shut && !s.closed && !s.listening() {
		s.shut = true
		g.leave(s)
	}
}

// noteShutdowns is noteShutdown for all; it reports whether one is new.
func (g *Group) noteShutdowns() (noted bool) {
	for _, s := range g.Sockets() {
		g.noteShutdown(s)
		noted = noted || s.shut
	}
	return noted
}

// anyShut reports whether a holder has shut down a socket that is in the record.
func (g *Group) anyShut() bool {
	return slices.ContainsFunc(g.Sockets(), func(s *Socket) bool { return !s.listening() })
}

// repair undoes a holder's changes to a socket that it shares with the owner.
func (g *Group) repair(s *Socket) (events []Event) {
	if s.closed || g.cfg.Datagram { // the program's own
		return nil
	}
	repaired := func(what string, err error) {
		events = append(events, Repaired{g, s, what})
		if err != nil {
			events = append(events, Failed{g, err})
		}
	}
	if g.noteShutdown(s); s.shut {
		err := g.listenAgain(s)
		if errors.Is(err, errDetached) {
			return append(events, Repaired{g, s, shutDown}, Detached{g, s, err})
		}
		repaired(shutDown, err)
	} else if _, backlog, qerr := s.queue(); qerr == nil && backlog < g.backlog {
		// It has called listen(2) with a backlog of its own, which is legitimate.
		if err := s.locking(func(fd int) error { return unix.Listen(fd, maxBacklog) }); err != nil {
			events = append(events, Failed{g, err})
		}
	}
	if flags, err := unix.FcntlInt(uintptr(s.fd), unix.F_GETFL, 0); err == nil && flags&unix.O_NONBLOCK == 0 && !s.ownFlags {
		repaired("cleared O_NONBLOCK on the listening socket", unix.SetNonblock(s.fd, true))
	}
	if on, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_REUSEPORT); err == nil && on == 0 {
		repaired("cleared SO_REUSEPORT on the listening socket", s.locking(func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) }))
	}
	g.arrange(s)
	return events
}

const shutDown = "called shutdown(2) on the listening socket"

// errDetached means that a socket could not be repaired and was closed.
var errDetached = errors.New("cannot listen again")

// listenAgain returns a socket that was shut down to the group.
func (g *Group) listenAgain(s *Socket) error {
	s.shut = false
	// It has left the kernel's order, and the last socket is in its place. The program
	// must be correct before it listens again, which makes it the last of the group. (A
	// group whose only member was shut down has no program to correct.)
	g.program = nil
	err := g.apply()
	if err := s.locking(func(fd int) error { return unix.Listen(fd, maxBacklog) }); err != nil {
		g.close(s)
		g.program = nil
		return errors.Join(fmt.Errorf("%w on %v: %w", errDetached, g.addr, err), g.apply())
	}
	if g.anyShut() { // before or after it, nobody can say: once more, when that is noted
		s.shut = true
		return errors.Join(err, s.shutdown())
	}
	g.order = append(g.order, s)
	if len(g.order) == 1 || g.isTarget(s) {
		g.program = nil // the group may have lost its program with its only member
		err = errors.Join(err, g.apply())
	}
	if len(g.targets) == 0 && g.Steerable() {
		err = g.attach(randomOf([]int{0}))
	}
	return err
}

func (g *Group) close(s *Socket) {
	s.closed = true
	for i, o := range g.targets {
		if o == s {
			g.targets[i] = nil
		}
	}
	g.watch.remove(s)
	if s.accepting && !s.Held() {
		s.shutdown() // else a blocked Accept keeps it open
	}
	unix.Close(s.fd)
}

// leave removes a socket from the record, in the way the kernel does.
func (g *Group) leave(s *Socket) {
	for i, o := range g.order {
		if o == s {
			last := len(g.order) - 1
			g.order[i] = g.order[last]
			g.order = g.order[:last]
			return
		}
	}
}
