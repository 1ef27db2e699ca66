// Package listenfds takes sockets from a service manager (sd_listen_fds(3)).
package listenfds

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"handoff/internal/cmsg"
)

// passedFirst is SD_LISTEN_FDS_START of sd_listen_fds(3).
const passedFirst = 3

// Passed returns the descriptors that a service manager has passed to this very
// process, with their names, in their order: LISTEN_PID, LISTEN_FDS and
// LISTEN_FDNAMES of sd_listen_fds(3), which env looks up. The caller owns
// them; they are close-on-exec. None is no error; a list that contradicts itself
// is.
func Passed(env func(string) string) ([]cmsg.Named, error) {
	passed, err := parse(env, os.Getpid())
	if err != nil {
		return nil, fmt.Errorf("cannot take the service manager's sockets: %w", err)
	}
	for _, p := range passed {
		if _, err := unix.FcntlInt(uintptr(p.FD), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
			return nil, fmt.Errorf("cannot take the service manager's sockets: LISTEN_FDS is %d, but descriptor %d is not open", len(passed), p.FD)
		}
	}
	return passed, nil
}

// maxPassed is how many descriptors a service manager may pass.
const maxPassed = 1 << 16

// parse reads what the variables say to a process.
func parse(env func(string) string, self int) (passed []cmsg.Named, err error) {
	if pid, err := strconv.Atoi(env("LISTEN_PID")); err != nil || pid != self {
		return nil, nil // for another process
	}
	n, err := strconv.Atoi(env("LISTEN_FDS"))
	if err != nil || n < 0 || n > maxPassed {
		return nil, fmt.Errorf("LISTEN_FDS is %q", env("LISTEN_FDS"))
	}
	names := strings.Split(env("LISTEN_FDNAMES"), ":")
	for i := range n {
		p := cmsg.Named{FD: passedFirst + i}
		if i < len(names) {
			p.Name = names[i]
		}
		passed = append(passed, p)
	}
	return passed, nil
}
