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
	if g.hidden || g.cfg.Datagram {
		return nil
	}
	g.hidden = true
	var errs []error
	for _, s := range g.Sockets() {
		if !s.closed {
			errs = append(errs, s.locking(func(fd int) error {
				return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, math.MaxInt32)
			}))
		}
	}
	return errors.Join(errs...)
}

// Hidden reports whether the group was hidden.
func (g *Group) Hidden() bool { return g.hidden }
