package linux

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Memfd returns a file in memory with that content, which the caller closes. It is
// close-on-exec; its offset is at the beginning. The name is visible in /proc.
func Memfd(name string, content []byte) (fd int, err error) {
	if fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC); err != nil {
		return -1, fmt.Errorf("cannot create a memory file: %w", err)
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
