package handoff

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Named is a descriptor with the name that it was passed by.
type Named struct {
	Name string // "" if it has none
	FD   int
}

// passedFirst is SD_LISTEN_FDS_START of sd_listen_fds(3).
const passedFirst = 3

// Passed returns the descriptors that a service manager has passed to this very
// process, with their names, in their order: LISTEN_PID, LISTEN_FDS and
// LISTEN_FDNAMES of sd_listen_fds(3), which env looks up. The caller owns
// them; they are close-on-exec. None is no error; a list that contradicts itself
// is.
func Passed(env func(string) string) ([]Named, error) {
	if pid, err := strconv.Atoi(env("LISTEN_PID")); err != nil || pid != os.Getpid() {
		return nil, nil // it was for somebody else
	}
	n, err := strconv.Atoi(env("LISTEN_FDS"))
	if err != nil || n < 0 || n > 1<<16 {
		return nil, fmt.Errorf("cannot take the service manager's sockets: LISTEN_FDS is %q", env("LISTEN_FDS"))
	}
	names := strings.Split(env("LISTEN_FDNAMES"), ":")
	var passed []Named
	for i := range n {
		fd := passedFirst + i
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
			return nil, fmt.Errorf("cannot take the service manager's sockets: LISTEN_FDS is %d, but descriptor %d is not open", n, fd)
		}
		p := Named{FD: fd}
		if i < len(names) {
			p.Name = names[i]
		}
		passed = append(passed, p)
	}
	return passed, nil
}

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
