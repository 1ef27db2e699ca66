package handoff

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// errLocked means that somebody who has a socket holds its lock in the kernel: by a call
// with memory that nobody fills (userfaultfd(2), a file of FUSE), for as long as he likes.
// Whoever else calls setsockopt, listen, shutdown or accept waits then, and not even a
// signal ends that.
var errLocked = errors.New("a process that has a duplicate of the socket holds its lock in the kernel")

// lockTimeout is how long a call may wait for the lock, once for each time that it is held.
const lockTimeout = time.Second

// locking makes a call that takes the socket's lock, with a duplicate of its descriptor. If
// it does not return in time, neither it nor later ones are waited for: errLocked.
func (s *Socket) locking(call func(fd int) error) error {
	if s.stuck() {
		return errLocked
	}
	fd, err := unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return err
	}
	result, returned := make(chan error, 1), make(chan struct{})
	go func() { // ends when the lock is free
		result <- call(fd)
		unix.Close(fd)
		close(returned)
	}()
	late := time.NewTimer(lockTimeout)
	defer late.Stop()
	select {
	case err := <-result:
		<-returned
		return err
	case <-late.C:
		s.locked = returned
		s.group.watch.later(Failed{s.group, fmt.Errorf("a socket of %v is not used for now: %w", s.group.addr, errLocked)})
		return errLocked
	}
}

// stuck reports whether a call still waits for the lock.
func (s *Socket) stuck() bool {
	select {
	case <-s.locked: // nil: never
		s.locked = nil
		return false
	default:
		return s.locked != nil
	}
}

func (s *Socket) shutdown() error {
	return s.locking(func(fd int) error { return unix.Shutdown(fd, unix.SHUT_RDWR) })
}

// probe finds out whether the lock is held.
func (s *Socket) probe() error {
	return s.locking(func(fd int) error {
		on, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT)
		if err == nil {
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, on)
		}
		return nil
	})
}
