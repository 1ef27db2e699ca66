package linux

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// unnamed is a file without a name, which never gets one: where memfd_create(2) is refused.
// -1: none can be made.
func unnamed() int {
	for _, dir := range []string{"/dev/shm", "/run", "/tmp"} {
		if fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_EXCL|unix.O_RDWR|unix.O_CLOEXEC, 0o600); err == nil {
			return fd
		}
	}
	return -1
}

// Memfd returns a file in memory with that content, which the caller closes. It is
// close-on-exec; its offset is at the beginning. The name is visible in /proc.
func Memfd(name string, content []byte) (fd int, err error) {
	if fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC); err != nil {
		if err == unix.EPERM || err == unix.ENOSYS || err == unix.EACCES { // a container's profile
			fd = unnamed()
		}
		if fd < 0 {
			return -1, fmt.Errorf("cannot create a memory file: %w", err)
		}
		err = nil
	}
	for at := 0; at < len(content) && err == nil; {
		n := 0
		n, err = unix.Pwrite(fd, content[at:], int64(at))
		if err == unix.EINTR {
			err = nil
		}
		at += max(n, 0)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("cannot write a memory file: %w", err)
	}
	return fd, nil
}
