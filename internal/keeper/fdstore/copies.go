package fdstore

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"

	"handoff/internal/cmsg"
)

// Copies are duplicates of descriptors, under the names that they have in a store.
type Copies struct {
	Named []cmsg.Named // in the order in which they were added
	err   error        // of those that could not be
}

// Add duplicates a descriptor, which the caller still owns.
func (c *Copies) Add(name string, fd int) {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		c.err = errors.Join(c.err, err)
		return
	}
	c.Named = append(c.Named, cmsg.Named{Name: name, FD: dup})
}

// AddFile is Add for a Go file or socket. One that is closed is left out: Control fails for
// no other reason, by an error of Go's own (internal/poll's ErrFileClosing) that is not
// os.ErrClosed.
func (c *Copies) AddFile(name string, f syscall.Conn) {
	raw, err := f.SyscallConn()
	if err != nil {
		c.err = errors.Join(c.err, err)
		return
	}
	raw.Control(func(fd uintptr) { c.Add(name, int(fd)) })
}

// Err tells which could not be duplicated; nil: none.
func (c *Copies) Err() error { return c.err }

// Close closes them.
func (c *Copies) Close() {
	for _, n := range c.Named {
		unix.Close(n.FD)
	}
	c.Named = nil
}
