package handoff

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Inherit makes a group of a socket that somebody else has made, who may have a
// duplicate of it and listen on it already: a service manager. The group owns
// fd. Where the address cannot be bound once more (a privileged port, a socket
// of another user), the balance is Shared, whatever cfg says, and why tells the
// reason.
func Inherit(cfg Config, fd int) (g *Group, why error, err error) {
	at, err := bound(fd)
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		unix.Close(fd)
		return nil, nil, fmt.Errorf("cannot use a socket of the service manager: %w", err)
	}
	cfg.Addr = at
	g = &Group{cfg: cfg, addr: at, hash: cfg.NoProgram}
	first, err := g.join(fd, 0)
	if err != nil {
		return nil, nil, err
	}
	_, g.backlog, _ = first.queue()
	if cfg.Balance == Shared {
		return g, nil, nil
	}
	// A socket that has listened without SO_REUSEPORT is in no group, and takes
	// no program (EINVAL), until a second one joins it (reuseport_add_sock in
	// the kernel's net/core/sock_reuseport.c).
	second := -1
	if protocol, perr := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL); perr != nil || protocol != unix.IPPROTO_TCP {
		why = errors.New("it is not of plain TCP (MPTCP?)") // its TCP socket is out of reach
	} else if second, why = bind(at, cfg.V6Only, false); why == nil {
		_, why = g.join(second, 1)
	}
	if why != nil {
		g.cfg.Balance = Shared
		return g, fmt.Errorf("cannot bind %v once more: %w", at, why), nil
	}
	if !g.hash {
		g.hash = g.attach(randomProgram([]int{0})) != nil
	}
	return g, nil, nil
}
