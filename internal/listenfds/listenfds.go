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
	if pid, err := strconv.Atoi(env("LISTEN_PID")); err != nil || pid != os.Getpid() {
		return nil, nil // for another process
	}
	n, err := strconv.Atoi(env("LISTEN_FDS"))
	if err != nil || n < 0 || n > 1<<16 {
		return nil, fmt.Errorf("cannot take the service manager's sockets: LISTEN_FDS is %q", env("LISTEN_FDS"))
	}
	names := strings.Split(env("LISTEN_FDNAMES"), ":")
	var passed []cmsg.Named
	for i := range n {
		fd := passedFirst + i
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
			return nil, fmt.Errorf("cannot take the service manager's sockets: LISTEN_FDS is %d, but descriptor %d is not open", n, fd)
		}
		p := cmsg.Named{FD: fd}
		if i < len(names) {
			p.Name = names[i]
		}
		passed = append(passed, p)
	}
	return passed, nil
}
