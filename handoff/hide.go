package handoff

import (
	"errors"
	"math"

	"golang.org/x/sys/unix"
)

// Hide takes a group out of the way of another one at an overlapping address, of which it has
// the more specific one: no new connection comes to it any more, while what it has in its
// queues, and half-open handshakes, go on. It stays so until it is closed.
//
// The kernel finds a listening socket for a SYN only if it is bound to no interface, or to the
// one that the SYN came by (compute_score in net/ipv4/inet_hashtables.c); these are bound to
// one that does not exist, which needs no privilege (SO_BINDTOIFINDEX, Linux 5.1, 5.7).
func (g *Group) Hide() error {
	if g.Hidden() || g.cfg.Datagram {
		return nil
	}
	g.hidden, g.aside = true, false
	return g.each(away)
}

// Hidden reports whether the group was hidden, for good.
func (g *Group) Hidden() bool { return g.hidden && !g.aside }

// Aside reports whether the group waits for Show, see [Config].
func (g *Group) Aside() bool { return g.aside }

// Show has new connections come to a group that was begun aside.
func (g *Group) Show() error {
	if !g.aside {
		return nil
	}
	err := g.each(show)
	if err == nil {
		g.hidden, g.aside = false, false
	}
	return err
}

func (g *Group) each(do func(fd int) error) error {
	var errs []error
	for _, s := range g.Sockets() {
		if !s.closed {
			errs = append(errs, s.locking(do))
		}
	}
	return errors.Join(errs...)
}

// away binds a socket to an interface that does not exist. A datagram socket leaves its group
// by that, for good.
func away(fd int) error {
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, math.MaxInt32)
}

// show ends away, for which the kernel wants CAP_NET_RAW.
func show(fd int) error {
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, 0)
}

// stepAside has a group that begins be aside if it is to be, and can be shown again.
func (g *Group) stepAside() {
	if !g.cfg.Aside || g.cfg.Datagram {
		return
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	g.aside = away(fd) == nil && show(fd) == nil
	g.hidden = g.aside
}
