package handoff

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Steer sends new connections to the given sockets, one for each slot, nil for an
// unserved slot. With no socket at all nothing changes: connections queue at the previous
// targets, for a worker that takes those sockets. After an error the previous targets
// remain.
func (g *Group) Steer(targets []*Socket) error {
	each := make([][]*Socket, len(targets))
	for i, s := range targets {
		each[i] = []*Socket{s}
	}
	return g.SteerEach(each)
}

// SteerEach is Steer for workers with several sockets: those of a slot share the
// connections of one.
func (g *Group) SteerEach(slots [][]*Socket) error {
	targets, places := flatten(slots)
	defer g.watchParked()
	some := false
	for _, s := range targets {
		if s != nil && s.group != g {
			return fmt.Errorf("cannot steer %v: a socket is of another group", g.addr)
		}
		some = some || s != nil
	}
	if !some {
		return nil
	}
	if slices.Equal(targets, g.targets) && slices.Equal(places, g.places) {
		if err := g.ensure(); err != nil {
			return err
		}
		g.waitOver() // the workers have the sockets in which connections waited
		return nil
	}
	old, oldPlaces := g.targets, g.places
	g.targets, g.places = targets, places
	g.balance.reset(len(targets))
	g.armed, g.calm, g.next = false, false, time.Time{}
	g.noteStrangers()
	err := g.apply()
	if err != nil {
		g.targets, g.places = old, oldPlaces
		g.balance.reset(len(old))
	}
	for _, s := range slices.Concat(old, targets) {
		if s != nil && !s.closed {
			s.quiet = s.quiet && !g.isTarget(s)
			g.arrange(s)
		}
	}
	if err == nil {
		g.waitOver()
	}
	g.rest()
	return err
}

// flatten lists the sockets of all places, and the place of each.
func flatten(slots [][]*Socket) (targets []*Socket, places []int) {
	for i, sockets := range slots {
		if len(sockets) == 0 {
			sockets = []*Socket{nil}
		}
		for _, s := range sockets {
			targets, places = append(targets, s), append(places, i)
		}
	}
	return targets, places
}

// watchParked reports again the connections that were queued at parked sockets while no
// worker could take them.
func (g *Group) watchParked() {
	for _, s := range g.order {
		if !s.Held() {
			g.arrange(s)
		}
	}
}

// apply attaches the program for the targets and the state of their queues.
func (g *Group) apply() error {
	if !g.Steerable() || len(g.targets) == 0 {
		return nil
	}
	indexes := make([][]int, g.places[len(g.places)-1]+1)
	some := false
	for i, s := range g.targets {
		if s == nil || g.balance.away(i) {
			continue
		}
		if at := slices.Index(g.order, s); at >= 0 { // else the socket is lost
			indexes[g.places[i]] = append(indexes[g.places[i]], at)
			some = true
		}
	}
	if !some {
		return nil
	}
	if g.cfg.Datagram {
		tags, of := g.tags()
		return g.attach(connectionProgram(tags, of, datagramProgram(indexes)))
	}
	if g.cfg.Balance == Sticky {
		return g.attach(stickyProgram(indexes))
	}
	return g.attach(randomProgram(indexes))
}

// ensure applies targets that an earlier owner has decided on, and may not have applied.
func (g *Group) ensure() error {
	if g.program == nil {
		return g.apply()
	}
	return nil
}

// reattach attaches the program again: any member of the group can attach another, or
// detach it, and nobody can read that.
func (g *Group) reattach() error {
	g.program = nil
	return g.apply()
}

// attach attaches a program, behind the rules of the probes that are under way.
func (g *Group) attach(base program) error {
	p := slices.Concat(probeRules(g.rules()), base)
	if len(p) > unix.BPF_MAXINSNS && len(g.probes) > 0 {
		g.loseProbes()
		p = base
	}
	if g.program.equal(p) {
		return nil
	}
	// Attaching to a socket that a worker has just shut down would make a separate group
	// of it, permanently: the kernel then refuses to let it listen again (EADDRINUSE). A
	// socket on which a worker has set SO_LOCK_FILTER refuses the program (EPERM), and one
	// whose lock it holds does not answer: any other member works.
	var refused error
	for _, s := range g.order {
		if s.stranger || !s.listening() {
			continue
		}
		if refused = s.locking(func(fd int) error { return attach(fd, p) }); refused == nil {
			g.program = p
			if !g.base.equal(base) {
				g.steered++
			}
			g.base = base
			return nil
		}
		if g.cfg.Datagram && errors.Is(refused, unix.EINVAL) {
			// In no group: it was connected, and is so no longer. Nothing brings it back.
			g.leave(s)
			g.program = nil
			return g.apply()
		}
	}
	g.loseProbes()
	if refused == nil {
		return nil // repair follows and applies it
	}
	return fmt.Errorf("cannot steer %v: %w", g.addr, refused)
}
